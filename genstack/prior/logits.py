"""Codes from logits: temperature, top-k, top-p (arXiv:1904.09751), min-p (arXiv:2407.01082), and seeds."""

import math
from collections.abc import Iterable

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from genstack.errors import UserError
from genstack.prior.options import SamplingOptions


def image_seeds(seed: int, indices: Iterable[int]) -> Int[Tensor, " b"]:
    """Derive a seed for each image index from the seed of the set."""
    if seed < 0:
        raise UserError(f"seed must be at least 0, got {seed}")
    states = [np.random.SeedSequence((seed, index)).generate_state(1, np.uint64) for index in indices]
    return torch.from_numpy(np.concatenate([np.empty(0, np.uint64), *states]).view(np.int64))


def uniforms(seeds: Int[Tensor, " b"], length: int) -> Float[Tensor, "b length"]:
    """Draw `length` float32 numbers in [0, 1) for each seed, on the device of the seeds.

    A row depends on its own seed only, so an image does not depend on its batch. The numbers are the upper
    24 bits of a Philox stream, since torch's generator on a CPU reads only 32 bits of a seed: too few for
    50,000 distinct images.
    """
    rows = [np.random.Philox(key=seed % 2**64).random_raw(length) >> np.uint64(40) for seed in seeds.tolist()]
    numbers = np.array(rows, dtype=np.float32).reshape(len(rows), length) * np.float32(2**-24)
    return torch.from_numpy(numbers).to(seeds.device)


def keep_top_k(logits: Float[Tensor, "b K"], top_k: int) -> Float[Tensor, "b K"]:
    """Set logits below the k-th largest to -inf; 0 keeps all."""
    if top_k == 0 or top_k >= logits.shape[-1]:
        return logits
    smallest = logits.topk(top_k, dim=-1).values[:, -1:]
    return logits.masked_fill(logits < smallest, -torch.inf)


def keep_top_p(logits: Float[Tensor, "b K"], top_p: float) -> Float[Tensor, "b K"]:
    """Set logits to -inf outside the smallest set of codes with total probability p or more."""
    if top_p == 1:
        return logits
    ordered, order = logits.sort(dim=-1, descending=True, stable=True)
    probabilities = ordered.softmax(dim=-1)
    before = probabilities.cumsum(dim=-1) - probabilities
    return torch.full_like(logits, -torch.inf).scatter(
        -1, order, ordered.masked_fill(before >= top_p, -torch.inf)
    )


def keep_min_p(logits: Float[Tensor, "b K"], min_p: float) -> Float[Tensor, "b K"]:
    """Set logits to -inf for codes below `min_p` times the highest probability; 0 keeps all."""
    if min_p == 0:
        return logits
    return logits.masked_fill(logits < logits.amax(dim=-1, keepdim=True) + math.log(min_p), -torch.inf)


def probabilities(logits: Float[Tensor, "b K"], options: SamplingOptions) -> Float[Tensor, "b K"]:
    """Apply temperature, then top-k, top-p and min-p, and return probabilities in float32."""
    logits = logits.float()
    if options.temperature == 0 or options.top_k == 1:
        return torch.zeros_like(logits).scatter(-1, logits.argmax(dim=-1, keepdim=True), 1.0)
    if options.temperature != 1:  # the largest is 0 first, so small temperatures do not overflow
        logits = (logits - logits.amax(dim=-1, keepdim=True)) / options.temperature
    logits = keep_top_p(keep_top_k(logits, options.top_k), options.top_p)
    return keep_min_p(logits, options.min_p).softmax(dim=-1)


def sample_from_logits(
    logits: Float[Tensor, "b K"], options: SamplingOptions, uniforms: Float[Tensor, " b"]
) -> Int[Tensor, " b"]:
    """Sample a code per row: the first whose cumulative probability exceeds the row's number in [0, 1)."""
    if options.temperature == 0 or options.top_k == 1:
        return logits.argmax(dim=-1)
    probability = probabilities(logits, options)
    if logits.device.type == "cpu":  # sums never decrease, so this needs half the operations
        cumulative = probability.cumsum(dim=-1)
        total = cumulative[:, -1:]
        threshold = torch.minimum(uniforms[:, None] * total, torch.nextafter(total, torch.zeros_like(total)))
        return torch.searchsorted(cumulative, threshold, right=True)[:, 0]
    # Rounding may decrease a parallel cumulative sum, as on a GPU: exclude codes of probability 0, and keep
    # the threshold below the largest sum.
    cumulative = probability.cumsum(dim=-1).masked_fill(probability == 0, 0.0)
    total = cumulative.amax(dim=-1)
    threshold = torch.minimum(uniforms * total, torch.nextafter(total, torch.zeros_like(total)))
    return (cumulative > threshold[:, None]).byte().argmax(dim=-1)
