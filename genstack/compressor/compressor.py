"""Contract of compressors: images to codes or latents, and back."""

from abc import ABC, abstractmethod
from dataclasses import dataclass, replace
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
        images: the reconstruction, not clamped to [-1, 1].
        codes: the codes; None for a bottleneck without codes.
        losses: weighted losses of the bottleneck, by name.
        decoder_output: output of the decoder, before `output` converts it to images.
        nats: KL divergence of each latent value, for a bottleneck without codes.
        latents: quantized latents of the coarsest grid, whose gradient reaches the encoder.
    """

    images: Float[Tensor, "b c H W"]
    codes: Int[Tensor, "b n"] | None
    losses: dict[str, Float[Tensor, ""]]
    decoder_output: Float[Tensor, "b k H W"] | None = None
    nats: Float[Tensor, "b d h w"] | None = None
    latents: Float[Tensor, "b d h w"] | None = None


class Compressor(nn.Module, ABC):
    """Encode images, float32 in [-1, 1], to codes or latents, and decode these.

    Codes are int64 in [0, codebook_size), `b n`. A compressor without codes (`has_codes` is False) has
    float32 latents, `b d h w`. The layout's type tells them apart.
    """

    channels: int
    #: Conversion of the decoder's output to images.
    output: Output = Pixels()

    @property
    def has_codes(self) -> bool:
        """True if images are encoded as codes, False for latents."""
        return True

    @abstractmethod
    def sizes(self, image_size: tuple[int, int]) -> list[tuple[int, int]]:
        """Return height and width of each grid of latents, coarse to fine; other image sizes are errors."""

    @abstractmethod
    def layout(self, height: int, width: int) -> Layout:
        """Return the layout of the codes or latents of images of this size."""

    def code_layout(self, height: int, width: int) -> CodeLayout:
        """Return the layout of the codes of images of this size; an error without codes."""
        layout = self.layout(height, width)
        if not isinstance(layout, CodeLayout):
            raise UserError(
                f"the compressor has {layout.representation} and no codes; use one with a quantizer, such as "
                f"VectorQuantizer"
            )
        return layout

    @abstractmethod
    def encode(self, images: Float[Tensor, "b c H W"]) -> Shaped[Tensor, "b ..."]:
        """Encode images to codes, or to the means of their latents."""

    def posterior(self, images: Float[Tensor, "b c H W"]) -> Shaped[Tensor, "b ..."]:
        """Return the training data of priors: codes, or means and deviations of latents, `b 2 d h w`."""
        return self.encode(images)

    @property
    def standardization(self) -> tuple[float, float] | None:
        """Published mean and deviation of latents; None if they must be measured."""
        return None

    @abstractmethod
    def decode(self, values: Shaped[Tensor, "b ..."], layout: Any) -> Float[Tensor, "b c H W"]:
        """Decode codes or latents to images, not clamped; `layout` is a `Layout`."""

    @abstractmethod
    def features(self, images: Float[Tensor, "b c H W"]) -> tuple[Float[Tensor, "b _ _ _"], ...]:
        """Return latents before the bottleneck, one tensor per grid, coarse to fine."""

    @abstractmethod
    def reconstruct(
        self, features: tuple[Float[Tensor, "b _ _ _"], ...], image_size: tuple[int, int]
    ) -> Reconstruction:
        """Reconstruct images from features, through the bottleneck."""

    def forward(self, images: Float[Tensor, "b c H W"]) -> Reconstruction:
        """Encode and decode images, for training."""
        height, width = images.shape[-2:]
        found = self.reconstruct(self.features(images), (height, width))
        # FSDP2 warns of outputs that are views.
        return found if found.latents is None else replace(found, latents=found.latents.clone())

    def sample(
        self, seeds: Int[Tensor, " b"], image_size: tuple[int, int], temperature: float
    ) -> Float[Tensor, "b c H W"]:
        """Sample images from a bottleneck without codes, one per seed, not clamped."""
        raise UserError(f"sampling the codes of {type(self).__name__} needs a prior; {REMEDY}")

    @property
    def latent_channels(self) -> int:
        """Channels of `Reconstruction.latents`."""
        raise UserError(f"{type(self).__name__} has no latents to align; use `alignment: null`")

    @property
    @abstractmethod
    def last_layer(self) -> nn.Parameter:
        """Weight of the last layer, where adaptive loss weights compare gradients."""

    @property
    def latent_layer(self) -> nn.Parameter | None:
        """Weight of the layer before the bottleneck, where adaptive weights of losses on latents compare."""
        return None

    def after_step(self, skipped: bool) -> None:
        """Update buffers once after each optimizer step; see `Bottleneck.after_step`."""
