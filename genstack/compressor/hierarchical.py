"""Hierarchical autoencoder with several grids of codes: VQ-VAE-2 (Razavi et al. 2019, arXiv:1906.00446)."""

import inspect
from typing import TypeVar

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from genstack.compressor.autoencoder import project
from genstack.compressor.bottleneck import Quantized, Quantizer
from genstack.compressor.compressor import Compressor, Reconstruction
from genstack.compressor.network import Network
from genstack.compressor.networks.strided import Strided
from genstack.compressor.output import Output, Pixels
from genstack.errors import UserError
from genstack.layout import CodeLayout

Part = TypeVar("Part", bound=nn.Module)


class HierarchicalAutoencoder(Compressor):
    """Codes on two or more grids, coarse ones for the scene and finer ones for details.

    Encoders run fine to coarse on each other's output. Then, coarse to fine, quantized latents are decoded to
    the next finer grid and concatenated to its features, which are quantized in turn. The finest decoder
    reads the quantized latents of all grids.

    Args:
        channels: channels of the images (1 grey, 3 colour, 4 colour and transparency); set from the data.
        network: architecture between images and the finest grid.
        coarser: architecture between a grid and the next coarser one; it must halve the sides.
        grids: number of grids.
        quantizer: quantizer of the latents; every grid has a copy with its own weights.
        output: conversion of the decoder's output to images.
    """

    def __init__(
        self,
        channels: int,
        network: Network,
        quantizer: Quantizer,
        coarser: Network = Strided(stride=2),
        grids: int = 2,
        output: Output = Pixels(),
    ):
        super().__init__()
        if grids < 2:
            raise UserError(f"grids {grids} is out of range; use 2 or more, or Autoencoder for one grid")
        if coarser.grid(32, 64) != (16, 32):
            raise UserError(f"coarser network {coarser} must halve the sides of a grid; use stride 2")
        self.channels, self.network, self.coarser, self.grids = channels, network, coarser, grids
        self.output = output
        dim = quantizer.dim
        # all lists are ordered coarse to fine
        configs = [coarser] * (grids - 1) + [network]
        encoders = [network.encoder(channels)]
        for _ in range(grids - 1):
            encoders.insert(0, coarser.encoder(encoders[0].dim))
        self.encoders = nn.ModuleList(encoders)
        self.to_quantizers = nn.ModuleList(
            project(encoder.dim + dim * (level > 0), dim, 1) for level, encoder in enumerate(encoders)
        )
        self.quantizers = nn.ModuleList([quantizer, *(fresh_copy(quantizer) for _ in range(grids - 1))])
        self.decoders = nn.ModuleList(
            config.decoder(dim if level < grids - 1 else output.width(channels))
            for level, config in enumerate(configs)
        )
        self.from_quantizers = nn.ModuleList(
            project(dim * (level + 1), decoder.dim, 3)  # type: ignore[arg-type]
            for level, decoder in enumerate(self.decoders)
        )
        self.upsamples = nn.ModuleList(
            nn.ConvTranspose2d(dim * (level + 1), dim * (level + 1), 4, stride=2, padding=1)
            for level in range(grids - 1)
        )

    @property
    def quantizer(self) -> Quantizer:
        """Quantizer of the coarsest grid."""
        return self.quantizers[0]  # type: ignore[return-value]

    def layout(self, height: int, width: int) -> CodeLayout:
        each = self.layouts((height, width))
        joined = tuple(grid for layout in each for grid in layout.grids)
        return CodeLayout((height, width), each[0].codebook_size, joined, each[0].depth)

    def layouts(self, image_size: tuple[int, int]) -> list[CodeLayout]:
        """Return the layout of each quantizer."""
        return [self.quantizer.layout(image_size, *size) for size in self.sizes(image_size)]

    def sizes(self, image_size: tuple[int, int]) -> list[tuple[int, int]]:
        try:
            return self.grid_sizes(image_size)
        except UserError as error:
            height, width = (self.nearest(side) for side in image_size)
            raise UserError(
                f"image size {image_size[0]}x{image_size[1]} cannot be halved for {self.grids} grids; "
                f"use {height}x{width}, or fewer `grids`"
            ) from error

    def grid_sizes(self, image_size: tuple[int, int]) -> list[tuple[int, int]]:
        """Compute `sizes`, with the error message of one network."""
        sizes = [self.network.grid(*image_size)]
        for _ in range(self.grids - 1):
            sizes.insert(0, self.coarser.grid(*sizes[0]))
        return sizes

    def nearest(self, side: int) -> int:
        """Find the nearest side of a square image that has all grids."""
        for distance in range(2**12):
            for candidate in (side - distance, side + distance):
                try:
                    self.grid_sizes((candidate, candidate))
                except UserError:
                    continue
                return candidate
        return 2**12

    def features(
        self, images: Float[Tensor, "b {self.channels} H W"]
    ) -> tuple[Float[Tensor, "b _ _ _"], ...]:
        self.sizes((images.shape[-2], images.shape[-1]))
        found = [self.encoders[-1](images)]
        for encoder in list(self.encoders)[-2::-1]:
            found.insert(0, encoder(found[0]))
        return tuple(found)

    def quantize(
        self, features: tuple[Float[Tensor, "b _ _ _"], ...]
    ) -> tuple[list[Quantized], Float[Tensor, "b d h w"]]:
        """Quantize the features of each grid, and join them on the finest grid."""
        found: list[Quantized] = []
        joined = None
        for level, (inputs, quantizer) in enumerate(zip(features, self.quantizers, strict=True)):
            if joined is not None:
                decoded = self.decoder_output(level - 1, joined, (inputs.shape[-2], inputs.shape[-1]))
                inputs = torch.cat([decoded, inputs], dim=1)  # noqa: PLW2901
            found.append(quantizer(self.to_quantizers[level](inputs)))
            joined = self.join(level, joined, found[-1].latents)
        assert joined is not None
        return found, joined

    def join(
        self, level: int, coarser: Float[Tensor, "b _ _ _"] | None, latents: Float[Tensor, "b d h w"]
    ) -> Float[Tensor, "b _ h w"]:
        """Concatenate the latents of a grid to the upsampled latents of all coarser grids."""
        return latents if coarser is None else torch.cat([self.upsamples[level - 1](coarser), latents], dim=1)

    def decoder_output(
        self, level: int, joined: Float[Tensor, "b _ h w"], size: tuple[int, int]
    ) -> Float[Tensor, "b k H W"]:
        """Decode the latents of a grid to the size of the next finer grid or the image."""
        return self.decoders[level](self.from_quantizers[level](joined), size)

    def reconstruct(
        self, features: tuple[Float[Tensor, "b _ _ _"], ...], image_size: tuple[int, int]
    ) -> Reconstruction:
        found, joined = self.quantize(features)
        output = self.decoder_output(-1, joined, image_size)
        codes = torch.cat([quantized.codes for quantized in found], dim=1)
        names = sorted({name for quantized in found for name in quantized.losses})
        losses = {name: torch.stack([each.losses[name] for each in found]).sum() for name in names}
        return Reconstruction(self.output.images(output), codes, losses, output, latents=found[0].latents)

    def encode(self, images: Float[Tensor, "b {self.channels} H W"]) -> Int[Tensor, "b n"]:
        found, _ = self.quantize(self.features(images))
        return torch.cat([quantized.codes for quantized in found], dim=1)

    def decode(self, codes: Int[Tensor, "b n"], layout: CodeLayout) -> Float[Tensor, "b {self.channels} H W"]:
        layouts = self.layouts(layout.image_size)
        joined = None
        for level, part in enumerate(codes.split([each.length for each in layouts], dim=1)):
            latents = self.quantizers[level].lookup(part, layouts[level])  # type: ignore[operator]
            joined = self.join(level, joined, latents)
        assert joined is not None
        return self.output.images(self.decoder_output(-1, joined, layout.image_size))

    @property
    def latent_channels(self) -> int:
        return self.quantizer.dim

    @property
    def last_layer(self) -> nn.Parameter:
        return self.decoders[-1].last_layer  # type: ignore[return-value]

    @property
    def latent_layer(self) -> nn.Parameter | None:
        return getattr(self.to_quantizers[0], "weight", None)

    def after_step(self, skipped: bool) -> None:
        for quantizer in self.quantizers:
            quantizer.after_step(skipped)  # type: ignore[operator]


def fresh_copy(part: Part) -> Part:
    """Build a module with the same arguments and its own weights."""
    return type(part)(**{name: getattr(part, name) for name in inspect.signature(type(part)).parameters})
