"""Stage one's contract: images to codes and back."""

from abc import ABC, abstractmethod
from dataclasses import dataclass

from jaxtyping import Float, Int
from torch import Tensor, nn

from genstack.compressor.output import Output, Pixels
from genstack.layout import CodeLayout


@dataclass
class Reconstruction:
    """What a compressor makes of images in training.

    Args:
        images: the reconstruction, in [-1, 1] where training has succeeded (it is not clamped).
        codes: the codes between the two halves; None for a bottleneck that has none.
        losses: named terms of the bottleneck, already weighted.
        written: what the decoder wrote, where the compressor's `output` reads more than images in it.
    """

    images: Float[Tensor, "b c H W"]
    codes: Int[Tensor, "b n"] | None
    losses: dict[str, Float[Tensor, ""]]
    written: Float[Tensor, "b k H W"] | None = None


class Compressor(nn.Module, ABC):
    """Images, float32 in [-1, 1] of `channels` channels, to codes, int64 in [0, codebook_size), and back."""

    channels: int
    #: How the decoder writes images.
    output: Output = Pixels()

    @abstractmethod
    def layout(self, height: int, width: int) -> CodeLayout:
        """Where the codes of images of this size lie.

        Raises:
            UserError: images of this size cannot be read; the message names the nearest size that can.
        """

    @abstractmethod
    def encode(self, images: Float[Tensor, "b c H W"]) -> Int[Tensor, "b n"]:
        """The codes of images."""

    @abstractmethod
    def decode(self, codes: Int[Tensor, "b n"], layout: CodeLayout) -> Float[Tensor, "b c H W"]:
        """The images that codes stand for, not clamped."""

    @abstractmethod
    def forward(self, images: Float[Tensor, "b c H W"]) -> Reconstruction:
        """There and back, with everything that training needs."""

    @property
    @abstractmethod
    def last_layer(self) -> nn.Parameter:
        """The weight that writes pixels; adaptive loss weights compare gradients there."""

    def after_step(self, skipped: bool) -> None:
        """Called once after each optimizer step; see `Bottleneck.after_step`."""
