"""Contract of networks: settings that build the encoder and decoder of an autoencoder."""

from abc import ABC, abstractmethod

from jaxtyping import Float
from torch import Tensor, nn

from genstack.errors import UserError

Images = Float[Tensor, "b c H W"]
Latents = Float[Tensor, "b d h w"]


class Encoder(nn.Module, ABC):
    """Encoder from images to latents of `dim` channels."""

    dim: int

    @abstractmethod
    def forward(self, images: Images) -> Latents: ...


class Decoder(nn.Module, ABC):
    """Decoder from latents of `dim` channels to images; adaptive losses compare gradients at `last_layer`."""

    dim: int

    @abstractmethod
    def forward(self, latents: Latents, image_size: tuple[int, int]) -> Images:
        """Decode latents to images of `image_size`, height first."""

    @property
    @abstractmethod
    def last_layer(self) -> nn.Parameter: ...


class Network(ABC):
    """Settings of encoder and decoder; subclasses are frozen dataclasses of plain values."""

    @abstractmethod
    def encoder(self, channels: int) -> Encoder:
        """Build the encoder for images with this number of channels."""

    @abstractmethod
    def decoder(self, channels: int) -> Decoder:
        """Build the decoder for images with this number of channels."""

    @abstractmethod
    def grid(self, height: int, width: int) -> tuple[int, int]:
        """Return height and width of the latents of images of this size; other sizes are errors."""


def tiles(height: int, width: int, side: int, word: str, way_out: str) -> tuple[int, int]:
    """Return the number of squares of `side` pixels along the height and width of an image.

    Args:
        height: height of the image.
        width: width of the image.
        side: side of a square.
        word: the network's name of `side`, for the message.
        way_out: another change that would help, for the message.

    Raises:
        UserError: the squares do not tile the image; the message names the nearest size.
    """
    rows, columns = (max(1, round(whole / side)) for whole in (height, width))
    if (rows * side, columns * side) != (height, width):
        raise UserError(
            f"image size {height}x{width} is not a multiple of the network's {word} {side}; "
            f"use {rows * side}x{columns * side}, or train with {way_out}"
        )
    return rows, columns


def check_fit(config: Network, latents: Latents, image_size: tuple[int, int]) -> None:
    """Check that latents have the size for images of `image_size`."""
    found, grid = tuple(latents.shape[-2:]), config.grid(*image_size)
    if found != grid:
        raise UserError(f"latents of {found} do not match images of {image_size}; expected {grid}")
