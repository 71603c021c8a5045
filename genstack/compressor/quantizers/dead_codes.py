"""Tracking of unused codes for random restarts (Jukebox, arXiv:2005.00341)."""

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from genstack.dist import all_reduce_sum


class DeadCodeTracker(nn.Module):
    """Count the latents of all processes since each code was last chosen.

    A code is dead after `dead_after * size` latents. Counting latents rather than steps makes this
    independent of the batch size.

    Args:
        size: number of codes.
        dead_after: latents per code after which an unused code is dead; None for never.
    """

    passed: Int[Tensor, " size"]

    def __init__(self, size: int, dead_after: float | None):
        super().__init__()
        self.size, self.dead_after = size, dead_after
        self.register_buffer("passed", torch.zeros(size, dtype=torch.int64))
        self.chosen: Tensor | None = None  # counts of each code since the last step
        self.latest: Tensor | None = None

    @torch.no_grad()
    def observe(self, latents: Float[Tensor, "n d"], codes: Int[Tensor, " n"]) -> None:
        """Count the codes, and keep the latents for restarts."""
        if self.dead_after is not None:
            counts = torch.bincount(codes, minlength=self.size)
            self.chosen = counts if self.chosen is None else self.chosen + counts
            self.latest = latents.detach()

    @torch.no_grad()
    def after_step(self, skipped: bool) -> tuple[Int[Tensor, " n"], Float[Tensor, "m d"]]:
        """Return dead codes, whose counts restart, and the latest latents; ignore a skipped step."""
        chosen, latest = self.chosen, self.latest
        self.chosen = self.latest = None
        if skipped or self.dead_after is None or chosen is None or latest is None:
            return self.passed[:0], torch.zeros(0, 0)
        chosen = all_reduce_sum(chosen)
        self.passed.copy_(torch.where(chosen > 0, 0, self.passed + chosen.sum()))
        dead = (self.passed >= self.dead_after * self.size).nonzero().squeeze(1)
        self.passed[dead] = 0
        return dead, latest
