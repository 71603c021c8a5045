"""A table of learned rows that stays in use: random restarts as in Jukebox (arXiv:2005.00341)."""

from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from genstack.compressor.quantizers.kmeans import draw, kmeans, summed

Seeding = Literal["latents", "kmeans"]


class Codebook(nn.Module):
    """Rows that codes name. The first latents of training seed them; those that nothing chooses start again.

    A row is dead when it was not chosen once while `dead_after * size` latents passed. Time is counted in
    latents, so that the batch size does not matter. In distributed training all processes count together, and
    the draws of the first are everybody's; all of them must call `seed`, `observe` and `after_step` alike.

    Args:
        size: number of rows.
        dim: numbers in a row.
        seeding: the rows become randomly chosen latents of the first batch in training ("latents"), or the
            means of its clusters ("kmeans"); null leaves them random.
        dead_after: latents that pass, per row, before an unused row is dead; null never restarts one.
        decay: rows are running means of the latents that chose them, with this decay per optimizer step
            (arXiv:1711.00937, appendix A.1); null leaves them to the optimizer.
    """

    seeded: Bool[Tensor, ""]
    idle: Int[Tensor, " size"]
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
        self.size, self.dim, self.seeding, self.dead_after, self.decay = size, dim, seeding, dead_after, decay
        weight = torch.randn(size, dim) * dim**-0.5
        if decay is None:
            self.weight = nn.Parameter(weight)
        else:
            self.register_buffer("weight", weight)
            self.register_buffer("counts", torch.ones(size))  # running means of choices per row,
            self.register_buffer("sums", weight.clone())  # and of the sums of the latents that chose it
        self.register_buffer("seeded", torch.tensor(False))
        self.register_buffer("idle", torch.zeros(size, dtype=torch.int64))  # latents since a row was chosen
        self.chosen: Tensor | None = None  # how often each row was, since the last step
        self.gathered: Tensor | None = None  # the sums of the latents that chose it, since the last step
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
        counts = torch.bincount(codes, minlength=self.size)
        self.chosen = counts if self.chosen is None else self.chosen + counts
        if self.decay is not None:
            before = torch.zeros_like(self.sums) if self.gathered is None else self.gathered
            self.gathered = before.index_add_(0, codes, latents.detach())
        self.latest = latents.detach()

    @torch.no_grad()
    def after_step(self, skipped: bool) -> None:
        """Move averages and replace dead rows by latents of the latest batch; forget a skipped step."""
        chosen, gathered, latest = self.chosen, self.gathered, self.latest
        self.chosen = self.gathered = self.latest = None
        if skipped or chosen is None or latest is None:
            return
        chosen = summed(chosen)
        if gathered is not None:
            self.average(chosen, summed(gathered))
        if self.dead_after is not None:
            self.restart(chosen, latest, self.dead_after * self.size)

    def average(self, chosen: Int[Tensor, " {self.size}"], gathered: Float[Tensor, "_ {self.dim}"]) -> None:
        """Move chosen rows towards the mean of the latents that chose them; the others stay."""
        assert self.decay is not None
        self.counts.lerp_(chosen.to(self.counts), 1 - self.decay)
        self.sums.lerp_(gathered, 1 - self.decay)
        moved = (chosen > 0).nonzero().squeeze(1)
        self.weight[moved] = self.sums[moved] / self.counts[moved, None]

    def restart(
        self, chosen: Int[Tensor, " {self.size}"], latest: Float[Tensor, "_ {self.dim}"], patience: float
    ) -> None:
        """Give rows that nothing chose for so many latents the places of random latents."""
        self.idle.copy_(torch.where(chosen > 0, 0, self.idle + chosen.sum()))
        dead = (self.idle >= patience).nonzero().squeeze(1)
        if len(dead):
            self.place(dead, draw(latest, len(dead)))
            self.idle[dead] = 0

    def place(self, numbers: Int[Tensor, " n"], rows: Float[Tensor, "n {self.dim}"]) -> None:
        """Set rows, and with them all that their averages remember."""
        self.weight[numbers] = rows.to(self.weight.dtype)
        if self.decay is not None:
            self.sums[numbers] = rows
            self.counts[numbers] = 1.0
