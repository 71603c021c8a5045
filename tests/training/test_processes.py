"""Two processes agree with each other and with one."""

import json
import subprocess

import pytest
import torch

#: Stage, flags on top of those of all tiny runs, and the step whose batch is spoilt in the second process.
RUNS = {
    "everything": ("compressor", (), None),
    "averages": (
        "compressor",
        (
            *("--model.compressor.quantizer.update", "EMAUpdate", "--trainer.precision", "bf16-mixed"),
            *("--model.compressor.network.checkpoint", "true", "--trainer.accumulate_grad_batches", "2"),
        ),
        None,
    ),
    "spoilt": ("compressor", (), 3),
    "spoilt prior": ("prior", ("--trainer.accumulate_grad_batches", "2"), 3),
    "recomputed prior": ("prior", ("--model.prior.backbone.checkpoint", "true"), None),
    "random order": (
        "prior",
        ("--model.prior", "RandomOrder", "--trainer.accumulate_grad_batches", "2"),
        None,
    ),
    "uneven": ("prior", ("--data.batch_size", "2", "--data.limit", "25", "--data.validation", "0.25"), None),
}

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def both(runs, torchrun, job, tmp_path_factory):
    """The folders of all runs, and what each process has learned in them."""
    folder = tmp_path_factory.mktemp("torchrun")
    jobs = [job(stage, f"two {name}", flags, spoilt) for name, (stage, flags, spoilt) in RUNS.items()]
    cut = ("--trainer.checkpoint_minutes", "0")
    for stage in ("compressor", "prior"):
        jobs.append(job(stage, f"two cut {stage}", cut, cut=6))
        jobs.append(job(stage, f"two cut {stage}", cut))
    jobs.append(job("prior", "two straight prior", ()))
    torchrun(folder, jobs)

    def found(name):
        learned = [torch.load(runs.folder / f"two {name}.{rank}.pt") for rank in range(2)]
        return runs.folder / f"two {name}", *learned

    return found


def lines(folder):
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


@pytest.mark.parametrize("name", RUNS)
def test_processes_agree_bit_for_bit(both, name):
    """Weights, averages, codebooks, windows of usage, LeCAM's anchors and counters, to the last bit."""
    _, one, other = both(name)
    assert [key for key in one if not torch.equal(one[key], other[key])] == []
    assert one.keys() == other.keys() and int(one["consumed"]) in (16, 32)


@pytest.mark.parametrize("name", ["spoilt", "spoilt prior"])
def test_non_finite_batch_is_skipped_by_all_processes(both, name):
    folder, one, _ = both(name)
    assert int(one["skipped"]) == 1
    assert [line["train/skipped"] for line in lines(folder) if "train/skipped" in line] == [0] * 3 + [1] * 5
    assert all(value.isfinite().all() for value in one.values())


@pytest.mark.parametrize(("stage", "straight"), [("compressor", "everything"), ("prior", "straight prior")])
def test_two_processes_resume_bit_for_bit(both, unlike, stage, straight):
    assert unlike(both(straight)[0], both(f"cut {stage}")[0]) == []


QUIET = (
    *("--model.prior.backbone.dropout", "0.0", "--model.prior.code_noise", "0.0"),
    *("--model.condition.dropout", "0.0"),
)


def test_two_processes_match_one(runs, torchrun, job, tmp_path):
    """Where nothing is random in a step, also with parts, and from a checkpoint that one process left."""
    alone = lines(runs.train("prior", "alone", *QUIET, "--data.limit", "25", "--data.validation", "0.25"))
    flags = (*QUIET, "--data.limit", "25", "--data.validation", "0.25")
    parts = (*flags, "--trainer.accumulate_grad_batches", "2")
    jobs = [job("prior", "shared", flags), job("prior", "in parts", parts)]
    torchrun(tmp_path, jobs)
    for name in ("shared", "in parts"):
        for mine, theirs in zip(alone, lines(runs.folder / name), strict=True):
            assert mine == pytest.approx(theirs, rel=2e-4), name


def test_two_hosts_continue_after_a_process_dies(runs, both, job, torchrun, unlike, tmp_path):
    """Two agents meet at an address; SIGKILL in the middle of a step; all begin again from the checkpoint."""
    hosts = ("--trainer.num_nodes", "2", "--trainer.devices", "1")
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
    assert unlike(both("straight prior")[0], folder) == []
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
