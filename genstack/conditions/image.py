"""Another image: a segmentation map, a depth map, edges or a small picture, as tokens before the codes.

Taming transformers (Esser et al. 2021, arXiv:2012.09841, section 3.2) put the codes of such an image before
those to predict; here a few convolutions make the tokens, and are trained along.
"""

from dataclasses import dataclass, replace
from itertools import pairwise
from math import log2
from typing import Literal

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from genstack.conditions.condition import Condition, check_dropout, in_turn, only
from genstack.conditions.embedding import ConditionEmbedding
from genstack.errors import UserError
from genstack.inputs import ConditionInputs, DataInfo, Prompts

LUMA = (0.299, 0.587, 0.114)  # ITU-R 601


@dataclass(frozen=True)
class ConditionImage(Condition):
    """Another image of the same height and width, as one token for each of its patches.

    Which image that is, `data.condition_images` says; without it, each picture steers itself, which is what
    `low_resolution` and `edges` are for.

    Args:
        view: what the prior sees of the image: plain (all), low_resolution (means of squares), or edges.
        factor: side in pixels of the squares of `low_resolution`.
        patch: side in pixels of a token's patch, a power of 2; height and width are multiples of it.
        dropout: share of training samples that see no image; 0 makes guidance impossible.
        shape: channels, height and width of the image; set from the data.
    """

    view: Literal["plain", "low_resolution", "edges"] = "plain"
    factor: int = 8
    patch: int = 8
    dropout: float = 0.1
    shape: tuple[int, int, int] = (3, 0, 0)

    def __post_init__(self) -> None:
        check_dropout(self.dropout)
        if self.patch < 1 or self.patch & (self.patch - 1):
            raise UserError(f"patch {self.patch} is no power of 2; use 1, 2, 4, 8, 16 or 32")
        if self.factor < 1:
            raise UserError(f"factor {self.factor} is out of range; it is at least 1")
        _, height, width = self.shape
        if height % self.patch or width % self.patch:
            raise UserError(
                f"condition images of {height} x {width} are no multiple of the patch of {self.patch}; "
                f"use a smaller `patch`, or another data.resolution"
            )

    @property
    def length(self) -> int:  # type: ignore[override]
        _, height, width = self.shape
        return (height // self.patch) * (width // self.patch)

    @property
    def channels(self) -> int:
        """Those of the view."""
        return 1 if self.view == "edges" else self.shape[0]

    def of(self, offer: DataInfo) -> "ConditionImage":
        if not all(offer.image_shape):
            raise UserError(
                "the data has no condition images: these codes were made without; encode again with "
                "--data.condition_images, or use another condition"
            )
        return replace(self, shape=offer.image_shape)

    def values(self, facts: ConditionInputs) -> Float[Tensor, "b c H W"]:
        """The view, with a channel of ones behind it: there is an image."""
        view = facts.image_of_each
        if view is None:
            nothing = torch.zeros(len(facts), self.channels + 1, *self.shape[1:])
            return nothing.to(facts.labels.device)
        if self.view == "low_resolution":
            view = low_resolution(view, self.factor)
        if self.view == "edges":
            view = edges(view)
        return torch.cat([view, torch.ones_like(view[:, :1])], dim=1)

    def null(self, values: Float[Tensor, "b c H W"]) -> Float[Tensor, "b c H W"]:
        return torch.zeros_like(values)

    def embedding(self, width: int) -> ConditionEmbedding:
        return PatchEncoder(self.channels + 1, self.patch, self.length, width)

    def choose(self, wishes: Prompts, count: int) -> ConditionInputs:
        """The images asked for in turn; without any, images of all kinds."""
        return chosen(wishes, count, self.dropout)

    def shown(self, held_out: ConditionInputs) -> ConditionInputs:
        return ConditionInputs(torch.zeros_like(held_out.labels), images=held_out.images)

    def tell(self, facts: ConditionInputs) -> list[dict[str, str]]:
        return told(facts)


def chosen(wishes: Prompts, count: int, dropout: float) -> ConditionInputs:
    """Inputs for the condition images asked for, in turn; without any, of nothing.

    Args:
        wishes: what was asked for.
        count: number of images.
        dropout: share of training samples that saw no condition image.
    """
    only(wishes, "condition images", "on condition images")
    if wishes.images is None:
        if dropout == 0:
            raise UserError(
                "this prior was trained with a condition image for every image; give a folder of them: "
                "--condition-images DIR"
            )
        return ConditionInputs.nothing(count)
    turns = list(in_turn(range(len(wishes.images)), count))
    names = tuple(wishes.image_names[turn] for turn in turns) if wishes.image_names else ()
    return replace(
        ConditionInputs.nothing(count), images=wishes.images, image_names=names, turns=torch.tensor(turns)
    )


def told(facts: ConditionInputs) -> list[dict[str, str]]:
    """The name of each condition image, for people and for files."""
    return [{"condition_image": name} for name in facts.image_names] or [{}] * len(facts)


def luma(images: Float[Tensor, "b c H W"]) -> Float[Tensor, "b 1 H W"]:
    """The brightness of images of any number of channels."""
    colours = images[:, :3]
    shares = torch.tensor(LUMA if colours.shape[1] == 3 else (1.0,), device=images.device)
    return rearrange(torch.einsum("bchw,c->bhw", colours, shares), "b h w -> b 1 h w")


def low_resolution(images: Float[Tensor, "b c H W"], factor: int) -> Float[Tensor, "b c H W"]:
    """The mean of each square, all over it; squares at the lower and right edge may be smaller."""
    size = images.shape[-2:]
    means = functional.avg_pool2d(images, factor, ceil_mode=True)
    large = means.repeat_interleave(factor, dim=-2).repeat_interleave(factor, dim=-1)
    return large[..., : size[0], : size[1]]


def edges(images: Float[Tensor, "b c H W"]) -> Float[Tensor, "b 1 H W"]:
    """How steep the brightness is (Sobel), from -1 for even to 1 for a step from black to white."""
    padded = functional.pad(luma(images), (1, 1, 1, 1), mode="replicate")
    across = torch.tensor([[-1.0, 0.0, 1.0], [-2.0, 0.0, 2.0], [-1.0, 0.0, 1.0]], device=images.device) / 8
    kernels = rearrange(torch.stack([across, across.T]), "way h w -> way 1 h w")
    slopes = functional.conv2d(padded, kernels)  # a step of 2 from black to white slopes by 1
    return (slopes.square().sum(dim=1, keepdim=True).sqrt() * 2 - 1).clamp(max=1)


class PatchEncoder(ConditionEmbedding):
    """Images to a token for each patch, by convolutions that each halve the sides: `b c H W -> b n width`.

    Args:
        channels: of the images.
        patch: side of a patch in pixels, a power of 2.
        length: number of patches.
        width: channels of a token.
    """

    def __init__(self, channels: int, patch: int, length: int, width: int):
        super().__init__()
        halvings = int(log2(patch))
        widths = [max(8, width >> (halvings - step)) for step in range(halvings)] + [width]
        layers: list[nn.Module] = [nn.Conv2d(channels, widths[0], 3, padding=1)]
        for before, after in pairwise(widths):
            layers += [nn.SiLU(), nn.Conv2d(before, after, 4, stride=2, padding=1)]
        self.layers = nn.Sequential(*layers)
        self.places = nn.Embedding(length, width)
        nn.init.normal_(self.places.weight, std=0.02)

    def forward(self, values: Float[Tensor, "b c H W"]) -> Float[Tensor, "b n width"]:
        return rearrange(self.layers(values), "b d h w -> b (h w) d") + self.places.weight
