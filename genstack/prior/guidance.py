"""Classifier-free guidance: each prediction with the condition and without it (arXiv:2207.12598)."""

from collections.abc import Callable
from functools import partial

import torch
from einops import repeat
from jaxtyping import Float
from torch import Tensor

from genstack.conditions.condition import Condition
from genstack.prior.options import SamplingOptions


class Guidance:
    """Condition values for sampling, and the combination of conditional and unconditional logits.

    With guidance other than 1, every batch has two copies: first with the condition, then with the null
    condition.

    Args:
        condition: the condition.
        values: its values, one row per image.
        options: guidance, its schedule and interval.
        report: called at each step with its progress, from 0 to 1; an error that it raises ends sampling.
    """

    def __init__(
        self,
        condition: Condition,
        values: Tensor,
        options: SamplingOptions,
        report: Callable[[float], None] = lambda progress: None,
    ):
        self.options, self.report = options, report
        self.copies = 1 if options.guidance == 1 else 2
        self.values = values if self.copies == 1 else torch.cat([values, condition.null(values)])

    def expand(self, tensor: Tensor) -> Tensor:
        """Repeat the rows of a batch for each copy."""
        return tensor if self.copies == 1 else repeat(tensor, "b ... -> (copies b) ...", copies=self.copies)

    def at(self, progress: float) -> Callable[[Tensor], Tensor]:
        """Return `apply` at a progress."""
        return partial(self.apply, progress=progress)

    def apply(
        self, logits: Float[Tensor, "rows *positions K"], progress: float
    ) -> Float[Tensor, "b *positions K"]:
        """Return null + s (conditional - null), exact for s = 0 and s = 1.

        Args:
            logits: of all rows.
            progress: share of sampling that is done, from 0 at the first codes to 1 at the last.
        """
        self.report(progress)
        if self.copies == 1:
            return logits
        conditional, null = logits.chunk(2)
        return torch.lerp(null, conditional, self.options.guidance_at(progress))
