"""Which codes nothing chooses, and latents that they may start again from (Jukebox, arXiv:2005.00341)."""

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from genstack.dist import all_reduce_sum


class DeadCodeTracker(nn.Module):
    """Counts the latents that passed since each code was chosen, those of all processes together.

    A code is dead when it was not chosen once while `dead_after * size` latents passed: time is counted in
    latents, so that the batch size does not matter.

    Args:
        size: number of codes.
        dead_after: latents that pass, per code, before an unused one is dead; null never calls one dead.
    """

    passed: Int[Tensor, " size"]

    def __init__(self, size: int, dead_after: float | None):
        super().__init__()
        self.size, self.dead_after = size, dead_after
        self.register_buffer("passed", torch.zeros(size, dtype=torch.int64))
        self.chosen: Tensor | None = None  # how often each code was, since the last step
        self.latest: Tensor | None = None

    @torch.compiler.disable  # it acts on what it sees
    @torch.no_grad()
    def observe(self, latents: Float[Tensor, "n d"], codes: Int[Tensor, " n"]) -> None:
        """Count choices, and remember the latents in case codes need to start again."""
        if self.dead_after is not None:
            counts = torch.bincount(codes, minlength=self.size)
            self.chosen = counts if self.chosen is None else self.chosen + counts
            self.latest = latents.detach()

    @torch.no_grad()
    def after_step(self, skipped: bool) -> tuple[Int[Tensor, " n"], Float[Tensor, "m d"]]:
        """The codes that are dead now and count anew, and the latest latents; a skipped step is forgotten."""
        chosen, latest = self.chosen, self.latest
        self.chosen = self.latest = None
        if skipped or self.dead_after is None or chosen is None or latest is None:
            return self.passed[:0], torch.zeros(0, 0)
        chosen = all_reduce_sum(chosen)
        self.passed.copy_(torch.where(chosen > 0, 0, self.passed + chosen.sum()))
        dead = (self.passed >= self.dead_after * self.size).nonzero().squeeze(1)
        self.passed[dead] = 0
        return dead, latest
