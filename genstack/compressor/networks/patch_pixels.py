"""Conversion of patch tokens to pixels, as in ViT-VQGAN and TiTok (arXiv:2110.04627, arXiv:2406.07550)."""

from abc import ABC, abstractmethod
from dataclasses import dataclass

from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn

from genstack.compressor.network import Images
from genstack.compressor.networks.maskgit import MaskGITNetwork
from genstack.compressor.networks.transformer import Head, patch_grid
from genstack.errors import UserError


class PatchPixels(ABC):
    """Settings of a module from patch tokens to pixels; subclasses are frozen dataclasses of plain values."""

    @abstractmethod
    def writer(self, channels: int, patch: int, width: int) -> "PatchWriter":
        """Build the module.

        Args:
            channels: channels of the images.
            patch: side of a patch.
            width: channels of a token.

        Raises:
            UserError: the settings do not suit patches of this side.
        """


class PatchWriter(nn.Module, ABC):
    """Module from patch tokens to images."""

    @abstractmethod
    def forward(self, tokens: Float[Tensor, "b n width"], image_size: tuple[int, int]) -> Images: ...

    @property
    @abstractmethod
    def last_layer(self) -> nn.Parameter:
        """Weight of the last layer."""


@dataclass(frozen=True)
class SeparatePatches(PatchPixels):
    """Two linear layers on each token (ViT-VQGAN)."""

    def writer(self, channels: int, patch: int, width: int) -> "ToPatches":
        return ToPatches(channels, patch, width)


@dataclass(frozen=True)
class SmoothedPatches(PatchPixels):
    """A linear layer on each token and a convolution across patch borders (TiTok).

    The single-stage tokenizers of 1d-tokenizer use it.
    """

    def writer(self, channels: int, patch: int, width: int) -> "ToSmoothedPatches":
        return ToSmoothedPatches(channels, patch, width)


@dataclass(frozen=True)
class SoftCodes(PatchPixels):
    """Probabilities of another tokenizer's codes, whose mean rows its decoder reads (TiTok).

    The two-stage tokenizers of 1d-tokenizer use it with MaskGIT's tokenizer.

    Args:
        network: network of the other tokenizer; only its decoder is built.
        codebook_size: number of codes of the other tokenizer.
    """

    network: MaskGITNetwork = MaskGITNetwork()  # noqa: RUF009 - a frozen config
    codebook_size: int = 1024

    def writer(self, channels: int, patch: int, width: int) -> "FromSoftCodes":
        if self.network.stride != patch:
            raise UserError(
                f"patch {patch} must equal the stride {self.network.stride} of the network of SoftCodes; "
                f"change `patch` or its `multipliers`"
            )
        return FromSoftCodes(self, channels, width)


class ToPatches(PatchWriter):
    """Module of `SeparatePatches`."""

    def __init__(self, channels: int, patch: int, width: int):
        super().__init__()
        self.patch = patch
        self.head = Head(width, channels * patch**2)

    def forward(self, tokens: Float[Tensor, "b n width"], image_size: tuple[int, int]) -> Images:
        rows, _ = patch_grid(*image_size, self.patch)
        pixels = self.head(tokens)
        return rearrange(
            pixels, "b (h w) (c p q) -> b c (h p) (w q)", h=rows, p=self.patch, q=self.patch
        ).contiguous()  # contiguous images are faster to read

    @property
    def last_layer(self) -> nn.Parameter:
        return self.head.last.get_parameter("weight")


class ToSmoothedPatches(PatchWriter):
    """Module of `SmoothedPatches`."""

    def __init__(self, channels: int, patch: int, width: int):
        super().__init__()
        self.patch = patch
        self.linear = nn.Linear(width, channels * patch**2)
        self.last = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, tokens: Float[Tensor, "b n width"], image_size: tuple[int, int]) -> Images:
        rows, _ = patch_grid(*image_size, self.patch)
        pixels = self.linear(tokens)
        return self.last(
            rearrange(pixels, "b (h w) (c p q) -> b c (h p) (w q)", h=rows, p=self.patch, q=self.patch)
        )

    @property
    def last_layer(self) -> nn.Parameter:
        return self.last.get_parameter("weight")


class FromSoftCodes(PatchWriter):
    """Module of `SoftCodes`."""

    def __init__(self, config: SoftCodes, channels: int, width: int):
        super().__init__()
        self.head = Head(width, config.codebook_size)
        self.rows = nn.Embedding(config.codebook_size, config.network.dim)
        self.decoder = config.network.decoder(channels)

    def forward(self, tokens: Float[Tensor, "b n width"], image_size: tuple[int, int]) -> Images:
        rows, _ = self.decoder.config.grid(*image_size)
        mean = self.head(tokens).softmax(dim=-1) @ self.rows.weight
        return self.decoder(rearrange(mean, "b (h w) d -> b d h w", h=rows), image_size)

    @property
    def last_layer(self) -> nn.Parameter:
        return self.decoder.last_layer
