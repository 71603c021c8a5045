"""Weights that are cut among processes learn what whole ones learn, and their checkpoints fit any number."""

import json
import re
from itertools import product

import pytest
import torch
from safetensors.torch import load_file

from genstack.errors import UserError
from genstack.training.callbacks.checkpoint import latest
from genstack.training.run import Run
from genstack.training.sharded_checkpoint import read_rest

FSDP = ("--trainer.strategy", "fsdp")
EVERY_STEP = ("--trainer.checkpoint_minutes", "0")
#: No gradient is as long, so that none is scaled by a norm, whose sum has another order over shards.
UNCLIPPED = ("--trainer.gradient_clip_val", "1000")
CLIPPED = ("--trainer.gradient_clip_val", "0.1")
ACCUMULATED = ("--trainer.accumulate_grad_batches", "2")
AVERAGES = (
    *UNCLIPPED,
    *("--model.compressor.quantizer.update", "EMAUpdate", "--model.compressor.network.checkpoint", "true"),
    *("--model.compressor.network.dropout", "0.0"),  # of one image it depends on the order of memory
)
#: Stage, flags on top of those of all tiny runs, and the step whose batch is spoilt in the second process.
RUNS = {
    "averages": ("compressor", AVERAGES, None),
    "prior": ("prior", (*UNCLIPPED, "--model.prior.backbone.checkpoint", "true"), None),
    "spoilt": ("prior", (*UNCLIPPED, *ACCUMULATED), 3),
}
#: Nothing is random in a step, and there is a held-out image for each of four processes.
QUIET = (
    *("--model.prior.backbone.dropout", "0.0", "--model.prior.code_noise", "0.0"),
    *("--model.condition.dropout", "0.0", "--data.limit", "25", "--data.validation", "0.4"),
)


@pytest.fixture(scope="module")
def pairs(runs, torchrun, job, tmp_path_factory):
    """The folder of runs by both strategies: `ddp NAME` and `fsdp NAME`."""
    bf16 = ("--trainer.precision", "bf16-mixed")
    plans = {**RUNS, "accumulated": ("compressor", (*AVERAGES, *ACCUMULATED), None)}
    plans |= {"clipped": ("prior", CLIPPED, None), "bf16": ("prior", bf16, None)}
    jobs = []
    for name, (stage, flags, spoilt) in plans.items():
        jobs.append(job(stage, f"ddp {name}", flags, spoilt))
        jobs.append(job(stage, f"fsdp {name}", (*flags, *FSDP), spoilt))
    torchrun(tmp_path_factory.mktemp("pairs"), jobs)
    return runs.folder


@pytest.fixture(scope="module")
def trained(runs, torchrun, job, tmp_path_factory):
    """The folder of `straight`, of runs that were cut off and resumed, and of those to be resumed."""
    jobs = [job("prior", "straight", FSDP)]
    for stage, flags, spoilt in (("compressor", UNCLIPPED, 3), ("prior", (), None)):
        jobs.append(job(stage, f"cut {stage}", (*flags, *FSDP, *EVERY_STEP), spoilt, cut=6))
        jobs.append(job(stage, f"cut {stage}", (*flags, *FSDP, *EVERY_STEP)))
    for strategy, count in product(("ddp", "fsdp"), (1, 4)):
        flags = (*QUIET, *EVERY_STEP, "--trainer.strategy", strategy)
        jobs.append(job("prior", f"{strategy} two then {count}", flags, cut=5))
    torchrun(tmp_path_factory.mktemp("jobs"), jobs)
    return runs.folder


def learned(folder, name):
    return [torch.load(folder / f"{name}.{rank}.pt") for rank in range(2)]


def metrics(folder):
    """All numbers of each line but those of speed; what is not finite is written as text."""
    lines = map(json.loads, (folder / "metrics.jsonl").read_text().splitlines())
    return [
        {name: float(value) for name, value in line.items() if name.startswith(("train/", "val/"))}
        for line in lines
    ]


def gradient_norms(folder):
    return [line["train/gradient_norm"] for line in metrics(folder) if "train/gradient_norm" in line]


def check_equal(folder, name, bound=0.0):
    """Both strategies learn the same weights, averages, codebooks and counters."""
    (ddp, _), (fsdp, other) = learned(folder, f"ddp {name}"), learned(folder, f"fsdp {name}")
    assert [key for key in fsdp if not torch.equal(fsdp[key], other[key])] == []
    whole, assembled = (
        load_file(folder / f"{kind} {name}" / "model.safetensors") for kind in ("ddp", "fsdp")
    )
    for expected, found in ((ddp, fsdp), (whole, assembled)):
        assert expected.keys() == found.keys()
        for key, tensor in expected.items():
            message = lambda text, key=key: f"{key} {text}"  # noqa: E731
            torch.testing.assert_close(found[key], tensor, rtol=bound, atol=bound, msg=message)
    norms = gradient_norms(folder / f"ddp {name}")
    assert gradient_norms(folder / f"fsdp {name}") == pytest.approx(norms, rel=1e-6, nan_ok=True)


