"""A training step of vector quantization: genstack, a full matrix of distances, and vector-quantize-pytorch.

    python benchmarks/quantizer_speed.py [--rounds 7] [--curve]

Each round times all one after the other (forward and backward, fp32); the table has medians of times and
of their ratios by round. `--curve` shows how time and memory of the choice grow with rows and latents.
"""

import argparse
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from statistics import median

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from genstack.compressor.quantizers import IBQ, VectorQuantizer
from genstack.compressor.quantizers.nearest import nearest

LATENTS, ROWS = 2048, 16384


def seconds(work: Callable[[], object]) -> float:
    """Time of one call."""
    begun = time.perf_counter()
    work()
    return time.perf_counter() - begun


def textbook(latents: Tensor, rows: Tensor) -> Tensor:
    """The loss of a quantizer that writes out all distances; latents `n d`."""
    distances = latents.square().sum(1, keepdim=True) - 2 * latents @ rows.T + rows.square().sum(1)
    hard = rows[distances.argmin(1)]
    pulls = F.mse_loss(hard, latents.detach()) + 0.25 * F.mse_loss(latents, hard.detach())
    return (latents + (hard - latents).detach()).square().mean() + pulls


def steps(dim: int) -> dict[str, Callable[[], None]]:
    """A training step of each, by name."""
    from vector_quantize_pytorch import VectorQuantize

    ours = VectorQuantizer(ROWS, dim, normalize=False)
    rows = nn.Parameter(torch.randn(ROWS, dim) * dim**-0.5)
    by_gradient = {"learnable_codebook": True, "ema_update": False}
    theirs = VectorQuantize(dim, ROWS, accept_image_fmap=True, **by_gradient).train()
    ema_model = VectorQuantize(dim, ROWS, accept_image_fmap=True).train()
    grid = torch.randn(LATENTS // 256, dim, 16, 16)
    ours(grid)  # seeds it

    def genstack() -> None:
        ours.zero_grad()
        quantized = ours(grid.clone().requires_grad_())
        (quantized.latents.square().mean() + torch.stack(list(quantized.losses.values())).sum()).backward()
        ours.after_step(skipped=False)

    def full_matrix() -> None:
        rows.grad = None
        textbook(grid.clone().requires_grad_().movedim(1, -1).reshape(-1, dim), rows).backward()

    def peer(module: nn.Module) -> Callable[[], None]:
        def step() -> None:
            module.zero_grad()
            latents, _, loss = module(grid.clone().requires_grad_())
            (latents.square().mean() + loss.sum()).backward()

        return step

    return {
        "genstack": genstack,
        "full matrix": full_matrix,
        "vector-quantize-pytorch, gradient": peer(theirs),
        "vector-quantize-pytorch, average": peer(ema_model),
    }


def compare(rounds: int) -> None:
    """Print times and ratios."""
    print(f"{LATENTS} latents, {ROWS} rows, fp32, {torch.get_num_threads()} thread(s), {rounds} rounds")
    for dim in (8, 256):
        works = steps(dim)
        for work in works.values():
            work()
        times = [{name: seconds(work) for name, work in works.items()} for _ in range(rounds)]
        for name in works:
            ratio = median(row[name] / row["genstack"] for row in times)
            print(f"dim {dim:3} {name:34} {median(row[name] for row in times):7.3f} s {ratio:6.2f} x")


def peak() -> float:
    """The most memory that this process has had, in MB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def alone(kind: str, count: int, size: int, dim: int) -> None:
    """In a process of its own: time, and peak memory beyond inputs, codebook and gradients."""
    torch.manual_seed(0)
    nearest(torch.randn(4, dim), torch.randn(4, dim))  # libraries have loaded
    latents = torch.randn(1, dim, 1, count).requires_grad_()
    if kind == "choice":
        rows, flat = torch.randn(size, dim), torch.randn(count, dim)
        before = peak()
        taken = seconds(lambda: nearest(flat, rows))
    else:
        quantizer = IBQ(size, dim, codebook_init=None, dead_after=None)
        quantizer.rows.grad = torch.randn_like(quantizer.rows)
        latents.grad = torch.randn_like(latents)
        before = peak()
        taken = seconds(lambda: torch.stack(list(quantizer(latents).losses.values())).sum().backward())
    print(
        f"{kind:6} {count:6} latents {size:7} rows dim {dim:3} {taken:8.2f} s {peak() - before:7.0f} MB",
        flush=True,
    )


def curve() -> None:
    """Print how time and memory grow."""
    choices = [(count, 16384, 8) for count in (2048, 4096, 8192, 16384)]
    choices += [(2048, size, 8) for size in (4096, 65536, 262144)] + [(16384, 262144, 8), (512, 262144, 256)]
    for count, size, dim in choices:
        subprocess.run([sys.executable, __file__, "--alone", "choice", f"{count},{size},{dim}"], check=True)
    for count, size, dim in [(256, 16384, 8), (512, 16384, 8), (256, 65536, 8), (64, 262144, 32)]:
        subprocess.run([sys.executable, __file__, "--alone", "IBQ", f"{count},{size},{dim}"], check=True)


def main() -> None:
    """Print the tables."""
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--rounds", type=int, default=7)
    arguments.add_argument("--curve", action="store_true")
    arguments.add_argument("--alone", nargs=2, help=argparse.SUPPRESS)
    given = arguments.parse_args()
    if given.alone:
        alone(given.alone[0], *map(int, given.alone[1].split(",")))
    elif given.curve:
        curve()
    else:
        compare(given.rounds)


if __name__ == "__main__":
    main()
