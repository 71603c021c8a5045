"""Multi-scale residual quantization (VAR, arXiv:2404.02905, algorithm 1; Infinity, arXiv:2412.04431)."""

from abc import abstractmethod
from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Float, Int
from torch import Tensor, nn

from genstack.compressor.bottleneck import Quantized, Quantizer
from genstack.compressor.quantizers.bsq import BSQ
from genstack.compressor.quantizers.check import check
from genstack.compressor.quantizers.codebook import Codebook, CodebookInit
from genstack.compressor.quantizers.corners import BitQuantizer
from genstack.compressor.quantizers.estimator import straight_through
from genstack.compressor.quantizers.nearest import nearest
from genstack.errors import UserError
from genstack.layout import CodeLayout


class Scales(Quantizer):
    """Replace latents by a sum of grids of codes, coarse to fine; each grid quantizes the residual.

    Args:
        scales: sides of the grids relative to the last, which has the size of the latents.
    """

    def __init__(self, scales: tuple[int, ...]):
        super().__init__()
        if not scales or min(scales) < 1 or list(scales) != sorted(set(scales)):
            raise UserError(f"scales {scales} must increase from at least 1, such as [1, 2, 4, 8]")
        self.scales = tuple(scales)

    @abstractmethod
    def upsample(
        self, grid: Int[Tensor, "b _ _ {self.depth}"], number: int, height: int, width: int
    ) -> Float[Tensor, "b {self.dim} {height} {width}"]:
        """Upsample a grid to its contribution to the latents."""

    def lookup(self, codes: Int[Tensor, "b n"], layout: CodeLayout) -> Float[Tensor, "b {self.dim} h w"]:
        return self.partial(layout.split(codes), layout)

    def partial(
        self, grids: Sequence[Int[Tensor, "b _ _ depth"]], layout: CodeLayout
    ) -> Float[Tensor, "b {self.dim} h w"]:
        """Sum the first grids at full size, as many as given; priors use it while sampling."""
        height, width = layout.grids[-1]
        with torch.autocast(grids[0].device.type, enabled=False):
            total = torch.zeros(len(grids[0]), self.dim, height, width, device=grids[0].device)
            for number, grid in enumerate(grids):
                total = total + self.upsample(grid, number, height, width)
        return total

    def layout(self, image_size: tuple[int, int], height: int, width: int) -> CodeLayout:
        grids = tuple((self.side(height, scale), self.side(width, scale)) for scale in self.scales)
        return CodeLayout(image_size, self.codebook_size, grids, self.depth)

    def side(self, full: int, scale: int) -> int:
        """Return the side of a grid for the full side of latents: in proportion, rounded, at least 1."""
        last = self.scales[-1]
        return max(1, (2 * full * scale + last) // (2 * last))


class MultiScale(Scales):
    """Multi-scale quantization with one table for all grids, as in VAR.

    Residuals are downsampled by averaging; grids are upsampled by bicubic interpolation and smoothed by a
    convolution. Next-scale priors need this quantizer or `MultiScaleResidual`.

    Args:
        scales: sides of the grids relative to the last, which has the size of the latents; VAR's are
            `[1, 2, 3, 4, 5, 6, 8, 10, 13, 16]` for latents of 16x16.
        codebook_size: number of rows (codes).
        dim: dimensions of a row.
        codebook_weight: weight of the codebook loss, which pulls the sums of rows to the latents.
        commitment_weight: weight of the commitment loss, which pulls latents to these sums.
        smoothing: share of the convolution's output in each upsampled grid.
        convolutions: number of convolutions, shared by neighbouring scales.
        codebook_init: initialize rows with random latents of the first training batch (latents), or with
            the means of its clusters (kmeans); null for random rows.
        dead_after: restart a row from a random residual once this many residuals per row have passed without
            choosing it; null for no restarts.
    """

    def __init__(
        self,
        scales: tuple[int, ...] = (1, 2, 3, 4),
        codebook_size: int = 512,
        dim: int = 32,
        codebook_weight: float = 1.0,
        commitment_weight: float = 0.25,
        smoothing: float = 0.5,
        convolutions: int = 4,
        codebook_init: CodebookInit | None = "latents",
        dead_after: float | None = 16.0,
    ):
        super().__init__(scales)
        check("codebook_size", codebook_size, codebook_size >= 1, "1 or more")
        check("codebook_weight", codebook_weight, codebook_weight >= 0, "0 or more")
        check("commitment_weight", commitment_weight, commitment_weight >= 0, "0 or more")
        check("smoothing", smoothing, 0 <= smoothing <= 1, "0 to 1")
        check("convolutions", convolutions, convolutions >= 1, "1 or more")
        self.codebook_size, self.dim = codebook_size, dim
        self.codebook_weight, self.commitment_weight = codebook_weight, commitment_weight
        self.smoothing, self.convolutions = smoothing, convolutions
        self.codebook_init, self.dead_after = codebook_init, dead_after
        self.codebook = Codebook(codebook_size, dim, codebook_init, dead_after)
        self.smoothers = nn.ModuleList(nn.Conv2d(dim, dim, 3, padding=1) for _ in range(convolutions))

    def forward(self, latents: Float[Tensor, "b {self.dim} h w"]) -> Quantized:
        with torch.autocast(latents.device.type, enabled=False):
            soft = latents.float()
            target = soft.detach()
            if self.training:
                self.codebook.initialize(flatten(target))
            layout = self.layout((1, 1), *latents.shape[2:])
            total, grids, downsampled, codebook, commitment = torch.zeros_like(target), [], [], [], []
            for number, size in enumerate(layout.grids):
                downsampled.append(flatten(resize(target - total.detach(), size, "area")))
                codes = nearest(downsampled[-1], self.codebook.rows)
                grids.append(rearrange(codes, "(b h w) -> b h w 1", b=len(latents), h=size[0]))
                total = total + self.upsample(grids[-1], number, latents.shape[2], latents.shape[3])
                codebook.append(F.mse_loss(total, target))
                commitment.append(F.mse_loss(soft, total.detach()))
            if self.training:
                self.codebook.observe(torch.cat(downsampled), torch.cat([grid.flatten() for grid in grids]))
        losses = {
            "codebook": self.codebook_weight * torch.stack(codebook).mean(),
            "commitment": self.commitment_weight * torch.stack(commitment).mean(),
        }
        return Quantized(straight_through(total, soft), losses, codes=layout.join(grids))

    def upsample(
        self, grid: Int[Tensor, "b _ _ 1"], number: int, height: int, width: int
    ) -> Float[Tensor, "b {self.dim} {height} {width}"]:
        rows = rearrange(self.codebook(grid), "b h w 1 d -> b d h w")
        rows = resize(rows, (height, width), "bicubic")
        smooth = self.smoothers[smoother_index(number, len(self.scales), self.convolutions)]
        return torch.lerp(rows, smooth(rows), self.smoothing)

    def after_step(self, skipped: bool) -> None:
        self.codebook.after_step(skipped)


class MultiScaleResidual(Scales):
    """Multi-scale quantization by any quantizer, such as BSQ, LFQ or FSQ (arXiv:2412.04431).

    With BSQ it is the bitwise residual quantizer of Infinity (section 3.1). Residuals are downsampled by
    averaging, and grids are upsampled by bicubic interpolation.

    Args:
        quantizer: quantizer of each grid; null for BSQ of 10 bits.
        scales: sides of the grids relative to the last, which has the size of the latents.
        commitment_weight: weight of the commitment loss, which pulls latents to the sums of grids.
    """

    def __init__(
        self,
        quantizer: Quantizer | None = None,
        scales: tuple[int, ...] = (1, 2, 3, 4),
        commitment_weight: float = 0.25,
    ):
        super().__init__(scales)
        check("commitment_weight", commitment_weight, commitment_weight >= 0, "0 or more")
        self.quantizer = quantizer
        self.default = BSQ() if quantizer is None else None
        quantizer = self.of_grid
        self.commitment_weight = commitment_weight
        self.dim, self.codebook_size, self.depth = quantizer.dim, quantizer.codebook_size, quantizer.depth

    @property
    def of_grid(self) -> Quantizer:
        """The quantizer of each grid."""
        quantizer = self.quantizer or self.default
        assert quantizer is not None
        return quantizer

    def forward(self, latents: Float[Tensor, "b {self.dim} h w"]) -> Quantized:
        with torch.autocast(latents.device.type, enabled=False):
            soft = latents.float()
            total, grids, commitment = torch.zeros_like(soft.detach()), [], []
            losses: dict[str, list[Tensor]] = {}
            layout = self.layout((1, 1), *latents.shape[2:])
            for number, (height, width) in enumerate(layout.grids):
                part = self.of_grid(resize(soft - total, (height, width), "area"))
                for name, loss in part.losses.items():
                    losses.setdefault(name, []).append(loss)
                grids.append(rearrange(part.codes, "b (h w depth) -> b h w depth", h=height, w=width))
                total = total + self.upsample(grids[-1], number, latents.shape[2], latents.shape[3])
                commitment.append(F.mse_loss(soft, total))
        means = {name: torch.stack(each).mean() for name, each in losses.items()}
        means["sums"] = self.commitment_weight * torch.stack(commitment).mean()
        return Quantized(straight_through(total, soft), means, codes=layout.join(grids))

    @property
    def has_bits(self) -> bool:
        """True if codes are bits, which `encode_flipped` flips."""
        return isinstance(self.of_grid, BitQuantizer)

    @torch.no_grad()
    def encode_flipped(
        self, latents: Float[Tensor, "b {self.dim} h w"], largest: float
    ) -> Int[Tensor, "b two=2 n"]:
        """Encode with random flips, which finer grids correct (arXiv:2412.04431, algorithm 2).

        Each grid quantizes what the flipped coarser grids leave. Returns pairs of codes: before the flips,
        which a prior predicts, and after them, which it reads. The last grid is not flipped.

        Args:
            latents: the latents.
            largest: largest share of flipped bits; drawn for each image and grid, uniformly from 0 on.
        """
        quantizer = self.of_grid
        assert isinstance(quantizer, BitQuantizer)
        with torch.autocast(latents.device.type, enabled=False):
            soft = latents.float()
            total, targets, inputs = torch.zeros_like(soft), [], []
            layout = self.layout((1, 1), *latents.shape[2:])
            for number, (height, width) in enumerate(layout.grids):
                codes = quantizer(resize(soft - total, (height, width), "area")).codes
                targets.append(rearrange(codes, "b (h w depth) -> b h w depth", h=height, w=width))
                inputs.append(targets[-1])
                if number + 1 < len(layout.grids):
                    share = largest * torch.rand(len(soft), 1, 1, 1, device=soft.device)
                    chances = torch.rand(len(soft), height, width, quantizer.bits, device=soft.device)
                    inputs[-1] = quantizer.corners.flip(targets[-1], chances < share)
                total = total + self.upsample(inputs[-1], number, latents.shape[2], latents.shape[3])
        return torch.stack([layout.join(targets), layout.join(inputs)], dim=1)

    def upsample(
        self, grid: Int[Tensor, "b _ _ {self.depth}"], number: int, height: int, width: int
    ) -> Float[Tensor, "b {self.dim} {height} {width}"]:
        layout = self.of_grid.layout((1, 1), grid.shape[1], grid.shape[2])
        vectors = self.of_grid.lookup(layout.join([grid]), layout)
        return resize(vectors, (height, width), "bicubic")

    def after_step(self, skipped: bool) -> None:
        self.of_grid.after_step(skipped)


def smoother_index(number: int, scales: int, convolutions: int) -> int:
    """Return the index of the convolution nearest to a scale; convolutions are spread evenly over the scales.

    As in VAR, four convolutions leave a third of their spacing at either end, other numbers a half.
    """
    margin = 1 / (3 if convolutions == 4 else 2) / convolutions
    place = number / max(1, scales - 1)
    ticks = np.linspace(margin, 1 - margin, convolutions)
    return int(np.abs(ticks - place).argmin())


def resize(grid: Float[Tensor, "b d _ _"], size: tuple[int, int], mode: str) -> Float[Tensor, "b d _ _"]:
    """Resize a grid."""
    return grid if tuple(grid.shape[2:]) == size else F.interpolate(grid, size, mode=mode)


def flatten(latents: Float[Tensor, "b d h w"]) -> Float[Tensor, "n d"]:
    """Flatten latents to rows."""
    return rearrange(latents, "b d h w -> (b h w) d")
