"""Classifier-free guidance: every prediction twice, with its condition and without (arXiv:2207.12598)."""

import torch
from einops import repeat
from jaxtyping import Float
from torch import Tensor

from genstack.conditions.condition import Condition
from genstack.prior.options import SamplingOptions


class Guidance:
    """Condition values as a prior reads them in sampling, and the way from its logits to steered ones.

    Where guidance is not 1, all rows are read twice in one batch: first with the condition, then without.

    Args:
        condition: the plan of the condition.
        values: its values, one row for each image.
        options: guidance, its schedule and interval.
    """

    def __init__(self, condition: Condition, values: Tensor, options: SamplingOptions):
        self.options = options
        self.copies = 1 if options.guidance == 1 else 2
        self.values = values if self.copies == 1 else torch.cat([values, condition.null(values)])

    def rows(self, tensor: Tensor) -> Tensor:
        """One row for each image, repeated for every time that it is read."""
        return tensor if self.copies == 1 else repeat(tensor, "b ... -> (copies b) ...", copies=self.copies)

    def steer(self, logits: Float[Tensor, "rows *places K"], progress: float) -> Float[Tensor, "b *places K"]:
        """null + s (conditional - null), exact for s = 0 and s = 1.

        Args:
            logits: of all rows.
            progress: share of the way gone, from 0 at the first codes drawn to 1 at the last.
        """
        if self.copies == 1:
            return logits
        conditional, null = logits.chunk(2)
        return torch.lerp(null, conditional, self.options.guidance_at(progress))
