"""Tiny runs of both stages by the command line, in this process, and what they leave in their folders."""

import fcntl
import json
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from genstack.cli.main import main
from genstack.training.callbacks.checkpoint import latest
from genstack.training.compressor import CompressorTraining
from genstack.training.prior import PriorTraining

#: Everything that is random or counts is on: several epochs, augmentation, dropout, restarts, an adversary.
FLAGS = {
    "compressor": """
        --data.source shapes --data.limit 16 --data.validation 0.2 --data.resolution 8,12 --data.batch_size 4
        --data.augmentation.zoom 1,1.3 --data.augmentation.crop random --data.augmentation.flip 0.5
        --model.compressor Autoencoder --model.compressor.network Convolutional
        --model.compressor.network.dim 6 --model.compressor.network.width 4
        --model.compressor.network.multipliers 1,2 --model.compressor.network.blocks 1
        --model.compressor.network.attention [] --model.compressor.network.middle_attention false
         --model.compressor.network.dropout 0.1
        --model.compressor.quantizer VectorQuantizer --model.compressor.quantizer.codebook_size 24
        --model.compressor.quantizer.dim 4 --model.compressor.quantizer.dead_after 2
        --model.adversary Adversary --model.adversary.discriminator.layers 1
        --model.adversary.discriminator.width 4 --model.adversary.start 20% --model.adversary.ramp 30%
        --model.adversary.lecam.weight 0.1 --model.adversary.lecam.decay 0.7
        --model.adversary.penalty.weight 0.1 --model.adversary.penalty.every 3
        --model.adversary.augmentation DiffAugment --model.adversary.adaptive AdaptiveWeight
        --model.optimization.learning_rate 3e-3 --model.ema 0.9""",
    "prior": """
        --data.batch_size 4 --model.prior Autoregressive --model.prior.backbone.width 16
        --model.prior.backbone.depth 1 --model.prior.backbone.heads 2 --model.prior.backbone.dropout 0.1
        --model.prior.code_noise 0.1 --model.condition ClassLabels --model.condition.dropout 0.3
        --model.optimization.learning_rate 3e-3 --model.ema 0.9""",
    "vae": """
        --data.source shapes --data.limit 16 --data.validation 0.2 --data.resolution 8,12 --data.batch_size 4
        --model.compressor Autoencoder --model.compressor.network Convolutional
        --model.compressor.network.dim 6 --model.compressor.network.width 4
        --model.compressor.network.multipliers 1,2 --model.compressor.network.blocks 1
        --model.compressor.network.attention [] --model.compressor.network.middle_attention false
        --model.compressor.quantizer Gaussian --model.compressor.quantizer.dim 3""",
    "flow": """
        --data.batch_size 4 --model.prior FlowMatching --model.prior.backbone.width 16
        --model.prior.backbone.depth 2 --model.prior.backbone.heads 2 --model.prior.backbone.dropout 0.1
        --model.prior.steps 2 --model.condition ClassLabels --model.condition.dropout 0.3
        --model.optimization.learning_rate 3e-3 --model.ema 0.9""",
}
#: Runs that the command line trains as another stage, and the compressor of each kind of prior.
STAGES = {"vae": "compressor", "flow": "prior"}
COMPRESSORS = {"prior": "compressor", "flow": "vae"}
TRAINER = """
    --trainer.max_steps 8 --trainer.validate_every 4 --trainer.log_every_n_steps 1 --trainer.accelerator cpu
    --log.images 2"""
KINDS = {"compressor": CompressorTraining, "prior": PriorTraining}


class Runs:
    """A folder of tiny runs.

    Args:
        folder: where they lie.
    """

    def __init__(self, folder: Path):
        self.folder = folder

    def words(self, stage: str, name: str, *flags: str) -> list[str]:
        """The command line of a run; `flags` come on top and replace what is there."""
        words = [*FLAGS[stage].split(), *TRAINER.split(), "--name", name, "--runs", str(self.folder)]
        if stage in COMPRESSORS:
            words += ["--compressor", str(self.compressor(COMPRESSORS[stage]))]
        given = dict(zip(words[::2], words[1::2], strict=True))
        given |= dict(zip(flags[::2], flags[1::2], strict=True))
        if given.get("--model.prior") == "RandomOrder":
            del given["--model.prior.code_noise"]  # which it has none of
        return [STAGES.get(stage, stage), *(word for pair in given.items() for word in pair)]

    def train(self, stage: str, name: str, *flags: str) -> Path:
        """The folder of a finished run."""
        assert main(["train", *self.words(stage, name, *flags)]) is None
        return self.folder / name

    def compressor(self, stage: str = "compressor") -> Path:
        """The one whose codes or latents priors learn here."""
        folder = self.folder / stage
        if not folder.exists():
            self.train(stage, stage, "--trainer.max_steps", "2")
        return folder