@pytest.mark.distributed
def test_sharded_weights_learn_what_whole_ones_learn(two_processes):
    """Bit for bit, where two processes have a gradient each and no gradient is clipped."""
    check_equal(two_processes, "everything")


@pytest.mark.distributed
def test_latents_are_learned_by_two_processes(runs, two_processes):
    """Bit for bit by both strategies, and standardized as one process measures them."""
    check_equal(two_processes, "latents")
    one, other = learned(two_processes, "ddp latents")
    assert [key for key in one if not torch.equal(one[key], other[key])] == []
    alone = load_file(runs.train("flow", "latents alone", "--trainer.max_steps", "2") / "model.safetensors")
    for name in ("mean", "deviation", "images"):
        shared = one[f"model.standardization.{name}"]
        torch.testing.assert_close(shared, alone[f"prior.standardization.{name}"], rtol=1e-5, atol=1e-6)


@pytest.mark.nightly
@pytest.mark.parametrize("name", RUNS)
def test_other_runs_learn_what_whole_weights_learn(pairs, name):
    accumulated = ACCUMULATED[0] in RUNS[name][1]
    check_equal(pairs, name, bound=1e-5 if accumulated else 0.0)  # four gradients are summed in another order


@pytest.mark.nightly
def test_accumulated_gradients_of_a_compressor(pairs):
    """Losses, gradients and codebooks agree; single weights of branches do not, as in `test_clipping`."""
    for one, other in zip(
        metrics(pairs / "ddp accumulated"), metrics(pairs / "fsdp accumulated"), strict=True
    ):
        assert other == pytest.approx(one, rel=1e-4, abs=1e-6)
    (ddp, _), (fsdp, _) = learned(pairs, "ddp accumulated"), learned(pairs, "fsdp accumulated")
    codebook = [key for key in ddp if ".quantizer." in key]
    assert codebook
    for key in codebook:
        torch.testing.assert_close(fsdp[key], ddp[key], rtol=1e-5, atol=1e-5)


@pytest.mark.nightly
def test_clipping(pairs):
    """The norm is summed in another order, which moves weights in their last bits.

    A bound on weights holds where no gradient is near 0. In a compressor whose branches begin at 0 one weight
    had a gradient of 5.5e-9 in the second step. Adam's epsilon is 1e-8, and a rounding error of 2e-10 became
    1.7e-5 in the weight.
    """
    (ddp, _), (fsdp, _) = learned(pairs, "ddp clipped"), learned(pairs, "fsdp clipped")
    assert min(gradient_norms(pairs / "ddp clipped")) > 0.1, "all steps are clipped"
    for key, expected in ddp.items():
        torch.testing.assert_close(fsdp[key], expected, rtol=1e-5, atol=1e-5)


@pytest.mark.nightly
def test_bf16_is_near(pairs):
    """Networks round alike; sums of gradients are added up in another order."""
    (ddp, _), (fsdp, _) = learned(pairs, "ddp bf16"), learned(pairs, "fsdp bf16")
    for key, expected in ddp.items():
        torch.testing.assert_close(fsdp[key], expected, rtol=1e-3, atol=1e-3)


@pytest.mark.nightly
def test_each_process_keeps_half_of_the_weights(trained):
    """Beside what every process needs whole."""
    sizes = [path.stat().st_size for path in latest(trained / "straight").glob("*.safetensors")]
    assert len(sizes) == 2
    assert max(sizes) < 0.6 * sum(sizes)


@pytest.mark.nightly
@pytest.mark.parametrize("stage", ["compressor", "prior"])
def test_resumed_bit_for_bit(two_processes, trained, unlike, stage):
    whole = {"compressor": two_processes / "fsdp everything", "prior": trained / "straight"}[stage]
    numbers = [path.name for path in (trained / f"cut {stage}" / "checkpoints").iterdir()]
    assert numbers == ["last-00000008.ckpt"]
    one, other = learned(whole.parent, whole.name)[0], learned(trained, f"cut {stage}")[0]
    assert [key for key in one if not torch.equal(one[key], other[key])] == []
    different = unlike(whole, trained / f"cut {stage}")  # which part holds what is whole is free
    assert [line for line in different if not line.startswith(".checkpoint")] == []


@pytest.mark.nightly
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


@pytest.mark.nightly
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


@pytest.mark.nightly
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


@pytest.mark.nightly
def test_the_other_kind_of_checkpoint_is_refused(pairs, trained):
    from genstack.training.callbacks.checkpoint import AtomicCheckpointIO

    with pytest.raises(UserError, match=r"sharded weights.*strategy fsdp"):
        AtomicCheckpointIO().load_checkpoint(latest(trained / "straight"))
    with pytest.raises(UserError, match=r"whole weights.*ddp"):
        read_rest(latest(pairs / "ddp prior"))
