"""Autoregressive sampling: with regions in parallel, without the cache, and the linear layers alone.

    python benchmarks/decoding.py [--batch 4] [--repeats 5] [--without-cache]

Each round times all rows one after the other; the table has medians of times and of their ratios by round.
"""

import argparse
import time
from collections.abc import Callable
from statistics import median

import torch
from torch import Tensor, nn

from genstack.conditions import Unconditional
from genstack.layout import CodeLayout
from genstack.prior import Autoregressive, SamplingOptions, image_seeds
from genstack.transformer import Backbone
from genstack.transformer.masks import Causal


def seconds(work: Callable[[], object]) -> float:
    """Time of one call."""
    begun = time.perf_counter()
    work()
    return time.perf_counter() - begun


@torch.inference_mode()
def without_cache(prior: Autoregressive, condition: Tensor) -> Tensor:
    """Greedy codes, each from a pass over all codes before it."""
    codes = torch.zeros(len(condition), prior.layout.length, dtype=torch.int64)
    for place in range(prior.layout.length):
        short = codes[:, : place + 1]
        tokens = torch.cat([prior.prefix(condition), prior.codes(short[:, :-1])], dim=1)
        places = prior.get_buffer("positions")[: place + 1]
        features = prior.transformer(tokens, places, Causal())
        codes[:, place] = prior.head(features[:, -1]).argmax(-1)
    return codes


@torch.inference_mode()
def linear_layers(prior: Autoregressive, batch: int) -> None:
    """Lower bound of a step: every linear layer once per code."""
    layers = [module for module in prior.modules() if isinstance(module, nn.Linear)]
    inputs = [torch.randn(batch, layer.in_features) for layer in layers]
    for _ in range(prior.layout.length):
        for layer, rows in zip(layers, inputs, strict=True):
            layer(rows)


def main() -> None:
    """Print the table."""
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--batch", type=int, default=4)
    arguments.add_argument("--repeats", type=int, default=5)
    arguments.add_argument(
        "--without-cache", action="store_true", help="also without the cache, which is slow"
    )
    given = arguments.parse_args()
    torch.manual_seed(0)
    layout = CodeLayout((256, 256), 1024, ((16, 16),))
    plan = Backbone(width=384, depth=8, heads=6)
    shapes = [(1, 1), (2, 2), (4, 4)]
    priors = [Autoregressive(layout, Unconditional(), plan, regions=shape).eval() for shape in shapes]
    condition = torch.zeros(given.batch, dtype=torch.int64)
    seeds = image_seeds(0, range(given.batch))
    rows: dict[str, Callable[[], object]] = {
        f"regions {height},{width}": lambda prior=prior: prior.sample(condition, SamplingOptions(), seeds)
        for (height, width), prior in zip(shapes, priors, strict=True)
    }
    if given.without_cache:
        rows["greedy, without cache"] = lambda: without_cache(priors[0], condition)
    rows["linear layers alone"] = lambda: linear_layers(priors[0], given.batch)
    rounds = [[seconds(work) for work in rows.values()] for _ in range(given.repeats)]
    print(f"256 codes, batch {given.batch}, 8 x 384, 6 heads, fp32, {torch.get_num_threads()} threads")
    for number, name in enumerate(rows):
        taken = median(row[number] for row in rounds)
        linear = median(row[number] / row[-1] for row in rounds)
        speed = median(row[0] / row[number] for row in rounds)
        print(
            f"{name:22} {taken:7.2f} s  {given.batch / taken:6.2f} images/s  {linear:6.2f} x linear layers  "
            f"{speed:5.2f} x as fast as regions 1,1"
        )


if __name__ == "__main__":
    main()