def content(folder: Path) -> dict[str, Any]:
    """Weights, metrics and state of a run."""
    return {
        "model": load_file(folder / "model.safetensors"),
        "made": json.loads((folder / "model.json").read_text())["made"],
        "checkpoint": saved(folder),
        "metrics": [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()],
        "pictures": {path.name: path.read_bytes() for path in (folder / "images").iterdir()},
    }


def saved(folder: Path) -> dict[str, Any]:
    """The latest checkpoint, but for the settings in it."""
    place = latest(folder)
    assert place is not None
    content = torch.load(place if place.is_file() else place / "rest.ckpt", weights_only=True)
    shards = {path.name: load_file(path) for path in place.glob("*.safetensors")}
    return {key: value for key, value in content.items() if key != "config"} | shards


def differences(one: Any, other: Any, place: str = "") -> list[str]:
    """Paths at which two nested contents differ, bit for bit."""
    if isinstance(one, dict) and isinstance(other, dict) and one.keys() == other.keys():
        return [line for key in one for line in differences(one[key], other[key], f"{place}.{key}")]
    if isinstance(one, list | tuple) and isinstance(other, list | tuple) and len(one) == len(other):
        pairs = enumerate(zip(one, other, strict=True))
        return [line for number, pair in pairs for line in differences(*pair, f"{place}.{number}")]
    same = torch.equal(one, other) if isinstance(one, torch.Tensor) else one == other
    return [] if same else [f"{place}: {str(one)[:60]} is not {str(other)[:60]}"]


@pytest.fixture(scope="session")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Runs:
    return Runs(tmp_path_factory.mktemp("runs"))


class Torchrun:
    """Several processes of this machine, as torchrun starts them."""

    command = (sys.executable, "-m", "torch.distributed.run")
    worker = str(Path(__file__).parent / "worker.py")

    def free_port(self) -> str:
        with socket.socket() as listening:
            listening.bind(("127.0.0.1", 0))
            return str(listening.getsockname()[1])

    def environment(self) -> dict[str, str]:
        root = str(Path(__file__).parents[2])
        own = {
            "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS") or "1",
            "PYTHONPATH": root,
            "GLOO_SOCKET_IFNAME": "lo",
        }
        fresh = {"TORCH_DISABLE_SHARE_RDZV_TCP_STORE": "1"}  # or a restart reads addresses of the dead
        return {**os.environ, **own, **fresh}

    def __call__(
        self, folder: Path, jobs: list[dict[str, Any]], processes: int = 2, restarts: int = 0
    ) -> str:
        """Let them do some jobs, one after the other; what they tell."""
        file = folder / "jobs.json"
        file.write_text(json.dumps(jobs))
        shape = ["--nproc-per-node", str(processes), "--max-restarts", str(restarts)]
        meeting = ["--standalone", "--local-addr", "127.0.0.1"]
        done = subprocess.run(
            [*self.command, *shape, *meeting, self.worker, str(file)],
            env=self.environment(),
            capture_output=True,
            text=True,
            check=False,
            timeout=590,
        )
        assert done.returncode == 0, done.stderr[-9000:]
        return done.stderr


@pytest.fixture(scope="session")
def torchrun() -> Torchrun:
    return Torchrun()


def make_job(
    runs: Runs, stage: str, name: str, flags: tuple[str, ...], spoilt: int | None = None, **wrong: Any
) -> dict[str, Any]:
    """A job of two processes: a run by name, and the failure to provoke in it."""
    two = ("--trainer.devices", "2", "--trainer.strategy", "ddp")
    if stage == "resume":
        words = [stage, str(runs.folder / name), *flags]
    else:
        words = runs.words(stage, name, *two, *flags)
    nothing = dict.fromkeys(("cut", "killed", "failing", "saving")) | {"spoilt": spoilt}
    return {"words": words, "out": str(runs.folder / name), **nothing, **wrong}


