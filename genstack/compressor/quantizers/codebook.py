"""Codebook with data-dependent initialization and random restarts (Jukebox, arXiv:2005.00341)."""

from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from genstack.compressor.quantizers.dead_codes import DeadCodeTracker
from genstack.compressor.quantizers.kmeans import kmeans, random_latents
from genstack.dist import all_reduce_sum

CodebookInit = Literal["latents", "kmeans"]


class Codebook(nn.Module):
    """Table of rows, initialized from the first training batch; dead rows restart from random latents.

    In distributed training, counts are summed over processes, and random choices come from rank 0. All
    processes must call `initialize`, `observe` and `after_step` together.

    Args:
        size: number of rows.
        dim: dimensions of a row.
        codebook_init: initialize rows with random latents of the first training batch ("latents"), or with
            the means of its clusters ("kmeans"); None for random rows.
        dead_after: latents per row after which an unused row is dead (see `DeadCodeTracker`); None for no
            restarts.
        decay: rows are moving averages of the latents that chose them, with this decay per optimizer step
            (arXiv:1711.00937, appendix A.1); None for rows trained by the optimizer.
    """

    initialized: Bool[Tensor, ""]
    weight: Float[Tensor, "size dim"]
    counts: Float[Tensor, " size"]
    sums: Float[Tensor, "size dim"]

    def __init__(
        self,
        size: int,
        dim: int,
        codebook_init: CodebookInit | None = "latents",
        dead_after: float | None = 64.0,
        decay: float | None = None,
    ):
        super().__init__()
        self.size, self.dim, self.codebook_init, self.decay = size, dim, codebook_init, decay
        weight = torch.randn(size, dim) * dim**-0.5
        if decay is None:
            self.weight = nn.Parameter(weight)
        else:
            self.register_buffer("weight", weight)
            self.register_buffer("counts", torch.ones(size))  # moving averages of choices per row,
            self.register_buffer("sums", weight.clone())  # and of the sums of the latents that chose it
        self.register_buffer("initialized", torch.tensor(False))
        self.dead_codes = DeadCodeTracker(size, dead_after)
        self.gathered: Tensor | None = None  # sum and number of latents per row since the last step

    @property
    def rows(self) -> Float[Tensor, "{self.size} {self.dim}"]:
        """The table in float32."""
        return self.weight.float()

    def forward(self, codes: Int[Tensor, "*shape"]) -> Float[Tensor, "*shape {self.dim}"]:
        """Return the rows of codes."""
        return F.embedding(codes, self.rows)

    @torch.no_grad()
    def initialize(self, latents: Float[Tensor, "n {self.dim}"]) -> bool:
        """Initialize the rows from the first finite latents; return True if these are the ones."""
        if self.codebook_init is None or self.initialized:
            return False
        rows = (
            kmeans(latents, self.size)
            if self.codebook_init == "kmeans"
            else random_latents(latents, self.size)
        )
        if finite := bool(rows.isfinite().all()):
            self.place(torch.arange(self.size, device=rows.device), rows)
            self.initialized.fill_(True)
        return finite

    @torch.no_grad()
    def observe(self, latents: Float[Tensor, "n {self.dim}"], codes: Int[Tensor, " n"]) -> None:
        """Count the codes, and keep the latents for restarts."""
        self.dead_codes.observe(latents, codes)
        if self.decay is not None:
            before = latents.new_zeros(self.size, self.dim + 1) if self.gathered is None else self.gathered
            self.gathered = before.index_add_(0, codes, F.pad(latents.detach(), (0, 1), value=1.0))

    @torch.no_grad()
    def after_step(self, skipped: bool) -> None:
        """Update averages, and restart dead rows from the latest latents; ignore a skipped step."""
        gathered, self.gathered = self.gathered, None
        if gathered is not None and not skipped:
            self.average(all_reduce_sum(gathered))
        dead, latents = self.dead_codes.after_step(skipped)
        if len(dead):
            self.place(dead, random_latents(latents, len(dead)))

    def average(self, gathered: Float[Tensor, "{self.size} _"]) -> None:
        """Move chosen rows to the average of their latents; other rows stay."""
        assert self.decay is not None
        sums, chosen = gathered[:, :-1], gathered[:, -1]
        self.counts.lerp_(chosen, 1 - self.decay)
        self.sums.lerp_(sums, 1 - self.decay)
        moved = (chosen > 0).nonzero().squeeze(1)
        self.weight[moved] = self.sums[moved] / self.counts[moved, None]

    def place(self, numbers: Int[Tensor, " n"], rows: Float[Tensor, "n {self.dim}"]) -> None:
        """Set rows, and reset their averages."""
        self.weight[numbers] = rows.to(self.weight.dtype)
        if self.decay is not None:
            self.sums[numbers] = rows
            self.counts[numbers] = 1.0
