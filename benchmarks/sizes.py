"""A training step of the recipes with `--size`: weights, processor time and memory.

    OMP_NUM_THREADS=1 python benchmarks/sizes.py --compressor RUN [--only base,large] [--recipes vqgan,titok]

Compressors learn `shapes` at 64 px, the prior their codes by RUN, the recipe `vqgan`; batches of two images.
Every row is a process of its own. Memory is its largest resident size, of which torch and the libraries take
about 0.6 GB.
"""

import argparse
import multiprocessing
import os
import time
from pathlib import Path

import torch

from genstack.cli.parsing.sizes import SIZES
from genstack.cli.parsing.stages import STAGES, build_training
from genstack.cli.quiet import quiet
from genstack.training.estimate import Estimate, resident_peak
from genstack.training.run import Run

BATCH, STEPS = 2, 3
SHARED = f"--data.source shapes:64 --data.batch_size {BATCH} --data.workers 0 --trainer.accelerator cpu"
COMPRESSORS = ("vqgan", "vit_vqgan", "titok", "vqgan_plus")  # one of each network that has sizes
RECIPES = {name: f"compressor --config {name} --data.resolution 64" for name in COMPRESSORS}
RECIPES["autoregressive"] = "prior --config autoregressive --compressor {compressor}"


def measure(recipe: str, size: str, compressor: str) -> list[str]:
    """A row of the table."""
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))
    stage, *options = f"{RECIPES[recipe].format(compressor=compressor)} {SHARED} --size {size}".split()
    with quiet():
        settings = STAGES[stage].parse(options)
        parts, training = build_training(STAGES[stage], settings, Run(Path()))
        estimate = Estimate(training, parts.trainer)
        seconds = (cost(estimate, 1 + STEPS) - cost(estimate, 1)) / STEPS
    weights = sum(parameter.numel() for parameter in training.model.parameters())
    return [size, recipe, f"{weights / 1e6:.1f} M", f"{seconds:.2f} s", f"{resident_peak() / 1e9:.2f} GB"]


def cost(estimate: Estimate, steps: int) -> float:
    """Processor seconds of some steps, with the start of a training."""
    start = time.process_time()
    estimate.steps(steps, BATCH)
    return time.process_time() - start


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--compressor", required=True)
    parser.add_argument("--only", default=",".join(SIZES))
    parser.add_argument("--recipes", default=",".join(RECIPES))
    arguments = parser.parse_args()
    print("| size | recipe | weights | a step of 2 images | memory |\n| --- | --- | --- | --- | --- |")
    for size in arguments.only.split(","):
        for recipe in arguments.recipes.split(","):
            with multiprocessing.get_context("spawn").Pool(1) as pool:
                row = pool.apply(measure, (recipe, size, arguments.compressor))
            print("| " + " | ".join(row) + " |", flush=True)


if __name__ == "__main__":
    main()
