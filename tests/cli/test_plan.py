"""Estimates of `genstack plan`."""

import errno
import re
import signal
from pathlib import Path

import pytest
import torch

from genstack.cli.main import main
from genstack.cli.parsing.stages import STAGES, build_training
from genstack.cli.verbs import plan
from genstack.training import estimate
from genstack.training.compressor import CompressorTraining
from genstack.training.estimate import Estimate, Memory
from genstack.training.run import Run

TINY = [
    *("--config", "configs/demo/digits_compressor.yaml", "--data.limit", "24", "--data.batch_size", "8"),
    *("--model.compressor.network.width", "8", "--model.compressor.network.dim", "8"),
    *("--trainer.accumulate_grad_batches", "2", "--trainer.accelerator", "cpu"),
]


@pytest.mark.slow
@pytest.mark.parametrize("command", [["plan", "compressor"], ["train", "compressor", "--dry-run"]])
def test_plan_prints_estimates_and_writes_nothing(command, tmp_path, capsys):
    runs = tmp_path / "runs"
    assert main([*command, *TINY, "--runs", str(runs)]) is None
    told = capsys.readouterr().out
    assert not runs.exists() and not list(tmp_path.iterdir())
    for line in (
        r"model    Autoencoder, 0\.\d+ M weights",
        r"images   8x8, 1 channel, as 16 codes of 64",
        r"ratio    5\.33 to 1: 64 bytes of pixels, 12\.0 of codes",
        r"batch    8 images a step \(processes x parts x images: 1 x 2 x 4\)",
        r"rate     0\.001 after 10 steps of warm-up, 0\.0001 at the end",
        r"memory   about \d+\.\d\d GB of the \d+\.\d\d GB of this machine \(measured\): it fits",
        r"time     500 steps of \S+ s: .*",
        r"nothing was written",
    ):
        assert re.search(f"^{line}", told, re.MULTILINE), line


def test_plan_estimates_one_of_several_processes():
    """Of cut weights a part; whole ones, and their gradients once more, as these are sent in pieces."""

    def planned(*flags):
        stage = STAGES["compressor"]
        parts, training = build_training(stage, stage.parse([*TINY, *flags]), Run(Path("runs")))
        return Estimate(training, parts.trainer)

    alone = planned()
    assert alone.extra == 0 and alone.machine == "this machine"
    ddp = planned("--trainer.devices", "2", "--trainer.strategy", "ddp")
    weights = sum(parameter.nbytes for parameter in ddp.training.model.parameters())
    assert ddp.extra == weights and ddp.machine == "this machine for each of 2"
    two, four = (planned("--trainer.devices", count, "--trainer.strategy", "fsdp") for count in "24")
    assert -5 * weights < four.extra < two.extra < 0
    hosts = planned("--trainer.num_nodes", "2", "--trainer.devices", "1", "--trainer.strategy", "fsdp")
    assert hosts.extra == two.extra and hosts.machine == "this machine"


def test_oversized_training_is_not_run(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(Estimate, "memory", lambda _: Memory(10**15, 10**9, "this machine", measured=False))
    monkeypatch.setattr(Estimate, "seconds", lambda _: pytest.fail("it would fill the memory"))
    assert main(["plan", "compressor", *TINY, "--runs", str(tmp_path)]) is None
    assert "it does not fit; raise trainer.accumulate_grad_batches" in capsys.readouterr().out


def test_an_interrupt_stops_at_once(tmp_path, monkeypatch):
    """Not after a step, which takes long for a large model."""
    seen = []

    def memory(estimate):
        seen.append(signal.getsignal(signal.SIGINT))
        return Memory(10**15, 10**9, "this machine", measured=False)

    monkeypatch.setattr(Estimate, "memory", memory)
    before = signal.getsignal(signal.SIGINT)
    assert main(["plan", "compressor", *TINY, "--runs", str(tmp_path)]) is None
    assert seen == [signal.SIG_DFL] and signal.getsignal(signal.SIGINT) is before


def test_an_interrupt_while_threads_are_measured_is_one(monkeypatch):
    """Lightning makes it an exit, and ignores the next one."""

    def fit(*_):
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        raise SystemExit(1)

    monkeypatch.setattr("pytorch_lightning.Trainer.fit", fit)
    stage = STAGES["compressor"]
    parts, training = build_training(stage, stage.parse(TINY), Run(Path()))
    before = signal.getsignal(signal.SIGINT)
    try:
        with pytest.raises(KeyboardInterrupt):
            Estimate(training, parts.trainer).steps(1, 2)
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    finally:
        signal.signal(signal.SIGINT, before)


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory"),
        MemoryError(),
        RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 4 bytes"),
        OSError(errno.ENOMEM, "Cannot allocate memory"),
    ],
)
def test_probe_out_of_memory_is_one_line(tmp_path, capsys, monkeypatch, error):
    def full(*_):
        raise error

    monkeypatch.setattr(CompressorTraining, "training_step", full)
    assert main(["plan", "compressor", *TINY, "--runs", str(tmp_path)]) == 2
    assert "the whole model and 2 images do not fit into the memory of this machine; lower" in (
        capsys.readouterr().err
    )


def test_a_model_that_cannot_fit_is_not_run(monkeypatch):
    """Its weights, gradients and moments alone are more than the memory."""
    stage = STAGES["compressor"]
    parts, training = build_training(stage, stage.parse(TINY), Run(Path()))
    planned = Estimate(training, parts.trainer)
    least = 3 * sum(parameter.nbytes for parameter in training.model.parameters())
    monkeypatch.setattr(Estimate, "available", least - 1)
    monkeypatch.setattr(Estimate, "peak", lambda *_: pytest.fail("it would fill the memory"))
    assert planned.memory() == Memory(least, least - 1, "this machine", measured=False)


@pytest.mark.skipif(not Path("/proc/self/limits").exists(), reason="Linux")
def test_limits_of_shell_and_container_are_the_memory(monkeypatch, tmp_path):
    free, megabyte = estimate.machine_memory(), 2**20
    group = tmp_path / Path("/proc/self/cgroup").read_text().rpartition("0::/")[2].strip()
    group.mkdir(parents=True, exist_ok=True)
    for name, text in {
        "max": 300 * megabyte,
        "current": 200 * megabyte,
        "stat": "anon 1\ninactive_file 7",
    }.items():
        (group / f"memory.{name}").write_text(f"{text}\n")
    monkeypatch.setattr(estimate, "CGROUPS", tmp_path)
    assert 100 * megabyte + 7 in estimate.free_below_limits()
    assert estimate.machine_memory() < free
    (group / "memory.max").write_text("max\n")
    assert 100 * megabyte + 7 not in estimate.free_below_limits()


def test_plan_of_a_prior_accepts_codes(tmp_path, capsys):
    assert main(["plan", "prior", "--compressor", str(tmp_path / "none")]) == 2
    assert "not found; expected a run or a published file" in capsys.readouterr().err
    assert main(["plan", "priors"]) == 2
    assert "did you mean 'prior'?" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("seconds", "told"), [(3, "3 seconds"), (119, "119 seconds"), (600, "10.0 minutes"), (1e6, "11.6 days")]
)
def test_durations_use_the_largest_unit(seconds, told):
    assert plan.duration(float(seconds)) == told


def test_help_names_both_stages(capsys):
    assert main(["plan", "--help"]) is None
    assert "  prior  " in capsys.readouterr().out
