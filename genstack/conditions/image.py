"""Condition images, such as segmentation maps, depth maps, edges or small pictures, as prefix tokens.

Taming transformers (Esser et al. 2021, arXiv:2012.09841, section 3.2) use the codes of such an image; here a
small convolutional network, trained with the prior, makes the tokens.
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

from genstack.conditions.condition import Condition, check_dropout
from genstack.conditions.embedding import ConditionEmbedding
from genstack.conditions.modality import Modality, cycle
from genstack.errors import UserError
from genstack.inputs import ConditionInputs, DataInfo, Prompts

LUMA = (0.299, 0.587, 0.114)  # ITU-R 601


@dataclass(frozen=True)
class ConditionImage(Condition):
    """A condition image of the same height and width, one token per patch.

    `data.condition_images` names the images; without it each image is its own condition, which suits the
    views `low_resolution` and `edges`.

    Args:
        view: what the prior sees of the image: plain (all), low_resolution (means of squares), or edges.
        factor: side in pixels of the squares of `low_resolution`.
        patch: side in pixels of a token's patch, a power of 2 that divides height and width.
        dropout: share of training samples without an image; 0 makes guidance impossible.
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
            raise UserError(f"patch must be a power of 2 (1, 2, 4, 8, 16, 32), got {self.patch}")
        if self.factor < 1:
            raise UserError(f"factor must be at least 1, got {self.factor}")
        _, height, width = self.shape
        if height % self.patch or width % self.patch:
            raise UserError(
                f"condition images of {height}x{width} are not a multiple of patch {self.patch}; use a "
                f"smaller `patch`, or another data.resolution"
            )

    @property
    def length(self) -> int:  # type: ignore[override]
        _, height, width = self.shape
        return (height // self.patch) * (width // self.patch)

    @property
    def channels(self) -> int:
        """Channels of the view."""
        return 1 if self.view == "edges" else self.shape[0]

    @property
    def modality(self) -> Modality:
        return ImagePrompts(self.dropout)

    def fit(self, data: DataInfo) -> "ConditionImage":
        return replace(self, shape=checked_shape(data))

    def encode(self, inputs: ConditionInputs) -> Float[Tensor, "b c H W"]:
        """The view, and a channel of ones if there is an image."""
        view = inputs.image_of_each
        if view is None:
            zeros = torch.zeros(len(inputs), self.channels + 1, *self.shape[1:])
            return zeros.to(inputs.labels.device)
        if self.view == "low_resolution":
            view = low_resolution(view, self.factor)
        if self.view == "edges":
            view = edges(view)
        return torch.cat([view, torch.ones_like(view[:, :1])], dim=1)

    def null(self, values: Float[Tensor, "b c H W"]) -> Float[Tensor, "b c H W"]:
        return torch.zeros_like(values)

    def embedding(self, width: int) -> ConditionEmbedding:
        return PatchEncoder(self.channels + 1, self.patch, self.length, width)


def checked_shape(data: DataInfo) -> tuple[int, int, int]:
    """Channels, height and width of the data's condition images."""
    if not all(data.image_shape):
        raise UserError(
            "the data has no condition images: its codes were encoded without; encode again with "
            "data.condition_images, or use another condition"
        )
    return data.image_shape


class ImagePrompts(Modality):
    """Condition images; without prompts, none."""

    kind = "condition images"

    def __init__(self, dropout: float):
        self.dropout = dropout

    def read_prompts(self, prompts: Prompts, count: int) -> ConditionInputs:
        if prompts.images is None:
            return self.unprompted(count, self.dropout)
        indices = list(cycle(range(len(prompts.images)), count))
        names = tuple(prompts.image_names[index] for index in indices) if prompts.image_names else ()
        return replace(
            ConditionInputs.nothing(count),
            images=prompts.images,
            image_names=names,
            image_indices=torch.tensor(indices),
        )

    def preview(self, held_out: ConditionInputs) -> ConditionInputs:
        return ConditionInputs(torch.zeros_like(held_out.labels), images=held_out.images)

    def describe(self, inputs: ConditionInputs) -> list[dict[str, str]]:
        return [{"condition_image": name} for name in inputs.image_names] or [{}] * len(inputs)


def luma(images: Float[Tensor, "b c H W"]) -> Float[Tensor, "b 1 H W"]:
    """Luma of images with any number of channels."""
    colours = images[:, :3]
    shares = torch.tensor(LUMA if colours.shape[1] == 3 else (1.0,), device=images.device)
    return rearrange(torch.einsum("bchw,c->bhw", colours, shares), "b h w -> b 1 h w")


def low_resolution(images: Float[Tensor, "b c H W"], factor: int) -> Float[Tensor, "b c H W"]:
    """Replace each square by its mean; squares at the bottom and right border may be smaller."""
    size = images.shape[-2:]
    means = functional.avg_pool2d(images, factor, ceil_mode=True)
    large = means.repeat_interleave(factor, dim=-2).repeat_interleave(factor, dim=-1)
    return large[..., : size[0], : size[1]]


def edges(images: Float[Tensor, "b c H W"]) -> Float[Tensor, "b 1 H W"]:
    """Sobel gradient magnitude of luma, from -1 where flat to 1 for a step from black to white."""
    padded = functional.pad(luma(images), (1, 1, 1, 1), mode="replicate")
    across = torch.tensor([[-1.0, 0.0, 1.0], [-2.0, 0.0, 2.0], [-1.0, 0.0, 1.0]], device=images.device) / 8
    kernels = rearrange(torch.stack([across, across.T]), "way h w -> way 1 h w")
    slopes = functional.conv2d(padded, kernels)  # a step of 2, from black to white, has slope 1
    return (slopes.square().sum(dim=1, keepdim=True).sqrt() * 2 - 1).clamp(max=1)


class PatchEncoder(ConditionEmbedding):
    """Images to one token per patch, by strided convolutions: `b c H W -> b n width`."""

    def __init__(self, channels: int, patch: int, length: int, width: int):
        super().__init__()
        halvings = int(log2(patch))
        widths = [max(8, width >> (halvings - step)) for step in range(halvings)] + [width]
        layers: list[nn.Module] = [nn.Conv2d(channels, widths[0], 3, padding=1)]
        for before, after in pairwise(widths):
            layers += [nn.SiLU(), nn.Conv2d(before, after, 4, stride=2, padding=1)]
        self.layers = nn.Sequential(*layers)
        self.position_embedding = nn.Embedding(length, width)
        nn.init.normal_(self.position_embedding.weight, std=0.02)

    def forward(self, values: Float[Tensor, "b c H W"]) -> Float[Tensor, "b n width"]:
        return rearrange(self.layers(values), "b d h w -> b (h w) d") + self.position_embedding.weight
