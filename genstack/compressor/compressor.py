"""Stage one's contract: images to codes or latents, and back."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any

from jaxtyping import Float, Int, Shaped
from torch import Tensor, nn

from genstack.compressor.bottleneck import REMEDY
from genstack.compressor.output import Output, Pixels
from genstack.errors import UserError
from genstack.layout import CodeLayout, Layout


@dataclass
class Reconstruction:
    """Output of a compressor in training.

    Args:
        images: the reconstruction, in [-1, 1] where training has succeeded (it is not clamped).
        codes: the codes between the two halves; None for a bottleneck that has none.
        losses: named terms of the bottleneck, already weighted.
        written: what the decoder wrote, where the compressor's `output` reads more than images in it.
        nats: what each number of the latents says of its image, for a bottleneck without codes.
    """

    images: Float[Tensor, "b c H W"]
    codes: Int[Tensor, "b n"] | None
    losses: dict[str, Float[Tensor, ""]]
    written: Float[Tensor, "b k H W"] | None = None
    nats: Float[Tensor, "b d h w"] | None = None


class Compressor(nn.Module, ABC):
    """Images, float32 in [-1, 1] of `channels` channels, to codes or latents, and back.

    Codes are int64 in [0, codebook_size), `b n`. A bottleneck without codes (`coded` is False) has latents,
    float32, `b d h w`. The type of `layout` says which.
    """

    channels: int
    #: How the decoder writes images.
    output: Output = Pixels()

    @property
    def coded(self) -> bool:
        """True if images have codes, and not latents alone."""
        return True

    @abstractmethod
    def sizes(self, image_size: tuple[int, int]) -> list[tuple[int, int]]:
        """Height and width of each grid of latents, coarse to fine, of images of this size.

        Raises:
            UserError: images of this size cannot be read; the message names the nearest size that can.
        """

    @abstractmethod
    def layout(self, height: int, width: int) -> Layout:
        """Layout of the codes or latents of images of this size.

        Raises:
            UserError: images of this size cannot be read.
        """

    def code_layout(self, height: int, width: int) -> CodeLayout:
        """Layout of the codes of images of this size, for what needs codes.

        Raises:
            UserError: images of this size cannot be read, or there are no codes.
        """
        layout = self.layout(height, width)
        if not isinstance(layout, CodeLayout):
            raise UserError(
                f"the compressor makes {layout.representation} without codes; use one with a quantizer, "
                f"such as VectorQuantizer"
            )
        return layout

    @abstractmethod
    def encode(self, images: Float[Tensor, "b c H W"]) -> Shaped[Tensor, "b ..."]:
        """The codes of images, or the means of their latents."""

    def posterior(self, images: Float[Tensor, "b c H W"]) -> Shaped[Tensor, "b ..."]:
        """Codes, or means and deviations of latents, `b 2 d h w`: what priors are trained on."""
        return self.encode(images)

    @property
    def standardization(self) -> tuple[float, float] | None:
        """Published mean and deviation of latents; None where they have to be measured."""
        return None

    @abstractmethod
    def decode(self, values: Shaped[Tensor, "b ..."], layout: Any) -> Float[Tensor, "b c H W"]:
        """The images that codes or latents stand for, not clamped; `layout` is a `Layout`."""

    @abstractmethod
    def features(self, images: Float[Tensor, "b c H W"]) -> tuple[Float[Tensor, "b _ _ _"], ...]:
        """Latents before the bottleneck, one tensor per grid, coarse to fine; they can be interpolated."""

    @abstractmethod
    def reconstruct(
        self, features: tuple[Float[Tensor, "b _ _ _"], ...], image_size: tuple[int, int]
    ) -> Reconstruction:
        """Reconstruct images from features, through the bottleneck."""

    def forward(self, images: Float[Tensor, "b c H W"]) -> Reconstruction:
        """There and back, with everything that training needs."""
        height, width = images.shape[-2:]
        return self.reconstruct(self.features(images), (height, width))

    def draw(
        self, seeds: Int[Tensor, " b"], image_size: tuple[int, int], temperature: float
    ) -> Float[Tensor, "b c H W"]:
        """Images of latents as they are distributed by design, one per seed, not clamped.

        Raises:
            UserError: there are codes, and only a prior knows how they are distributed.
        """
        raise UserError(f"the codes of {type(self).__name__} are distributed as only a prior knows; {REMEDY}")

    @property
    @abstractmethod
    def last_layer(self) -> nn.Parameter:
        """The weight that writes pixels; adaptive loss weights compare gradients there."""

    def after_step(self, skipped: bool) -> None:
        """Called once after each optimizer step; see `Bottleneck.after_step`."""