@pytest.fixture(scope="session")
def job(runs: Runs) -> Callable[..., dict[str, Any]]:
    """Make jobs in the folder of tiny runs."""
    return partial(make_job, runs)


#: No gradient is as long, so that none is scaled by a norm, whose sum has another order over shards.
UNCLIPPED = ("--trainer.gradient_clip_val", "1000")
#: Nothing is random in a step.
QUIET = (
    *("--model.prior.backbone.dropout", "0.0", "--model.prior.code_noise", "0.0"),
    *("--model.condition.dropout", "0.0", "--data.limit", "25", "--data.validation", "0.25"),
)
PARTS = ("--trainer.accumulate_grad_batches", "2")
#: Runs of two processes: stage, flags on top of those of all tiny runs, and the step whose batch is spoilt in
#: the second process.
TWO_RUNS = {
    "ddp everything": ("compressor", UNCLIPPED, 3),
    "ddp averages": (
        "compressor",
        (
            *("--model.compressor.quantizer.update", "EMAUpdate", "--trainer.precision", "bf16-mixed"),
            *("--model.compressor.network.checkpoint", "true", *PARTS),
        ),
        None,
    ),
    "ddp prior": ("prior", ("--model.prior.backbone.checkpoint", "true"), None),
    "ddp random order": ("prior", ("--model.prior", "RandomOrder", *PARTS), 3),
    "ddp shared": ("prior", QUIET, None),
    "ddp in parts": ("prior", (*QUIET, *PARTS), None),
}


@pytest.fixture(scope="session")
def two_runs() -> dict[str, tuple[str, tuple[str, ...], int | None]]:
    return TWO_RUNS


@pytest.fixture(scope="session")
def two_processes(
    torchrun: Torchrun, start_ranks: Callable[..., None], tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """The folder of runs of two processes: those above, two that were cut and resumed, and sharded ones.

    One start does all of them, for all workers of pytest, in copies of a process that has torch. Nightly
    tests start processes by torchrun itself.
    """
    own = tmp_path_factory.getbasetemp()
    shared = own.parent if "PYTEST_XDIST_WORKER" in os.environ else own
    runs, done = Runs(shared / "two_processes"), shared / "two_processes.done"
    with (shared / "two_processes.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not done.exists():
            shutil.rmtree(runs.folder, ignore_errors=True)
            runs.folder.mkdir()
            jobs = tmp_path_factory.mktemp("jobs") / "jobs.json"
            jobs.write_text(json.dumps(two_process_jobs(runs)))
            launched = {"TORCHELASTIC_RUN_ID": "none", "LOCAL_WORLD_SIZE": "2", "GROUP_RANK": "0"}
            start_ranks(torchrun.worker, str(jobs), **launched)
            done.touch()
    return runs.folder


def two_process_jobs(runs: Runs) -> list[dict[str, Any]]:
    """All jobs of `two_processes`."""
    jobs = [make_job(runs, stage, name, flags, spoilt) for name, (stage, flags, spoilt) in TWO_RUNS.items()]
    for name in ("everything", "prior"):
        stage, flags, spoilt = TWO_RUNS[f"ddp {name}"]
        flags = (*flags, "--trainer.checkpoint_minutes", "0")
        jobs.append(make_job(runs, stage, f"ddp cut {name}", flags, spoilt, cut=6))
        jobs.append(make_job(runs, stage, f"ddp cut {name}", flags))
    sharded = (*UNCLIPPED, "--trainer.strategy", "fsdp")
    jobs.append(make_job(runs, "compressor", "fsdp everything", sharded, 3))
    jobs.append(make_job(runs, "flow", "ddp latents", UNCLIPPED))
    jobs.append(make_job(runs, "flow", "fsdp latents", sharded))
    return jobs


@pytest.fixture(params=KINDS)
def stage(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture(scope="session")
def straight(runs: Runs) -> Callable[[str], Path]:
    """The run of a stage that nothing interrupted."""

    def trained(stage: str) -> Path:
        folder = runs.folder / f"straight-{stage}"
        return folder if folder.exists() else runs.train(stage, folder.name)

    return trained


@pytest.fixture(scope="session")
def unlike() -> Callable[[Path, Path], list[str]]:
    """Differences of two runs."""
    return lambda one, other: differences(content(one), content(other))


@pytest.fixture(scope="session")
def kinds() -> dict[str, type]:
    """The training of each stage."""
    return KINDS
