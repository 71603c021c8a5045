"""The memory that `genstack plan` foretells, beside what a training of the same recipe takes.

    python benchmarks/memory.py [NAME ...]

Each recipe is planned in one process and trained for four steps, with a validation, in another; both read
`VmHWM`, the largest size that the system has seen of them (Linux).
"""

import os
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parents[1]
SHAPES = "--data.source shapes:200 --data.workers 0 --trainer.accelerator cpu --log.images 4"
STEPS = "--trainer.max_steps 4 --trainer.validate_every 4"
SMALL = f"{SHAPES} --data.resolution 32 --model.perceptual null"  # LPIPS needs weights that are fetched
COMPRESSORS = ("fsq", "lfq", "bsq", "ibq", "simvq", "residual", "vae", "dvae", "vqvae2", "vqgan", "vit_vqgan")
#: What is trained: the recipes as they are, but for the size of the images.
RECIPES = {
    "demo/compressor": "compressor --config configs/demo/compressor.yaml",
    "demo/prior": "prior --config configs/demo/prior.yaml --compressor {digits}",
    "demo/shapes_compressor": "compressor --config configs/compressor/vqgan.yaml "
    f"--config configs/demo/shapes_compressor.yaml {SHAPES}",
    "compressor/vqvae": f"compressor --config configs/compressor/vqvae.yaml {SHAPES} --data.resolution 32",
    **{
        f"compressor/{name}": f"compressor --config configs/compressor/{name}.yaml {SMALL}"
        for name in COMPRESSORS
    },
    **{
        f"prior/{name}": f"prior --config configs/prior/{name}.yaml --compressor {{digits}}"
        for name in ("autoregressive", "masked", "diffusion", "random_order", "pixelcnn", "pixelsnail")
    },
}
PLAN = """
import sys
from genstack.cli import stages
from genstack.cli.quiet import quiet
from genstack.training.forecast import Forecast
quiet()
stage = stages.STAGES[sys.argv[1]]
parts, training = stages.build(stage, stage.parser().parse(sys.argv[2:], stage.inherited(sys.argv[2:])))
print(Forecast(training, parts.trainer).memory().needed)
"""
TRAIN = """
import sys
from genstack.cli.main import main
from genstack.training.forecast import process_memory
assert main(["train", *sys.argv[1:]]) is None
print(process_memory()[0])
"""


def measured(code: str, words: list[str]) -> int:
    """What a process prints last."""
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-c", code, *words],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise SystemExit(done.stderr)
    return int(done.stdout.split()[-1])


def main() -> None:
    """One line for each recipe."""
    with tempfile.TemporaryDirectory() as folder:
        digits = f"{folder}/digits"
        place = ["--runs", folder]
        small = ["compressor", "--config", "configs/demo/compressor.yaml", *STEPS.split()]
        measured(TRAIN, [*small, "--name", "digits", *place])
        print("| recipe | foretold, MB | taken, MB | error |\n|---|---|---|---|")
        for number, name in enumerate(sys.argv[1:] or RECIPES):
            words = [
                *RECIPES[name].format(digits=digits).split(),
                *STEPS.split(),
                "--name",
                f"r{number}",
                *place,
            ]
            foretold, taken = (measured(code, words) / 1e6 for code in (PLAN, TRAIN))
            print(f"| {name} | {foretold:.0f} | {taken:.0f} | {foretold / taken - 1:+.0%} |", flush=True)


if __name__ == "__main__":
    main()
