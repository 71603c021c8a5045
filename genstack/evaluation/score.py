"""How sure and how varied a classifier's readings are (Salimans et al. 2016, arXiv:1606.03498), in float64.

Only with Inception's classes is this the Inception score; with another classifier it has another name.
"""

import torch
from jaxtyping import Float
from torch import Tensor

from genstack.evaluation.resampling import Interval, draws, percentiles

RESAMPLES = 200


def score(probabilities: Float[Tensor, "n classes"]) -> tuple[float, Interval]:
    """exp of the mean divergence of an image's classes from those of all, over one set without splits."""
    probabilities = probabilities.double()
    sure = torch.special.entr(probabilities).sum(1)

    def of(numbers: Tensor) -> Tensor:
        return (torch.special.entr(probabilities[numbers].mean(0)).sum() - sure[numbers].mean()).exp()

    resampled = torch.stack([of(numbers) for numbers in draws(len(sure), RESAMPLES)])
    return float(of(torch.arange(len(sure)))), percentiles(resampled)
