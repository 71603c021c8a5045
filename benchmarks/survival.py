"""Kill a run with SIGKILL at random moments, again and again, and look at what is left on the disk.

    python benchmarks/survival.py --kills 50

Trains a tiny compressor and prior that save after every step, killing them at random moments of training,
validation and checkpointing; then a prior whose weights are cut between two processes (fsdp), of which both
or either are killed, mostly in the middle of a checkpoint; then samples and encodes in the same way. After
each kill every file must be whole; in the end all that was learned, written and drawn must equal, bit for
bit, what an undisturbed run leaves.
"""

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from PIL import Image
from safetensors import safe_open
from safetensors.torch import load_file

from genstack.training.sharded_checkpoint import newest, read_rest

ROOT = Path(__file__).parents[1]
GENSTACK = [sys.executable, "-m", "genstack.cli.main"]
FSDP = "--trainer.strategy fsdp --trainer.devices 2"
KINDS = ("compressor", "prior", "fsdp", "sampling", "encoding")
ENVIRONMENT = {**os.environ, "GLOO_SOCKET_IFNAME": "lo"}
TINY = """--config configs/demo/{stage}.yaml --trainer.accelerator cpu --log.images 2
    --trainer.max_steps {steps} --trainer.validate_every {every} --trainer.checkpoint_minutes 0
    --trainer.log_every_n_steps 1"""
SMALL = {
    "compressor": """--data.limit 64 --data.batch_size 4 --model.compressor.network.width 8
        --model.compressor.network.dim 8""",
    "prior": "--model.prior.backbone.width 16 --model.prior.backbone.depth 1 --data.batch_size 4",
}


def command(stage: str, runs: Path, name: str, *flags: str) -> list[str]:
    """The command of a run, which begins it or continues it; processes that train together do fewer steps."""
    tiny = TINY.format(stage=stage, steps=36 if flags else 60, every=12 if flags else 20)
    words = [*GENSTACK, "train", stage, *tiny.split(), *SMALL[stage].split(), *flags]
    words += ["--runs", str(runs), "--name", name]
    return words if stage == "compressor" else [*words, "--compressor", str(runs / "whole-compressor")]


def check(folder: Path) -> None:
    """Open every file that a reader may find under its name."""
    readers = {
        ".safetensors": load_file,
        ".ckpt": lambda path: torch.load(path, weights_only=True),
        ".json": lambda path: json.loads(path.read_text()),
        ".png": lambda path: Image.open(path).load(),
    }
    for path in finished(folder):
        if path.is_file() and path.suffix in readers:
            readers[path.suffix](path)
    parts = newest(folder / "checkpoints")
    if parts is not None:
        read_rest(parts)


def finished(folder: Path) -> Iterator[Path]:
    """Finished files: no temporary ones that are being written or removed."""
    for path in sorted(folder.rglob("*")):
        place = path.parent if path.parent.suffix == ".ckpt" else path
        removed = place.is_dir() and place.suffix == ".ckpt" and not (place / "rest.ckpt").is_file()
        if not removed and not any(part.endswith(".writing") for part in path.relative_to(folder).parts):
            yield path


def begin(words: list[str]) -> subprocess.Popen:
    """A command in a group of processes of its own."""
    return subprocess.Popen(
        words,
        cwd=ROOT,
        env=ENVIRONMENT,
        start_new_session=True,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )


def whole(words: list[str]) -> None:
    """Let a command come to its end."""
    subprocess.run(words, cwd=ROOT, env=ENVIRONMENT, check=True, capture_output=True)


def alive(group: int) -> list[int]:
    """The processes of a group."""
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            state, _, belongs = path.read_text().rpartition(")")[2].split()[:3]
        except OSError:  # it has just ended
            continue
        if int(belongs) == group and state != "Z":
            found.append(int(path.parent.name))
    return sorted(found)


def kill(process: subprocess.Popen, chance: random.Random, trainers: int) -> None:
    """End all of its processes, or one of several that train together, which the others must notice."""
    there = alive(process.pid)
    if trainers > 1 and len(there) >= trainers and chance.random() < 0.5:
        os.kill(chance.choice(there[:trainers]), signal.SIGKILL)
    else:
        os.killpg(process.pid, signal.SIGKILL)
    deadline = time.monotonic() + 60
    while alive(process.pid) and time.monotonic() < deadline:
        process.poll()
        time.sleep(0.01)
    left = alive(process.pid)
    for number in left:
        os.kill(number, signal.SIGKILL)
    process.wait()
    if left:
        print(f"{len(left)} processes did not notice within a minute that another one was gone")


def wait_for_work(process: subprocess.Popen, folder: Path, chance: random.Random) -> None:
    """Until it writes, and up to half a second more: its imports are not what is to be killed."""
    before = stamps(folder)
    while process.poll() is None and stamps(folder) in ({}, before):
        time.sleep(0.005)
    time.sleep(chance.uniform(0, 0.5))


