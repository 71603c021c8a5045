"""Inception score (Salimans et al. 2016, arXiv:1606.03498) over any classifier's classes, in float64."""

import torch
from jaxtyping import Float
from torch import Tensor

from genstack.evaluation.metrics.intervals import Interval, bootstrap_indices, percentile_interval

RESAMPLES = 200


def inception_score(probabilities: Float[Tensor, "n classes"]) -> tuple[float, Interval]:
    """exp of the mean KL divergence of p(class | image) from p(class), over the whole set without splits."""
    probabilities = probabilities.double()
    entropies = torch.special.entr(probabilities).sum(1)

    def score(indices: Tensor) -> Tensor:
        marginal = torch.special.entr(probabilities[indices].mean(0)).sum()
        return (marginal - entropies[indices].mean()).exp()

    resampled = torch.stack([score(indices) for indices in bootstrap_indices(len(entropies), RESAMPLES)])
    return float(score(torch.arange(len(entropies)))), percentile_interval(resampled)
