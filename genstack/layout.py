"""Layout of the codes or latents of one image: all that a prior knows of its compressor."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from math import log2, prod
from typing import ClassVar

import torch
from einops import rearrange, repeat
from jaxtyping import Bool, Float, Int, Shaped
from torch import Tensor

from genstack.errors import UserError


@dataclass(frozen=True)
class Positions:
    """Position of each of the n codes, one int64 tensor of length n per coordinate."""

    grid: Int[Tensor, " n"]
    row: Int[Tensor, " n"]
    column: Int[Tensor, " n"]
    depth: Int[Tensor, " n"]


#: Symbols of more values are counted in parts of at most `PART` values.
COUNTED = 2**20
PART = 2**10


class Layout(ABC):
    """An encoded image: codes (`CodeLayout`), or latents without codes (`LatentLayout`).

    `grids` are the height and width of each grid, coarse to fine; `depth` is the number of symbols per
    position. A mask of values is True for some positions.
    """

    image_size: tuple[int, int]
    grids: tuple[tuple[int, int], ...]
    depth: int
    #: Words for the encoded image, such as "codes".
    unit: ClassVar[str]

    @property
    def length(self) -> int:
        """Number of codes, or of positions of latents."""
        return self.depth * sum(prod(grid) for grid in self.grids)

    def positions(self) -> Positions:
        """Grid, row, column and depth of every code, in the order of the flat sequence."""
        grids = [
            torch.stack(torch.meshgrid(*map(torch.arange, (height, width, self.depth)), indexing="ij"))
            for height, width in self.grids
        ]
        flat = [rearrange(grid, "coordinate h w depth -> coordinate (h w depth)") for grid in grids]
        row, column, depth = torch.cat(flat, dim=1)
        grid = [torch.full((prod(grid) * self.depth,), number) for number, grid in enumerate(self.grids)]
        return Positions(torch.cat(grid), row, column, depth)

    @property
    @abstractmethod
    def representation(self) -> str:
        """The codes or latents of an image, in words."""

    @property
    @abstractmethod
    def bits(self) -> float:
        """Bits of an encoded image; latents count in half precision."""

    @abstractmethod
    def zeros(self, images: int) -> Shaped[Tensor, "b ..."]:
        """Codes or latents of zero."""

    @abstractmethod
    def mask(self, cells: Sequence[Bool[Tensor, "_ _"]], images: int) -> Bool[Tensor, "b ..."]:
        """Mask of values from the marked cells of each grid, the same for all images."""

    @abstractmethod
    def to_grid(self, values: Shaped[Tensor, "b ..."]) -> Shaped[Tensor, "b h w k"]:
        """Values, or a mask, as one grid; only for layouts with one."""

    @abstractmethod
    def from_grid(self, grid: Shaped[Tensor, "b h w k"]) -> Shaped[Tensor, "b ..."]:
        """Values of a grid; the inverse of `to_grid`."""

    @abstractmethod
    def random(self, images: int, generator: torch.Generator) -> Shaped[Tensor, "b ..."]:
        """Random codes or latents that a decoder can read."""

    @abstractmethod
    def changed(
        self, before: Shaped[Tensor, "b ..."], after: Shaped[Tensor, "b ..."]
    ) -> list[Bool[Tensor, "b _ _"]]:
        """Mark the positions of each grid at which two encoded images differ clearly."""


@dataclass(frozen=True)
class CodeLayout(Layout):
    """Grids of codes. The flat order is grid by grid (coarse to fine), row by row, depth innermost.

    Args:
        image_size: height and width of the encoded image.
        codebook_size: number of values of one symbol, the same for all grids and depths.
        grids: height and width of each grid of codes, coarse to fine. One grid for VQ, `((1, 32),)` for 32
            codes of a 1-D compressor, two or more for hierarchical and multi-scale codes.
        depth: symbols per position (residual, grouped and factorized codes have several).
    """

    image_size: tuple[int, int]
    codebook_size: int
    grids: tuple[tuple[int, int], ...]
    depth: int = 1
    unit = "codes"

    def __post_init__(self) -> None:
        sides = (
            *self.image_size,
            self.codebook_size,
            self.depth,
            *(side for grid in self.grids for side in grid),
        )
        if not self.grids or min(sides) < 1:
            raise UserError(f"sizes of a code layout must be at least 1, with at least one grid; got {self}")

    @property
    def representation(self) -> str:
        return f"{self.length} codes of {self.codebook_size}"

    @property
    def bits(self) -> float:
        return self.length * log2(self.codebook_size)

    def split(self, codes: Int[Tensor, "b n"]) -> list[Int[Tensor, "b _ _ depth"]]:
        """Split a flat sequence into one tensor per grid."""
        if codes.shape[1] != self.length:
            raise UserError(f"{codes.shape[1]} codes do not fit a layout of {self.length}: {self}")
        parts = codes.split([prod(grid) * self.depth for grid in self.grids], dim=1)
        return [
            rearrange(part, "b (h w depth) -> b h w depth", h=height, depth=self.depth)
            for part, (height, _) in zip(parts, self.grids, strict=True)
        ]

    def join(self, grids: Sequence[Int[Tensor, "b _ _ depth"]]) -> Int[Tensor, "b n"]:
        """Join grids into the flat sequence; the inverse of `split`."""
        shapes = tuple(tuple(grid.shape[1:]) for grid in grids)
        if shapes != tuple((*grid, self.depth) for grid in self.grids):
            raise UserError(f"grids of shapes {shapes} do not fit {self}")
        return torch.cat([rearrange(grid, "b h w depth -> b (h w depth)") for grid in grids], dim=1)

    def zeros(self, images: int) -> Int[Tensor, "b n"]:
        return torch.zeros(images, self.length, dtype=torch.int64)

    def mask(self, cells: Sequence[Bool[Tensor, "_ _"]], images: int) -> Bool[Tensor, "b n"]:
        grids = [repeat(grid, "h w -> b (h w depth)", b=images, depth=self.depth) for grid in cells]
        return torch.cat(grids, dim=1)

    def to_grid(self, values: Shaped[Tensor, "b n"]) -> Shaped[Tensor, "b h w depth"]:
        ((height, _),) = self.grids
        return rearrange(values, "b (h w depth) -> b h w depth", h=height, depth=self.depth)

    def from_grid(self, grid: Shaped[Tensor, "b h w depth"]) -> Shaped[Tensor, "b n"]:
        return rearrange(grid, "b h w depth -> b (h w depth)")

    def random(self, images: int, generator: torch.Generator) -> Int[Tensor, "b n"]:
        return torch.randint(self.codebook_size, (images, self.length), generator=generator)

    def changed(self, before: Int[Tensor, "b n"], after: Int[Tensor, "b n"]) -> list[Bool[Tensor, "b _ _"]]:
        pairs = zip(self.split(before), self.split(after), strict=True)
        return [(old != new).any(dim=-1) for old, new in pairs]

    @property
    def parts(self) -> tuple[int, ...]:
        """Number of values of each part of a symbol: one part up to 2^20 values, digits of base 2^10 beyond.

        Frequencies are counted by parts, since no set of images shows 2^32 values.
        """
        if self.codebook_size <= COUNTED:
            return (self.codebook_size,)
        sizes, rest = [], self.codebook_size
        while rest > 1:
            sizes.append(min(PART, rest))
            rest = -(-rest // PART)
        return tuple(sizes)

    def split_parts(self, codes: Int[Tensor, "b n"]) -> Int[Tensor, "b n part"]:
        """Split symbols into `parts`, the lowest digit first."""
        if len(self.parts) == 1:
            return codes[..., None]
        digits = [codes // PART**number % PART for number in range(len(self.parts))]
        return torch.stack(digits, dim=-1)

    def count_parts(self, codes: Int[Tensor, "b n"]) -> Int[Tensor, " values"]:
        """Count each value of each part, part by part."""
        first = torch.tensor([sum(self.parts[:number]) for number in range(len(self.parts))])
        numbers = self.split_parts(codes) + first.to(codes.device)
        return torch.bincount(numbers.flatten(), minlength=sum(self.parts))

    def unigram_nats(self, counts: Int[Tensor, " values"]) -> float:
        """Entropy of a symbol by the frequencies of its parts, in nats; exact for one part.

        Args:
            counts: sums of `count_parts`.
        """
        frequencies = [part / part.sum() for part in counts.cpu().double().split(self.parts)]
        return sum(float(torch.special.entr(part).sum()) for part in frequencies)

    def joint(self, codes: Int[Tensor, "b n"]) -> Int[Tensor, "b positions"]:
        """Combine the `depth` symbols of each position into one number, as usage and perplexity count them.

        Raises:
            UserError: codebook_size ** depth does not fit 63 bits.
        """
        if self.codebook_size**self.depth >= 2**63:
            raise UserError(f"{self.codebook_size} ** {self.depth} joint codes do not fit an int64")
        place_value = self.codebook_size ** torch.arange(self.depth, device=codes.device)
        return (
            rearrange(codes, "b (position depth) -> b position depth", depth=self.depth) * place_value
        ).sum(-1)


@dataclass(frozen=True)
class LatentLayout(Layout):
    """A grid of latents without codes, `b d h w`; masks of them are `b 1 h w`.

    Args:
        image_size: height and width of the encoded image.
        dim: channels of the latents.
        grids: height and width of the grid, of which there is one.
    """

    image_size: tuple[int, int]
    dim: int
    grids: tuple[tuple[int, int], ...]
    depth = 1
    unit = "latents in half precision"

    def __post_init__(self) -> None:
        sides = (*self.image_size, self.dim, *(side for grid in self.grids for side in grid))
        if len(self.grids) != 1 or min(sides) < 1:
            raise UserError(f"sizes of a layout of latents must be at least 1, on one grid; got {self}")

    @property
    def shape(self) -> tuple[int, int, int]:
        """Channels, height and width of the latents of one image."""
        return (self.dim, *self.grids[0])

    def patches(self, side: int) -> "LatentLayout":
        """Layout of square patches, each of which is one position.

        Raises:
            UserError: the grid is not made of whole patches.
        """
        height, width = self.grids[0]
        if side < 1 or height % side or width % side:
            raise UserError(
                f"patches of {side}x{side} do not divide latents of {height}x{width}; use patch 1, or images "
                f"of another size"
            )
        return LatentLayout(self.image_size, self.dim * side**2, ((height // side, width // side),))

    @property
    def representation(self) -> str:
        dim, height, width = self.shape
        return f"latents of {height}x{width}, {dim} channel{'s' * (dim > 1)}"

    @property
    def bits(self) -> float:
        return 16.0 * prod(self.shape)

    def zeros(self, images: int) -> Float[Tensor, "b d h w"]:
        return torch.zeros(images, *self.shape)

    def mask(self, cells: Sequence[Bool[Tensor, "_ _"]], images: int) -> Bool[Tensor, "b 1 h w"]:
        (grid,) = cells
        return repeat(grid, "h w -> b 1 h w", b=images)

    def to_grid(self, values: Shaped[Tensor, "b k h w"]) -> Shaped[Tensor, "b h w k"]:
        return rearrange(values, "b k h w -> b h w k")

    def from_grid(self, grid: Shaped[Tensor, "b h w k"]) -> Shaped[Tensor, "b k h w"]:
        return rearrange(grid, "b h w k -> b k h w")

    def random(self, images: int, generator: torch.Generator) -> Float[Tensor, "b d h w"]:
        return torch.randn(images, *self.shape, generator=generator)

    def changed(
        self, before: Float[Tensor, "b d h w"], after: Float[Tensor, "b d h w"]
    ) -> list[Bool[Tensor, "b _ _"]]:
        """Mark positions that move by over a tenth of the latents' standard deviation."""
        deviation = before.std(dim=(0, 2, 3), keepdim=True).clamp(min=1e-12)
        return [((after - before) / deviation).square().mean(dim=1) > 0.1**2]
