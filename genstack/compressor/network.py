"""The contract of networks: a plan of the two halves of an autoencoder, in numbers and without weights."""

from abc import ABC, abstractmethod

from jaxtyping import Float
from torch import Tensor, nn

from genstack.errors import UserError


class Encoder(nn.Module, ABC):
    """Images to latents of `dim` channels."""

    dim: int

    @abstractmethod
    def forward(self, images: Float[Tensor, "b c H W"]) -> Float[Tensor, "b d h w"]: ...


class Decoder(nn.Module, ABC):
    """Latents of `dim` channels to images; `last_layer` writes the pixels (adaptive losses compare there)."""

    dim: int

    @abstractmethod
    def forward(
        self, latents: Float[Tensor, "b d h w"], image_size: tuple[int, int]
    ) -> Float[Tensor, "b c H W"]:
        """Images of `image_size`, height first."""

    @property
    @abstractmethod
    def last_layer(self) -> nn.Parameter: ...


class Network(ABC):
    """A plan of encoder and decoder; subclasses are frozen dataclasses of plain numbers."""

    @abstractmethod
    def encoder(self, channels: int) -> Encoder:
        """The encoder for images of so many channels."""

    @abstractmethod
    def decoder(self, channels: int) -> Decoder:
        """The decoder for images of so many channels."""

    @abstractmethod
    def grid(self, height: int, width: int) -> tuple[int, int]:
        """Height and width of the latents of images of this size.

        Raises:
            UserError: the network cannot read images of this size; the message names the nearest it can.
        """


def tiles(height: int, width: int, side: int, word: str, way_out: str) -> tuple[int, int]:
    """Numbers of squares of `side` pixels along the height and width of an image.

    Args:
        height: of the image.
        width: of the image.
        side: of a square.
        word: what the network calls `side`.
        way_out: what else the user could change.

    Raises:
        UserError: the squares do not tile the image; the message names the nearest size that they do.
    """
    rows, columns = (max(1, round(whole / side)) for whole in (height, width))
    if (rows * side, columns * side) != (height, width):
        raise UserError(
            f"image size {height}x{width} is not a multiple of the network's {word} {side}; "
            f"use {rows * side}x{columns * side}, or {way_out}"
        )
    return rows, columns


def check_fit(plan: Network, latents: Float[Tensor, "b d h w"], image_size: tuple[int, int]) -> None:
    """Refuse latents whose size does not fit images of this size."""
    found, grid = tuple(latents.shape[-2:]), plan.grid(*image_size)
    if found != grid:
        raise UserError(f"latents of {found} do not fit images of {image_size}; use {grid}")
