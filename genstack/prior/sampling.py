"""From logits to codes: temperature, top-k, top-p (arXiv:1904.09751), min-p (arXiv:2407.01082), seeds."""

import math
from collections.abc import Iterable

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from genstack.errors import UserError
from genstack.prior.options import SamplingOptions


def image_seeds(seed: int, indices: Iterable[int]) -> Int[Tensor, " b"]:
    """The seeds of the images with these indices in a set drawn with `seed`, well mixed."""
    if seed < 0:
        raise UserError(f"seed {seed} is negative; use 0 or more")
    states = [np.random.SeedSequence((seed, index)).generate_state(1, np.uint64) for index in indices]
    return torch.from_numpy(np.concatenate([np.empty(0, np.uint64), *states]).view(np.int64))


def uniforms(seeds: Int[Tensor, " b"], length: int) -> Float[Tensor, "b length"]:
    """`length` numbers in [0, 1) for each seed, float32, on the device of the seeds.

    A row depends on its seed alone, so that an image does not depend on its batch. The numbers are the upper
    24 bits of a Philox stream: torch's own generator reads 32 bits of a seed on the CPU, too few for 50,000
    images without repeats.
    """
    rows = [np.random.Philox(key=seed % 2**64).random_raw(length) >> np.uint64(40) for seed in seeds.tolist()]
    numbers = np.array(rows, dtype=np.float32).reshape(len(rows), length) * np.float32(2**-24)
    return torch.from_numpy(numbers).to(seeds.device)


def keep_top_k(logits: Float[Tensor, "b K"], top_k: int) -> Float[Tensor, "b K"]:
    """Logits with -inf for all but the k largest (and those equal to the k-th); 0 keeps all."""
    if top_k == 0 or top_k >= logits.shape[-1]:
        return logits
    smallest = logits.topk(top_k, dim=-1).values[:, -1:]
    return logits.masked_fill(logits < smallest, -torch.inf)


def keep_top_p(logits: Float[Tensor, "b K"], top_p: float) -> Float[Tensor, "b K"]:
    """Logits with -inf outside the smallest set of codes that have at least probability p together."""
    if top_p == 1:
        return logits
    ordered, order = logits.sort(dim=-1, descending=True, stable=True)
    probabilities = ordered.softmax(dim=-1)
    before = probabilities.cumsum(dim=-1) - probabilities
    return torch.full_like(logits, -torch.inf).scatter(
        -1, order, ordered.masked_fill(before >= top_p, -torch.inf)
    )


def keep_min_p(logits: Float[Tensor, "b K"], min_p: float) -> Float[Tensor, "b K"]:
    """Logits with -inf for codes below a share `min_p` of the likeliest code's probability; 0 keeps all."""
    if min_p == 0:
        return logits
    return logits.masked_fill(logits < logits.amax(dim=-1, keepdim=True) + math.log(min_p), -torch.inf)


def probabilities(logits: Float[Tensor, "b K"], options: SamplingOptions) -> Float[Tensor, "b K"]:
    """What codes are drawn from: temperature first, then top-k, top-p and min-p; in float32."""
    logits = logits.float()
    if options.temperature == 0 or options.top_k == 1:
        return torch.zeros_like(logits).scatter(-1, logits.argmax(dim=-1, keepdim=True), 1.0)
    if options.temperature != 1:  # the largest becomes 0 first, so that small temperatures do not overflow
        logits = (logits - logits.amax(dim=-1, keepdim=True)) / options.temperature
    logits = keep_top_p(keep_top_k(logits, options.top_k), options.top_p)
    return keep_min_p(logits, options.min_p).softmax(dim=-1)


def draw(
    logits: Float[Tensor, "b K"], options: SamplingOptions, uniforms: Float[Tensor, " b"]
) -> Int[Tensor, " b"]:
    """One code for each row: the first whose cumulative probability is above the row's number in [0, 1)."""
    if options.temperature == 0 or options.top_k == 1:
        return logits.argmax(dim=-1)
    chances = probabilities(logits, options)
    # A parallel sum, as on a GPU, may fall by a rounding: impossible codes get no part of [0, 1) even so,
    # and no number lies above all.
    cumulative = chances.cumsum(dim=-1).masked_fill(chances == 0, 0.0)
    total = cumulative.amax(dim=-1)
    reached = torch.minimum(uniforms * total, torch.nextafter(total, torch.zeros_like(total)))
    return (cumulative > reached[:, None]).byte().argmax(dim=-1)
