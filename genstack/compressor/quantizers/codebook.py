"""A table of learned rows that stays in use: random restarts as in Jukebox (arXiv:2005.00341)."""

from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from genstack.compressor.quantizers.idle import DeadCodeTracker
from genstack.compressor.quantizers.kmeans import draw, kmeans
from genstack.dist import all_reduce_sum

Seeding = Literal["latents", "kmeans"]


class Codebook(nn.Module):
    """Rows that codes name. The first latents of training seed them; those that nothing chooses start again.

    In distributed training all processes count together, and the draws of the first are everybody's; all of
    them must call `seed`, `observe` and `after_step` alike.

    Args:
        size: number of rows.
        dim: numbers in a row.
        seeding: the rows become randomly chosen latents of the first batch in training ("latents"), or the
            means of its clusters ("kmeans"); null leaves them random.
        dead_after: latents that pass, per row, before an unused row is dead (see `DeadCodeTracker`); null
            never restarts one.
        decay: rows are running means of the latents that chose them, with this decay per optimizer step
            (arXiv:1711.00937, appendix A.1); null leaves them to the optimizer.
    """

    seeded: Bool[Tensor, ""]
    weight: Float[Tensor, "size dim"]
    counts: Float[Tensor, " size"]
    sums: Float[Tensor, "size dim"]

    def __init__(
        self,
        size: int,
        dim: int,
        seeding: Seeding | None = "latents",
        dead_after: float | None = 64.0,
        decay: float | None = None,
    ):
        super().__init__()
        self.size, self.dim, self.seeding, self.decay = size, dim, seeding, decay
        weight = torch.randn(size, dim) * dim**-0.5
        if decay is None:
            self.weight = nn.Parameter(weight)
        else:
            self.register_buffer("weight", weight)
            self.register_buffer("counts", torch.ones(size))  # running means of choices per row,
            self.register_buffer("sums", weight.clone())  # and of the sums of the latents that chose it
        self.register_buffer("seeded", torch.tensor(False))
        self.idle = DeadCodeTracker(size, dead_after)
        self.gathered: Tensor | None = None  # since the last step, of each row: the sum and number of latents

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
        if self.seeding is None or self.seeded:
            return
        rows = kmeans(latents, self.size) if self.seeding == "kmeans" else draw(latents, self.size)
        if rows.isfinite().all():
            self.place(torch.arange(self.size, device=rows.device), rows)
            self.seeded.fill_(True)

    @torch.compiler.disable  # it acts on what it sees
    @torch.no_grad()
    def observe(self, latents: Float[Tensor, "n {self.dim}"], codes: Int[Tensor, " n"]) -> None:
        """Count choices, and remember the latents in case rows need to start again."""
        self.idle.observe(latents, codes)
        if self.decay is not None:
            before = latents.new_zeros(self.size, self.dim + 1) if self.gathered is None else self.gathered
            self.gathered = before.index_add_(0, codes, F.pad(latents.detach(), (0, 1), value=1.0))

    @torch.no_grad()
    def after_step(self, skipped: bool) -> None:
        """Move averages and replace dead rows by latents of the latest batch; forget a skipped step."""
        gathered, self.gathered = self.gathered, None
        if gathered is not None and not skipped:
            self.average(all_reduce_sum(gathered))
        dead, latents = self.idle.after_step(skipped)
        if len(dead):
            self.place(dead, draw(latents, len(dead)))

    def average(self, gathered: Float[Tensor, "{self.size} _"]) -> None:
        """Move chosen rows towards the mean of the latents that chose them; the others stay."""
        assert self.decay is not None
        sums, chosen = gathered[:, :-1], gathered[:, -1]
        self.counts.lerp_(chosen, 1 - self.decay)
        self.sums.lerp_(sums, 1 - self.decay)
        moved = (chosen > 0).nonzero().squeeze(1)
        self.weight[moved] = self.sums[moved] / self.counts[moved, None]

    def place(self, numbers: Int[Tensor, " n"], rows: Float[Tensor, "n {self.dim}"]) -> None:
        """Set rows, and with them all that their averages remember."""
        self.weight[numbers] = rows.to(self.weight.dtype)
        if self.decay is not None:
            self.sums[numbers] = rows
            self.counts[numbers] = 1.0
