"""Weights that are cut among processes learn what whole ones learn, and their checkpoints fit any number."""

import re
from itertools import product

import pytest
import torch
from safetensors.torch import load_file

from genstack.errors import UserError
from genstack.training.callbacks.checkpoint import latest
from genstack.training.run import Run
from genstack.training.sharded_checkpoint import read_rest

pytestmark = pytest.mark.slow

FSDP = ("--trainer.strategy", "fsdp")
EVERY_STEP = ("--trainer.checkpoint_minutes", "0")
#: Stage, flags on top of those of all tiny runs, and the step whose batch is spoilt in the second process.
RUNS = {
    "everything": ("compressor", (), None),
    "averages": (
        "compressor",
        (
            *("--model.compressor.quantizer.learning", "ByAverage"),
            *("--model.compressor.network.checkpoint", "true", "--trainer.accumulate_grad_batches", "2"),
            *("--model.compressor.network.dropout", "0.0"),  # of one image it depends on the order of memory
        ),
        None,
    ),
    "prior": ("prior", ("--model.prior.backbone.checkpoint", "true"), None),
    "spoilt": ("prior", ("--trainer.accumulate_grad_batches", "2"), 3),
}
#: Nothing is random in a step, and there is a held-out image for each of four processes.
QUIET = (
    *("--model.prior.backbone.dropout", "0.0", "--model.prior.code_noise", "0.0"),
    *("--model.condition.dropout", "0.0", "--data.limit", "25", "--data.validation", "0.4"),
)


@pytest.fixture(scope="module")
def trained(runs, torchrun, job, tmp_path_factory):
    """The folders of all runs of two processes: `ddp NAME`, `fsdp NAME`, and those that were cut off."""
    jobs = []
    for name, (stage, flags, spoilt) in RUNS.items():
        jobs.append(job(stage, f"ddp {name}", flags, spoilt))
        jobs.append(job(stage, f"fsdp {name}", (*flags, *FSDP), spoilt))
    for stage in ("compressor", "prior"):
        jobs.append(job(stage, f"cut {stage}", (*FSDP, *EVERY_STEP), cut=6))
        jobs.append(job(stage, f"cut {stage}", (*FSDP, *EVERY_STEP)))
    jobs.append(job("prior", "straight", FSDP))
    jobs.append(job("prior", "fsdp bf16", (*FSDP, "--trainer.precision", "bf16-mixed")))
    jobs.append(job("prior", "ddp bf16", ("--trainer.precision", "bf16-mixed")))
    for strategy, count in product(("ddp", "fsdp"), (1, 4)):
        flags = (*QUIET, *EVERY_STEP, "--trainer.strategy", strategy)
        jobs.append(job("prior", f"{strategy} two then {count}", flags, cut=5))
    torchrun(tmp_path_factory.mktemp("jobs"), jobs)
    return runs.folder


def learned(folder, name):
    return [torch.load(folder / f"{name}.{rank}.pt") for rank in range(2)]


@pytest.mark.parametrize("name", RUNS)
def test_cut_weights_learn_what_whole_ones_learn(trained, name):
    """The same chance and images: gradients, clipping, averages, codebooks and counters are the same.

    One weight of a compressor was seen to differ by 2.3e-5 at a learning rate of 3e-3, also when it starts
    from trained weights. That rounding in Adam is the cause has not been shown.
    """
    (ddp, _), (fsdp, other) = learned(trained, f"ddp {name}"), learned(trained, f"fsdp {name}")
    assert ddp.keys() == fsdp.keys()
    for key, expected in ddp.items():
        torch.testing.assert_close(
            fsdp[key], expected, rtol=1e-5, atol=3e-5, msg=lambda told, key=key: f"{key} {told}"
        )
        assert torch.equal(fsdp[key], other[key]), key
    whole, assembled = (
        load_file(trained / f"{kind} {name}" / "model.safetensors") for kind in ("ddp", "fsdp")
    )
    torch.testing.assert_close(assembled, whole, rtol=1e-5, atol=3e-5)


def test_bf16_is_near(trained):
    """Networks round alike; sums of gradients are added up in another order."""
    (ddp, _), (fsdp, _) = learned(trained, "ddp bf16"), learned(trained, "fsdp bf16")
    for key, expected in ddp.items():
        torch.testing.assert_close(fsdp[key], expected, rtol=1e-3, atol=1e-3)


