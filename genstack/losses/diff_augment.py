"""DiffAugment: augmentation of real and fake images for the discriminator (arXiv:2006.10738)."""

from dataclasses import dataclass

import torch
from einops import rearrange, reduce
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn.functional import pad

from genstack.errors import UserError


@dataclass(frozen=True)
class DiffAugment:
    """Colour, translation and cutout before the discriminator, against overfitting to few images.

    It is differentiable, so the compressor does not learn to imitate it. Images are augmented independently.

    Args:
        colour: strength of random brightness, saturation and contrast; 1 as in the paper, 0 for none.
        translation: largest shift, as a share of the sides; 0 for none.
        cutout: sides of the grey square, as a share of the sides; 0 for none.
    """

    colour: float = 1.0
    translation: float = 0.125
    cutout: float = 0.5

    def __post_init__(self) -> None:
        for name in ("colour", "translation", "cutout"):
            if not 0 <= getattr(self, name) <= 1:
                raise UserError(
                    f"{name} {getattr(self, name)} of DiffAugment is out of range; it must be from 0 to 1"
                )

    def __call__(self, images: Float[Tensor, "b c H W"]) -> Float[Tensor, "b c H W"]:
        if self.colour:
            images = recolour(images, self.colour)
        if self.translation:
            images = translate(images, self.translation)
        return cut_out(images, self.cutout) if self.cutout else images


def recolour(images: Float[Tensor, "b c H W"], strength: float) -> Float[Tensor, "b c H W"]:
    """Change brightness, saturation and contrast at random; transparency is kept."""
    colours, rest = images[:, :3], images[:, 3:]
    brightness, saturation, contrast = strength * (torch.rand(3, len(images), 1, 1, 1).to(images) - 0.5)
    colours = colours + brightness
    grey = reduce(colours, "b c H W -> b 1 H W", "mean")
    colours = grey + (1 + 2 * saturation) * (colours - grey)
    mean = reduce(colours, "b c H W -> b 1 1 1", "mean")
    return torch.cat([mean + (1 + contrast) * (colours - mean), rest], dim=1)


def translate(images: Float[Tensor, "b c H W"], share: float) -> Float[Tensor, "b c H W"]:
    """Shift each image by whole pixels; the border is grey."""
    height, width = images.shape[-2:]
    down, right = (round_half_up(share * side) for side in (height, width))
    rows = torch.arange(height) + down + torch.randint(-down, down + 1, (len(images), 1))
    columns = torch.arange(width) + right + torch.randint(-right, right + 1, (len(images), 1))
    padded = rearrange(pad(images, (right, right, down, down)), "b c H W -> b H W c")
    number = rearrange(torch.arange(len(images)), "b -> b 1 1")
    moved = padded[number, rearrange(rows, "b H -> b H 1"), rearrange(columns, "b W -> b 1 W")]
    return rearrange(moved, "b H W c -> b c H W")


def cut_out(images: Float[Tensor, "b c H W"], share: float) -> Float[Tensor, "b c H W"]:
    """Paint a grey square at a random position, also across the edge."""
    rows, columns = (intervals(len(images), side, round_half_up(share * side)) for side in images.shape[-2:])
    square = rearrange(rows, "b H -> b 1 H 1") & rearrange(columns, "b W -> b 1 1 W")
    return images * ~square.to(images.device)


def intervals(count: int, side: int, length: int) -> Bool[Tensor, "b s"]:
    """Return masks of random intervals, one per image, with their middle on the side."""
    middle: Int[Tensor, "b 1"] = torch.randint(0, side + 1 - length % 2, (count, 1))
    first = middle - length // 2
    places = torch.arange(side)
    return (places >= first) & (places < first + length)


def round_half_up(number: float) -> int:
    return int(number + 0.5)
