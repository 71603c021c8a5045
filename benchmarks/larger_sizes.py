"""Two ways to sample larger images than a prior was trained on: windows, and extrapolated positions.

    python benchmarks/larger_sizes.py runs/flowers-flow --size 128x128 --out runs/larger [--count 64]

Windows of the trained size overlap (`genstack sample --size`). Extrapolated positions take one window of the
whole size: learned vectors of positions are interpolated over the larger grid, and rotary angles go on beyond
the trained ones. The prior with extrapolated positions is written as a model to OUT/extrapolated, and
samples of both ways to OUT/samples-*, with images per second. Compare them with real images of that size:

    genstack evaluate REAL OUT/samples-windows
    genstack evaluate REAL OUT/samples-extrapolated
"""

import argparse
from dataclasses import replace
from math import prod
from pathlib import Path

import torch
from einops import rearrange
from torch import Tensor
from torch.nn.functional import interpolate

import genstack
from genstack.checkpoints.model_file import save
from genstack.cli.main import main as run
from genstack.description import build, describe
from genstack.errors import UserError
from genstack.layout import Layout
from genstack.model import Model
from genstack.prior import Prior


def extrapolate(prior: Prior, layout: Layout) -> Prior:
    """Build a prior over a larger grid with the weights of one over a smaller grid."""
    larger = build(describe(prior) | {"layout": describe(layout)})
    state = larger.state_dict()
    side = getattr(prior, "patch", 1)
    before, after = (tuple(size // side for size in each.layout.grids[0]) for each in (prior, larger))
    for name, tensor in prior.state_dict().items():
        if tensor.shape == state[name].shape:
            state[name] = tensor
        elif len(tensor) == prior.layout.depth * prod(before) + 1 and prior.layout.depth == 1:
            state[name] = interpolate_table(tensor, before, after)
        else:
            raise UserError(f"{name} has one vector per token, which cannot be extrapolated; use windows")
    larger.load_state_dict(state)
    return larger.eval()


def interpolate_table(table: Tensor, before: tuple[int, ...], after: tuple[int, ...]) -> Tensor:
    """Interpolate vectors of positions over a larger grid; the last one is that of no position."""
    grid = rearrange(table[:-1], "(h w) d -> 1 d h w", h=before[0])
    grid = interpolate(grid, after, mode="bicubic")
    return torch.cat([rearrange(grid, "1 d h w -> (h w) d"), table[-1:]])


def main() -> None:
    """Sample both ways."""
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("run")
    arguments.add_argument("--size", default="128x128")
    arguments.add_argument("--count", type=int, default=64)
    arguments.add_argument("--batch-size", type=int, default=16)
    arguments.add_argument("--out", type=Path, default=Path("runs/larger"))
    given = arguments.parse_args()
    model = genstack.load(given.run)
    height, width = (int(side) for side in given.size.split("x"))
    prior = model.prior
    if prior is None or len(prior.layout.grids) > 1:
        raise UserError(f"{given.run} has no prior over one grid; name one that has")
    layout = model.compressor.layout(height, width)
    preprocessing = replace(model.preprocessing, height=height, width=width)
    larger = Model(model.compressor, preprocessing, model.classes, extrapolate(prior, layout), model.metadata)
    given.out.mkdir(parents=True, exist_ok=True)
    save(larger, given.out / "extrapolated")
    ways = {"windows": [given.run, "--size", given.size], "extrapolated": [str(given.out / "extrapolated")]}
    for name, words in ways.items():
        folder = given.out / f"samples-{name}"
        options = ["--count", str(given.count), "--batch-size", str(given.batch_size), "--out", str(folder)]
        if run(["sample", *words, *options]) is not None:
            raise SystemExit(1)


if __name__ == "__main__":
    main()
