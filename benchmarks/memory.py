"""The memory and time that `genstack plan` foretells, beside what a training of the same recipe takes.

    python benchmarks/memory.py [NAME ...]

Each recipe is planned in one process and trained for a few steps, with a validation, in another (or in two
that train together); both read `VmHWM`, the largest size that the system has seen of them (Linux). The time
of a step is processor time, in the training the median of the later half, in which an adversary acts. Rows of
`--size` need the pictures of `python benchmarks/pictures.py --out runs/data --only emoji`.
"""

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import Any

from torch.optim.optimizer import register_optimizer_step_post_hook

from genstack.cli.main import main as genstack
from genstack.cli.parsing.sizes import SIZES
from genstack.cli.parsing.stages import STAGES, build_training
from genstack.cli.quiet import quiet
from genstack.training.estimate import Estimate, resident_peak
from genstack.training.run import Run

ROOT = Path(__file__).parents[1]
CPU = "--data.workers 0 --trainer.accelerator cpu --log.images 4"
SHAPES = f"--data.source shapes:200 --data.resolution 32 {CPU}"
STEPS = 8  # of the training
SHORT = f"--trainer.max_steps {STEPS} --trainer.validate_every {STEPS}"
EMOJI = f"--data.source runs/data/emoji/train.csv --data.resolution 32 {CPU}"
SMALL = f"{SHAPES} --model.perceptual null"  # LPIPS needs weights that are fetched
QUICK = "--trainer.max_steps 1 --trainer.validate_every 1 --data.batch_size 4 --data.limit 40"
AUTOREGRESSIVE = "prior --config configs/prior/autoregressive.yaml"
QUANTIZERS = ("fsq", "lfq", "bsq", "ibq", "simvq", "residual", "multiscale")
NETWORKS = ("vae", "dvae", "vqvae2", "vqgan", "vit_vqgan", "titok")
#: What is trained: the recipes as they are, but for the size of the images.
RECIPES = {
    "demo/digits_compressor": f"compressor --config configs/demo/digits_compressor.yaml {CPU}",
    "demo/digits_prior": f"prior --config configs/demo/digits_prior.yaml --compressor {{digits}} {CPU}",
    "demo/shapes_compressor": "compressor --config configs/demo/shapes_compressor.yaml "
    f"{CPU} --data.source shapes:200",
    "demo/shapes_prior": f"prior --config configs/demo/shapes_prior.yaml --compressor {{shapes}} {CPU}",
    "demo/pairs_compressor": "compressor --config configs/compressor/vqvae.yaml "
    f"--config configs/demo/pairs_compressor.yaml {CPU} --data.source shapes:pairs:200",
    "demo/pairs_prior": f"{AUTOREGRESSIVE} --config configs/prior/captions.yaml "
    f"--config configs/demo/pairs_prior.yaml --compressor {{pairs}} {CPU}",
    **{
        f"compressor/{name}": f"compressor --config configs/compressor/{name}.yaml {SMALL}"
        for name in (*QUANTIZERS, *NETWORKS)
    },
    "compressor/vqvae": f"compressor --config configs/compressor/vqvae.yaml {SHAPES}",
    "compressor/vqgan_plus": f"compressor --config configs/compressor/vqgan_plus.yaml {SHAPES}",
    **{
        f"prior/{name}": f"prior --config configs/prior/{name}.yaml --compressor {{digits}} {CPU}"
        for name in ("autoregressive", "masked", "diffusion", "random_order", "pixelcnn", "pixelsnail")
    },
    "prior/residual": f"prior --config configs/prior/residual.yaml --compressor {{residual}} {CPU}",
    "prior/next_scale": f"prior --config configs/prior/next_scale.yaml --compressor {{multiscale}} {CPU}",
    "prior/hierarchical": f"prior --config configs/prior/hierarchical.yaml --compressor {{vqvae2}} {CPU}",
    "prior/captions": f"{AUTOREGRESSIVE} --config configs/prior/captions.yaml --compressor {{pairs}} {CPU}",
    **{
        f"prior/{name}": f"{AUTOREGRESSIVE} --config configs/prior/{name}.yaml --compressor {{shapes}} {CPU}"
        for name in ("coordinates", "image")
    },
    "prior/image_codes": f"{AUTOREGRESSIVE} --config configs/prior/image_codes.yaml --compressor {{shapes}} "
    f"--model.condition.compressor {{shapes}} {CPU}",
    **{
        f"prior/autoregressive, 768 wide, {words}": f"{AUTOREGRESSIVE} --compressor {{digits}} {CPU} "
        f"--model.prior.backbone.width 768 --model.prior.backbone.heads 12 {flags}"
        for words, flags in {
            "one process": "",
            "ddp of two": "--trainer.devices 2 --trainer.strategy ddp",
            "fsdp of two": "--trainer.devices 2 --trainer.strategy fsdp",
        }.items()
    },
}
for size in SIZES:
    RECIPES |= {
        f"vqgan, size {size}": f"compressor --config vqgan --size {size} {EMOJI}",
        f"autoregressive, size {size}": "prior --config autoregressive --compressor {emoji} "
        f"{CPU} --size {size}",
    }
