"""Entropies of codes of independent bits (arXiv:2310.05737, arXiv:2406.07548)."""

import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Float
from torch import Tensor

from genstack.dist import differentiable_mean

GROUP = 9  # bits with a joint distribution over the batch; 2^9 patterns, as in BSQ


def entropy_term(logits: Float[Tensor, "*shape bits"], diversity: float) -> Float[Tensor, ""]:
    """Entropy loss (arXiv:2310.05737, equation 5): certain codes per latent, uniform codes over the batch."""
    flat = rearrange(logits, "... bits -> (...) bits")
    return mean_entropy(flat) - diversity * entropy_of_mean(flat)


def mean_entropy(logits: Float[Tensor, "n bits"]) -> Float[Tensor, ""]:
    """Mean entropy of codes of independent bits: the exact sum of the bits' entropies."""
    entropies = F.softplus(logits) - logits * logits.sigmoid()
    return entropies.sum(1).mean()


def entropy_of_mean(logits: Float[Tensor, "n bits"]) -> Float[Tensor, ""]:
    """Entropy of the codes of the batch of all processes, with independent bits within each latent.

    Entropies of groups of `GROUP` bits are added: exact up to this many bits, and an upper bound beyond.
    """
    return torch.stack([group_entropy(group) for group in logits.split(GROUP, dim=1)]).sum()


def group_entropy(logits: Float[Tensor, "n bits"]) -> Float[Tensor, ""]:
    """Entropy of the mean distribution over all patterns of a few bits.

    Each latent's distribution is a product over bits. The mean of products of two halves is a matrix product,
    so only the patterns of half of the bits are stored per latent.
    """
    halves = logits.tensor_split([(logits.shape[1] + 1) // 2], dim=1)
    joint = differentiable_mean(patterns(halves[0]).T @ patterns(halves[1]) / len(logits))
    return -(joint * joint.clamp(min=torch.finfo(joint.dtype).tiny).log()).sum()


def patterns(logits: Float[Tensor, "n bits"]) -> Float[Tensor, "n patterns"]:
    """Return the probabilities of all patterns of independent bits."""
    result = logits.new_ones(len(logits), 1)
    for bit in logits.unbind(1):
        both = torch.stack([(-bit).sigmoid(), bit.sigmoid()], dim=1)
        result = rearrange(both[:, :, None] * result[:, None], "n bit patterns -> n (bit patterns)")
    return result
