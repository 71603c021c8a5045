"""Two processes agree with each other and with one."""

import json
import subprocess

import pytest
import torch

pytestmark = pytest.mark.distributed


@pytest.fixture
def both(two_processes):
    """The folder of a run, and what each process has learned in it."""

    def found(name):
        learned = [torch.load(two_processes / f"{name}.{rank}.pt") for rank in range(2)]
        return two_processes / name, *learned

    return found


def lines(folder):
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def test_processes_agree_bit_for_bit(both, two_runs):
    """Weights, averages, codebooks, windows of usage, LeCAM's anchors and counters, to the last bit."""
    for name in two_runs:
        _, one, other = both(name)
        assert [key for key in one if not torch.equal(one[key], other[key])] == [], name
        assert one.keys() == other.keys() and int(one["consumed"]) in (16, 32), name


@pytest.mark.parametrize("name", ["ddp everything", "ddp random order"])
def test_non_finite_batch_is_skipped_by_all_processes(both, name):
    folder, one, _ = both(name)
    assert int(one["skipped"]) == 1
    assert [line["train/skipped"] for line in lines(folder) if "train/skipped" in line] == [0] * 3 + [1] * 5
    assert all(value.isfinite().all() for value in one.values())


@pytest.mark.parametrize("name", ["everything", "prior"])
def test_two_processes_resume_bit_for_bit(both, unlike, name):
    assert unlike(both(f"ddp {name}")[0], both(f"ddp cut {name}")[0]) == []


def test_two_processes_match_one(runs, both, two_runs):
    """Steps without randomness are equal, with accumulated batches too."""
    alone = lines(runs.train("prior", "alone", *two_runs["ddp shared"][1]))
    for name in ("ddp shared", "ddp in parts"):
        for mine, theirs in zip(alone, lines(both(name)[0]), strict=True):
            assert mine == pytest.approx(theirs, rel=2e-4), name


@pytest.mark.nightly
def test_two_hosts_continue_after_a_process_dies(runs, both, two_runs, job, torchrun, unlike, tmp_path):
    """Two agents meet at an address; SIGKILL in the middle of a step; all begin again from the checkpoint."""
    hosts = (*two_runs["ddp prior"][1], "--trainer.num_nodes", "2", "--trainer.devices", "1")
    file, killed = tmp_path / "jobs.json", tmp_path / "killed"
    file.write_text(json.dumps([job("prior", "two hosts", hosts, killed=str(killed))]))
    meeting = [
        "--rdzv-backend",
        "c10d",
        "--rdzv-endpoint",
        f"127.0.0.1:{torchrun.free_port()}",
        "--rdzv-id",
        "test",
    ]
    shape = ["--nnodes", "2", "--nproc-per-node", "1", "--max-restarts", "3"]
    agents = []
    for address in ("127.0.0.1", "127.0.0.2"):
        with (tmp_path / address).open("w") as errors:
            words = [*torchrun.command, *shape, *meeting, "--local-addr", address, torchrun.worker, str(file)]
            agents.append(subprocess.Popen(words, env=torchrun.environment(), stderr=errors))
    ends = [agent.wait(timeout=500) for agent in agents]
    told = "\n".join((tmp_path / address).read_text() for address in ("127.0.0.1", "127.0.0.2"))
    assert ends == [0, 0], told[-9000:]
    assert killed.exists() and "continues at step" in told
    folder = runs.folder / "two hosts"
    assert unlike(both("ddp prior")[0], folder) == []
    steps = [line["step"] for line in lines(folder) if "train/loss" in line]
    assert steps == list(range(1, 9)), "no step is missing or there twice"


def test_fewer_validation_images_than_processes_are_rejected(runs):
    from genstack.cli.parsing.stages import STAGES, build_training
    from genstack.training.run import Run

    stage = STAGES["prior"]
    words = runs.words("prior", "few", "--data.limit", "6")[1:]
    _, training = build_training(stage, stage.parse(words), Run(runs.folder / "few"))

    class Trainer:
        world_size, global_rank, accumulate_grad_batches = 4, 0, 1

    training._trainer = Trainer()
    with pytest.raises(ValueError, match="validation images cannot be shared by 4 processes"):
        training.val_dataloader()