#: Compressors whose codes priors learn, trained for a step.
BASES = {
    "digits": f"compressor --config configs/demo/digits_compressor.yaml {CPU}",
    "emoji": RECIPES["vqgan, size tiny"],
    "pairs": RECIPES["demo/pairs_compressor"],
    "shapes": RECIPES["compressor/vqvae"],
    **{name: RECIPES[f"compressor/{name}"] for name in ("residual", "multiscale", "vqvae2")},
}


@quiet()
def plan(words: list[str]) -> tuple[int, float]:
    """Estimate of memory and of the time of a step."""
    stage = STAGES[words[0]]
    parts, training = build_training(stage, stage.parse(words[1:]), Run(Path()))
    estimate = Estimate(training, parts.trainer)
    needed = estimate.memory().needed
    costs = [cost(lambda count=count: estimate.steps(count, estimate.micro_batch)) for count in (1, 4)]
    return needed, (costs[1] - costs[0]) / 3


def train(words: list[str]) -> tuple[int, float]:
    """Measured memory of a training, and time of a step."""
    times: list[float] = []
    register_optimizer_step_post_hook(lambda *_: times.append(time.process_time()))
    run(words)
    return resident_peak(), median(after - before for before, after in pairwise(times[STEPS // 2 :]))


def run(words: list[str]) -> None:
    """Train, and raise if it fails."""
    if genstack(["train", *words]):
        raise SystemExit(f"genstack train {' '.join(words)} failed")


def cost(work: Callable[[], Any]) -> float:
    """Processor seconds of work."""
    start = time.process_time()
    work()
    return time.process_time() - start


def measured(what: str, words: list[str]) -> list[float]:
    """Run a measurement in a new process; with several training processes, the first reports."""
    done = subprocess.run(
        [sys.executable, __file__, what, *words],
        cwd=ROOT,
        env=os.environ | {"OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo"},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise SystemExit(done.stderr)
    return [float(number) for number in done.stdout.splitlines()[-1].split()]


def main() -> None:
    """One line for each recipe."""
    kinds = {"plan": plan, "train": train, "base": lambda words: (run(words), 0)}
    if sys.argv[1:2] and sys.argv[1] in kinds:
        numbers = kinds[sys.argv[1]](sys.argv[2:])
        if os.environ.get("LOCAL_RANK", "0") == "0":
            print(numbers[0] or 0, numbers[1])
        return
    with tempfile.TemporaryDirectory() as folder:
        bases = {name: f"{folder}/{name}" for name in BASES}
        title = ("recipe", "foretold, MB", "taken, MB", "error", "foretold, s", "taken, s", "error")
        print(f"| {' | '.join(title)} |\n|{'---|' * len(title)}")
        for number, name in enumerate(sys.argv[1:] or RECIPES):
            for base, words in BASES.items():
                if f"{{{base}}}" in RECIPES[name] and not Path(bases[base]).exists():
                    measured("base", [*words.split(), *QUICK.split(), "--name", base, "--runs", folder])
            place = ["--name", f"r{number}", "--runs", folder]
            words = [*RECIPES[name].format(**bases).split(), *SHORT.split(), *place]
            (memory, seconds), (peak, each) = (measured(what, words) for what in ("plan", "train"))
            print(
                f"| {name} | {memory / 1e6:.0f} | {peak / 1e6:.0f} | {memory / peak - 1:+.0%} "
                f"| {seconds:.2f} | {each:.2f} | {seconds / each - 1:+.0%} |",
                flush=True,
            )


if __name__ == "__main__":
    main()
