"""Autoencoder with a bottleneck: VQ-VAE (van den Oord et al. 2017, arXiv:1711.00937) and successors."""

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
    """Encoder, bottleneck and decoder, with projections that fit any network to any quantizer.

    Args:
        channels: channels of the images (1 grey, 3 colour, 4 colour and transparency); set from the data.
        network: architecture of encoder and decoder.
        quantizer: quantizer of the latents, or Gaussian for a VAE without codes.
        projection: kernel size of the convolutions between network and quantizer, odd; 0 for none, if both
            have the same number of channels.
        output: conversion of the decoder's output to images.
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
    def has_codes(self) -> bool:
        return isinstance(self.quantizer, Quantizer)

    def sizes(self, image_size: tuple[int, int]) -> list[tuple[int, int]]:
        return [self.network.grid(*image_size)]

    def layout(self, height: int, width: int) -> Layout:
        return self.quantizer.layout((height, width), *self.network.grid(height, width))

    def latents(self, images: Float[Tensor, "b c H W"]) -> Float[Tensor, "b d h w"]:
        """Return the quantizer's input."""
        self.network.grid(*images.shape[-2:])
        return self.to_quantizer(self.encoder(images))

    def decoder_output(
        self, latents: Float[Tensor, "b d h w"], image_size: tuple[int, int]
    ) -> Float[Tensor, "b k H W"]:
        """Decode quantized latents; `output` converts the result to images."""
        if torch.is_autocast_enabled(latents.device.type):
            latents = latents.contiguous()  # bfloat16 norms are slow on the quantizer's channels-last strides
        return self.decoder(self.from_quantizer(latents), image_size)

    def images(
        self, latents: Float[Tensor, "b d h w"], image_size: tuple[int, int]
    ) -> Float[Tensor, "b {self.channels} H W"]:
        """Decode quantized latents to images."""
        return self.output.images(self.decoder_output(latents, image_size))

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
        quantized = self.quantizer(latents)
        codes = quantized.codes if isinstance(quantized, Quantized) else None
        output = self.decoder_output(quantized.latents, image_size)
        return Reconstruction(
            self.output.images(output), codes, quantized.losses, output, quantized.nats, quantized.latents
        )

    def sample(
        self, seeds: Int[Tensor, " b"], image_size: tuple[int, int], temperature: float
    ) -> Float[Tensor, "b {self.channels} H W"]:
        latents = self.quantizer.sample(seeds, *self.network.grid(*image_size), temperature)
        return self.images(latents, image_size)

    @property
    def latent_channels(self) -> int:
        return self.quantizer.dim

    @property
    def last_layer(self) -> nn.Parameter:
        return self.decoder.last_layer

    @property
    def latent_layer(self) -> nn.Parameter | None:
        return getattr(self.to_quantizer, "weight", None)

    def after_step(self, skipped: bool) -> None:
        self.quantizer.after_step(skipped)


def project(dim_in: int, dim_out: int, side: int) -> nn.Module:
    """Build the convolution between network and quantizer, or an identity."""
    if side == 0:
        if dim_in != dim_out:
            raise UserError(
                f"projection 0 needs equal channels, got {dim_in} and {dim_out}; use `projection: 1`, or "
                f"change the network or the quantizer"
            )
        return nn.Identity()
    if side < 0 or side % 2 == 0:
        raise UserError(f"projection {side} must be an odd kernel size, such as 1 or 3, or 0 for none")
    return nn.Conv2d(dim_in, dim_out, side, padding=side // 2)
