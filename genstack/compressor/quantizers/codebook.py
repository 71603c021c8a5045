"""A table of learned rows that stays in use: random restarts as in Jukebox (arXiv:2005.00341)."""

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, distributed, nn


class Codebook(nn.Module):
    """Rows that codes name. The first latents of training seed them; those that nothing chooses start again.

    A row is dead when it was not chosen once while `dead_after * size` latents passed. Time is counted in
    latents, so that the batch size does not matter. In distributed training all processes count together, and
    the draws of the first are everybody's; all of them must call `seed`, `observe` and `after_step` alike.

    Args:
        size: number of rows.
        dim: numbers in a row.
        seeding: the rows become randomly chosen latents of the first batch in training.
        dead_after: latents that pass, per row, before an unused row is dead; null never restarts one.
    """

    seeded: Bool[Tensor, ""]
    idle: Int[Tensor, " size"]

    def __init__(self, size: int, dim: int, seeding: bool = True, dead_after: float | None = 64.0):
        super().__init__()
        self.size, self.dim, self.seeding, self.dead_after = size, dim, seeding, dead_after
        self.weight = nn.Parameter(torch.randn(size, dim) * dim**-0.5)
        self.register_buffer("seeded", torch.tensor(False))
        self.register_buffer("idle", torch.zeros(size, dtype=torch.int64))  # latents since a row was chosen
        self.chosen: Tensor | None = None  # how often each row was, since the last step
        self.latest: Tensor | None = None

    @property
    def rows(self) -> Float[Tensor, "{self.size} {self.dim}"]:
        """The table in float32, whatever the precision around it."""
        return self.weight.float()

    def forward(self, codes: Int[Tensor, "*shape"]) -> Float[Tensor, "*shape {self.dim}"]:
        """The rows of codes."""
        return F.embedding(codes, self.rows)

    @torch.compiler.disable  # it acts on what it sees
    @torch.no_grad()
    def seed(self, latents: Float[Tensor, "n {self.dim}"]) -> None:
        """Take the rows from latents, once, unless they are not finite."""
        if not self.seeding or self.seeded:
            return
        rows = draw(latents, self.size)
        if rows.isfinite().all():
            self.weight.copy_(rows)
            self.seeded.fill_(True)

    @torch.compiler.disable  # it acts on what it sees
    @torch.no_grad()
    def observe(self, latents: Float[Tensor, "n {self.dim}"], codes: Int[Tensor, " n"]) -> None:
        """Count choices, and remember the latents in case rows need to start again."""
        counts = torch.bincount(codes, minlength=self.size)
        self.chosen = counts if self.chosen is None else self.chosen + counts
        self.latest = latents.detach()

    @torch.no_grad()
    def after_step(self, skipped: bool) -> None:
        """Replace dead rows by latents of the latest batch; forget the statistics of a skipped step."""
        chosen, latest = self.chosen, self.latest
        self.chosen = self.latest = None
        if skipped or chosen is None or latest is None or self.dead_after is None:
            return
        if distributed.is_available() and distributed.is_initialized():
            distributed.all_reduce(chosen)
        self.idle.copy_(torch.where(chosen > 0, 0, self.idle + chosen.sum()))
        dead = (self.idle >= self.dead_after * self.size).nonzero().squeeze(1)
        if len(dead):
            self.weight[dead] = draw(latest, len(dead)).to(self.weight.dtype)
            self.idle[dead] = 0


def draw(latents: Float[Tensor, "n d"], count: int) -> Float[Tensor, "{count} d"]:
    """Latents in random order; where there are too few, repeats with a hundredth of their spread as noise.

    In distributed training the first process's draw is everybody's.
    """
    order = torch.randperm(len(latents), device=latents.device)[:count]
    again = torch.randint(len(latents), (count - len(order),), device=latents.device)
    noise = torch.randn_like(latents[again]) * latents.std(dim=0, correction=0) / 100
    drawn = torch.cat([latents[order], latents[again] + noise])
    if distributed.is_available() and distributed.is_initialized():
        distributed.broadcast(drawn, src=0)
    return drawn
