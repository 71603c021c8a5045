"""Encoder, bottleneck, decoder: VQ-VAE (van den Oord et al. 2017, arXiv:1711.00937) and what followed."""

import torch
from jaxtyping import Float, Int, Shaped
from torch import Tensor, nn

from genstack.compressor.bottleneck import Bottleneck, Quantized, Quantizer
from genstack.compressor.compressor import Compressor, Reconstruction
from genstack.compressor.network import Network
from genstack.compressor.output import Output, Pixels
from genstack.errors import UserError
from genstack.layout import Layout


class Autoencoder(Compressor):
    """Encoder, bottleneck and decoder; projections on both sides let any network fit any quantizer.

    Args:
        channels: channels of the images (1 grey, 3 colour, 4 colour and transparency); set from the data.
        network: the plan of encoder and decoder.
        quantizer: what turns latents into codes, or Gaussian for latents without codes (a VAE).
        projection: side of the convolutions between network and quantizer, odd; 0 for none, where both agree
            on the number of channels.
        output: what the decoder's last layer means.
    """

    def __init__(
        self,
        channels: int,
        network: Network,
        quantizer: Bottleneck,
        projection: int = 1,
        output: Output = Pixels(),
    ):
        super().__init__()
        self.channels, self.network, self.projection, self.output = channels, network, projection, output
        self.encoder = network.encoder(channels)
        self.to_quantizer = project(self.encoder.dim, quantizer.dim_in, projection)
        self.quantizer = quantizer
        self.decoder = network.decoder(output.width(channels))
        self.from_quantizer = project(quantizer.dim, self.decoder.dim, projection)

    @property
    def coded(self) -> bool:
        return isinstance(self.quantizer, Quantizer)

    def sizes(self, image_size: tuple[int, int]) -> list[tuple[int, int]]:
        return [self.network.grid(*image_size)]

    def layout(self, height: int, width: int) -> Layout:
        return self.quantizer.layout((height, width), *self.network.grid(height, width))

    def latents(self, images: Float[Tensor, "b c H W"]) -> Float[Tensor, "b d h w"]:
        """Latents that the quantizer reads."""
        self.network.grid(*images.shape[-2:])
        return self.to_quantizer(self.encoder(images))

    def written(
        self, latents: Float[Tensor, "b d h w"], image_size: tuple[int, int]
    ) -> Float[Tensor, "b k H W"]:
        """Decode quantized latents; `output` turns the result into images."""
        if torch.is_autocast_enabled(latents.device.type):
            latents = latents.contiguous()  # a quantizer's channels lie last, where bfloat16 norms are slow
        return self.decoder(self.from_quantizer(latents), image_size)

    def images(
        self, latents: Float[Tensor, "b d h w"], image_size: tuple[int, int]
    ) -> Float[Tensor, "b {self.channels} H W"]:
        """The images that quantized latents stand for."""
        return self.output.images(self.written(latents, image_size))

    def encode(self, images: Float[Tensor, "b {self.channels} H W"]) -> Shaped[Tensor, "b ..."]:
        return self.quantizer.encode(self.latents(images))

    def posterior(self, images: Float[Tensor, "b {self.channels} H W"]) -> Shaped[Tensor, "b ..."]:
        return self.quantizer.posterior(self.latents(images))

    @property
    def standardization(self) -> tuple[float, float] | None:
        return self.quantizer.standardization

    def decode(
        self, values: Shaped[Tensor, "b ..."], layout: Layout
    ) -> Float[Tensor, "b {self.channels} H W"]:
        return self.images(self.quantizer.lookup(values, layout), layout.image_size)

    def features(
        self, images: Float[Tensor, "b {self.channels} H W"]
    ) -> tuple[Float[Tensor, "b _ _ _"], ...]:
        return (self.latents(images),)

    def reconstruct(
        self, features: tuple[Float[Tensor, "b _ _ _"], ...], image_size: tuple[int, int]
    ) -> Reconstruction:
        (latents,) = features
        between = self.quantizer(latents)
        codes = between.codes if isinstance(between, Quantized) else None
        written = self.written(between.latents, image_size)
        return Reconstruction(self.output.images(written), codes, between.losses, written, between.nats)

    def draw(
        self, seeds: Int[Tensor, " b"], image_size: tuple[int, int], temperature: float
    ) -> Float[Tensor, "b {self.channels} H W"]:
        latents = self.quantizer.draw(seeds, *self.network.grid(*image_size), temperature)
        return self.images(latents, image_size)

    @property
    def last_layer(self) -> nn.Parameter:
        return self.decoder.last_layer

    def after_step(self, skipped: bool) -> None:
        self.quantizer.after_step(skipped)


def project(dim_in: int, dim_out: int, side: int) -> nn.Module:
    """The convolution between network and quantizer, or nothing."""
    if side == 0:
        if dim_in != dim_out:
            raise UserError(
                f"without a projection the network's {dim_in} channels and the quantizer's {dim_out} "
                f"must agree; use `projection: 1` or change one of them"
            )
        return nn.Identity()
    if side < 0 or side % 2 == 0:
        raise UserError(f"projection {side} is not an odd side of a convolution; use 1 or 3, or 0 for none")
    return nn.Conv2d(dim_in, dim_out, side, padding=side // 2)
