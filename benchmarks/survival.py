"""Kill a run with SIGKILL at random moments, again and again, and look at what is left on the disk.

    python benchmarks/survival.py --kills 50

Trains a tiny compressor that saves after every step, killing it at random moments of training, validation and
checkpointing; then encodes and samples in the same way. After each kill every file must be whole; in the end
all that was learned, written and drawn must equal, bit for bit, what an undisturbed run leaves.
"""

import argparse
import json
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch
from PIL import Image
from safetensors.torch import load_file

ROOT = Path(__file__).parents[1]
GENSTACK = [sys.executable, "-m", "genstack.cli.main"]
TINY = """--config configs/demo/{stage}.yaml --trainer.accelerator cpu --trainer.max_steps 60 --log.images 2
    --trainer.validate_every 20 --trainer.checkpoint_minutes 0 --trainer.log_every_n_steps 1"""
SMALL = {
    "compressor": """--data.limit 64 --data.batch_size 4 --model.compressor.network.width 8
        --model.compressor.network.dim 8""",
    "prior": "--model.prior.backbone.width 16 --model.prior.backbone.depth 1 --data.batch_size 4",
}


def command(stage: str, runs: Path, name: str) -> list[str]:
    """The command of a run, which begins it or continues it."""
    words = [*GENSTACK, "train", stage, *TINY.format(stage=stage).split(), *SMALL[stage].split()]
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
    for path in folder.rglob("*"):
        if path.is_file() and not path.name.endswith(".writing") and path.suffix in readers:
            readers[path.suffix](path)


def interrupted(words: list[str], folder: Path, kills: int, quiet: float, chance: random.Random) -> int:
    """Run a command to its end, killing it so many times on the way; the number of kills that hit it."""
    hits = 0
    while hits < kills:
        before = {path: path.stat().st_mtime_ns for path in folder.rglob("*")} if folder.exists() else {}
        process = subprocess.Popen(words, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        while process.poll() is None:  # until it writes: its imports are not what is to be killed
            now = {path: path.stat().st_mtime_ns for path in folder.rglob("*")} if folder.exists() else {}
            if {path: stamp for path, stamp in now.items() if path.name != ".lock"} != before and now:
                break
            time.sleep(0.005)
        time.sleep(chance.uniform(0, quiet))
        if process.poll() is not None:
            break
        process.kill()
        process.wait()
        hits += 1
        check(folder)
    subprocess.run(words, cwd=ROOT, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    check(folder)
    return hits


def content(folder: Path) -> dict[str, object]:
    """What a run or a set of samples holds."""
    found: dict[str, object] = {}
    for path in sorted(folder.rglob("*")):
        name = str(path.relative_to(folder))
        if path.suffix == ".ckpt":
            state = torch.load(path, weights_only=True)
            found[name] = {key: value.tolist() for key, value in state["state_dict"].items()}
        elif path.is_file() and not path.name.startswith(".") and path.suffix not in {".yaml", ".json"}:
            found[name] = path.read_bytes()
    return found


def compare(kind: str, whole: Path, other: Path, hits: int) -> bool:
    """Say whether two folders hold the same."""
    one, two = content(whole), content(other)
    wrong = sorted(one.keys() ^ two.keys()) + [name for name in one if name in two and one[name] != two[name]]
    left = list(other.rglob("*.writing"))
    print(f"{kind}: {hits} kills, {len(one)} files, different: {wrong or 'none'}, half written: {len(left)}")
    return not wrong


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=50, help="of all kinds of work together")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    chance, share = random.Random(options.seed), options.kills // 4
    with tempfile.TemporaryDirectory() as place:
        runs, same = Path(place), True
        for stage in ("compressor", "prior"):
            whole = command(stage, runs, f"whole-{stage}")
            subprocess.run(whole, cwd=ROOT, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            folder = runs / f"killed-{stage}"
            hits = interrupted(command(stage, runs, folder.name), folder, share, 0.5, chance)
            same &= compare(f"training a {stage}", runs / f"whole-{stage}", folder, hits)
        work = {
            "sampling": ["sample", str(runs / "whole-prior"), "--count", "120", "--batch_size", "2", "--out"],
            "encoding": [
                *("encode", str(runs / "whole-compressor"), "--data.limit", "1500", "--data.batch_size", "2"),
                *("--images_per_shard", "8", "--out"),
            ],
        }
        for kind, words in work.items():
            folders = [runs / f"{kind} {name}" for name in ("whole", "killed")]
            subprocess.run([*GENSTACK, *words, str(folders[0])], cwd=ROOT, check=True, capture_output=True)
            hits = interrupted([*GENSTACK, *words, str(folders[1])], folders[1], share, 0.3, chance)
            same &= compare(kind, *folders, hits)
    return 0 if same else 1


if __name__ == "__main__":
    sys.exit(main())