def test_each_process_keeps_half_of_the_weights(trained):
    """Beside what every process needs whole."""
    sizes = [path.stat().st_size for path in latest(trained / "straight").glob("*.safetensors")]
    assert len(sizes) == 2
    assert max(sizes) < 0.6 * sum(sizes)


@pytest.mark.parametrize("stage", ["compressor", "prior"])
def test_resumed_bit_for_bit(trained, unlike, stage):
    whole = {"compressor": "fsdp everything", "prior": "straight"}[stage]
    numbers = [path.name for path in (trained / f"cut {stage}" / "checkpoints").iterdir()]
    assert numbers == ["last-00000008.ckpt"]
    one, other = learned(trained, whole)[0], learned(trained, f"cut {stage}")[0]
    assert [key for key in one if not torch.equal(one[key], other[key])] == []
    different = unlike(trained / whole, trained / f"cut {stage}")  # which part holds what is whole is free
    assert [line for line in different if not line.startswith(".checkpoint")] == []


@pytest.mark.parametrize("strategy", ["ddp", "fsdp"])
@pytest.mark.parametrize("count", [1, 4])
def test_another_number_of_processes_goes_on(runs, trained, torchrun, job, tmp_path, strategy, count):
    """From two to another number, and back: the same images in the same order, only sums round otherwise."""
    there, back = f"{strategy} two then {count}", f"{strategy} {count} then two"
    flags = (*QUIET, *EVERY_STEP, "--trainer.strategy", strategy, "--trainer.devices", str(count))
    jobs = [job("resume", there, ("--devices", str(count))), job("prior", back, flags, cut=5)]
    torchrun(tmp_path, jobs, processes=count)
    torchrun(tmp_path, [job("resume", back, ("--devices", "2"))])
    alone = runs.folder / "quiet"
    if not alone.exists():
        runs.train("prior", alone.name, *QUIET)
    expected = load_file(alone / "model.safetensors")
    for folder in (trained / there, trained / back):
        torch.testing.assert_close(load_file(folder / "model.safetensors"), expected, rtol=1e-5, atol=1e-5)
        assert Run(folder).step() == 8


@pytest.mark.parametrize("rank", ["0", "1"])
def test_killed_in_the_middle_of_a_checkpoint(runs, trained, torchrun, job, unlike, tmp_path, rank):
    """Kill rank 0 before the folder appears, or rank 1 once all is written: no checkpoint is incomplete."""
    name, mark = f"killed saving in {rank}", tmp_path / "killed"
    jobs = [job("prior", name, (*FSDP, *EVERY_STEP), saving=[rank, str(mark)])]
    told = torchrun(tmp_path, jobs, restarts=3)
    latest_step = {"0": "2", "1": "[23]"}[rank]
    assert mark.exists() and re.search(f"{name} continues at step {latest_step}:", told)
    folders = [path.name for path in (runs.folder / name / "checkpoints").iterdir()]
    assert folders == ["last-00000008.ckpt"]
    different = unlike(trained / "straight", runs.folder / name)
    assert [line for line in different if not line.startswith(".checkpoint")] == []
    one, other = learned(trained, "straight")[0], learned(trained, name)[0]
    assert [key for key in one if not torch.equal(one[key], other[key])] == []


def test_after_an_error_in_one_process_all_resume(runs, trained, torchrun, job, unlike, tmp_path):
    """Torchrun restarts all of them from the latest checkpoint."""
    name, mark = "failing", tmp_path / "failed"
    told = torchrun(tmp_path, [job("prior", name, FSDP, failing=["1", str(mark)])], restarts=3)
    assert mark.exists() and f"{name} continues at step 4" in told
    assert not list((runs.folder / name).rglob("*.writing"))
    different = unlike(trained / "straight", runs.folder / name)
    assert [line for line in different if not line.startswith(".checkpoint")] == []
    one, other = learned(trained, "straight")[0], learned(trained, name)[0]
    assert [key for key in one if not torch.equal(one[key], other[key])] == []


def test_the_other_kind_of_checkpoint_is_refused(trained, torchrun, runs, job, tmp_path):
    from genstack.training.callbacks.checkpoint import AtomicCheckpointIO

    with pytest.raises(UserError, match=r"sharded weights.*strategy fsdp"):
        AtomicCheckpointIO().load_checkpoint(latest(trained / "straight"))
    with pytest.raises(UserError, match=r"whole weights.*ddp"):
        read_rest(latest(trained / "ddp prior"))