def stamps(folder: Path) -> dict[Path, int]:
    """When what is in a folder was last written to; nothing where files go while one looks."""
    try:
        return {path: path.stat().st_mtime_ns for path in folder.rglob("*") if path.name != ".lock"}
    except FileNotFoundError:
        return {}


def wait_for_save(process: subprocess.Popen, folder: Path, chance: random.Random) -> None:
    """Until it has begun to save a few times, and a moment more."""
    seen: set[str] = set()
    most = chance.randint(1, 5)
    while process.poll() is None and len(seen) < most:
        seen |= {path.name for path in (folder / "checkpoints").glob(".*.writing")}
        time.sleep(0.001)
    time.sleep(chance.uniform(0, 0.03))


def interrupted(
    words: list[str],
    folder: Path,
    kills: int,
    chance: random.Random,
    wait: Callable[[subprocess.Popen, Path, random.Random], None] = wait_for_work,
    trainers: int = 1,
) -> str:
    """Run a command to its end, killing it so many times on the way; how many kills hit it, and what."""
    hits, half = 0, 0
    while hits < kills:
        process = begin(words)
        wait(process, folder, chance)
        if process.poll() is not None:
            break
        kill(process, chance, trainers)
        hits += 1
        half += any(folder.rglob(".*.writing"))
        check(folder)
    whole(words)
    check(folder)
    return f"{hits} kills, {half} in the middle of a file"


def content(folder: Path) -> dict[str, object]:
    """Content of a run or of a set of samples."""
    found: dict[str, object] = {}
    for path in finished(folder):
        name = str(path.relative_to(folder))
        if path.suffix == ".ckpt" and path.is_dir():
            found[name] = parts(path)
        elif path.parent.suffix == ".ckpt":
            continue
        elif path.suffix == ".ckpt":
            state = torch.load(path, weights_only=True)
            found[name] = {key: value.tolist() for key, value in state["state_dict"].items()}
        elif path.is_file() and not path.name.startswith(".") and path.suffix not in {".yaml", ".json"}:
            found[name] = path.read_bytes()
    return found


def parts(folder: Path) -> dict[tuple[str, str], object]:
    """All tensors of a checkpoint in parts by name and place, whichever process wrote them."""
    found: dict[tuple[str, str], object] = {}
    for path in folder.glob("*.safetensors"):
        with safe_open(path, framework="pt") as file:
            places = json.loads(file.metadata()["DCP_SHARDING_INFO"])
            found |= {(name, str(places[name])): file.get_tensor(name).tolist() for name in file.keys()}  # noqa: SIM118
    return found


def compare(kind: str, whole: Path, other: Path, hits: str) -> bool:
    """Say whether two folders hold the same, and nothing half written is left."""
    one, two = content(whole), content(other)
    wrong = sorted(one.keys() ^ two.keys()) + [name for name in one if name in two and one[name] != two[name]]
    left = list(other.rglob("*.writing"))
    print(
        f"{kind}: {hits}, {len(one)} files, different: {wrong or 'none'}, half written: {len(left)}",
        flush=True,
    )
    return not wrong and not left


def train(kind: str, runs: Path, kills: int, chance: random.Random) -> bool:
    """Kill a training."""
    stage = "prior" if kind == "fsdp" else kind
    flags = FSDP.split() if kind == "fsdp" else []
    default_child_handler, folder = runs / f"whole-{kind}", runs / f"killed-{kind}"
    if not default_child_handler.exists():
        whole(command(stage, runs, default_child_handler.name, *flags))
    wait, trainers = (wait_for_save, 2) if kind == "fsdp" else (wait_for_work, 1)
    words = command(stage, runs, folder.name, *flags)
    hits = interrupted(words, folder, kills, chance, wait, trainers)
    return compare(f"training: {kind}", default_child_handler, folder, hits)


def work(kind: str, runs: Path, kills: int, chance: random.Random) -> bool:
    """Kill what uses a run."""
    words = {
        "sampling": ["sample", str(runs / "whole-prior"), "--count", "120", "--batch_size", "2", "--out"],
        "encoding": [
            *("encode", str(runs / "whole-compressor"), "--data.limit", "1500", "--data.batch_size", "2"),
            *("--images_per_shard", "8", "--out"),
        ],
    }[kind]
    default_child_handler, folder = (runs / f"{kind} {name}" for name in ("whole", "killed"))
    whole([*GENSTACK, *words, str(default_child_handler)])
    hits = interrupted([*GENSTACK, *words, str(folder)], folder, kills, chance)
    return compare(kind, default_child_handler, folder, hits)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=50, help="of all kinds of work together")
    parser.add_argument("--only", choices=KINDS, nargs="+", default=KINDS, help="kinds of work")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    chance, share = random.Random(options.seed), options.kills // len(options.only)
    with tempfile.TemporaryDirectory() as place:
        runs, same = Path(place), True
        for needed in ("compressor", "prior"):  # by those that follow
            whole(command(needed, runs, f"whole-{needed}"))
        for kind in options.only:
            act = work if kind in ("sampling", "encoding") else train
            same &= act(kind, runs, share, chance)
    return 0 if same else 1


if __name__ == "__main__":
    sys.exit(main())
