"""VQ-VAE-2 of vq-vae-2-pytorch by rosinality (Razavi et al. 2019, arXiv:1906.00446)."""

import torch

from genstack.checkpoints.formats.format import (
    Format,
    Provenance,
    Weight,
    Weights,
    load_module,
    preprocessing,
)
from genstack.checkpoints.import_options import ImportOptions
from genstack.compressor import HierarchicalAutoencoder, Strided
from genstack.compressor.quantizers import VectorQuantizer
from genstack.compressor.quantizers.update import EMAUpdate
from genstack.errors import UserError
from genstack.model import Model


class RosinalityVQVAE2(Format):
    """Two grids of codes; codebooks are learned by EMA and stored transposed."""

    what = "VQ-VAE-2 of vq-vae-2-pytorch (rosinality)"
    provenance = Provenance(
        files="vqvae_*.pt, of one's own training; the project publishes none",
        source="rosinality/vq-vae-2-pytorch",
        licence="MIT; its VQ-VAE: Apache 2.0",
        weights="none published",
        checked="latents and codes of both grids, images",
    )
    required = ("enc_b.blocks.0.weight", "enc_t.blocks.0.weight", "quantize_t.embed", "quantize_b.embed")

    def model(self, weights: Weights, options: ImportOptions) -> Model:
        fine, coarse, channels = plans(weights)
        (size,), dim = (
            weights.dims("quantize_t.cluster_size", 1),
            weights.dims("quantize_conv_t.weight", 4)[0],
        )
        found = halves(weights, fine, coarse)
        for grid, letter in enumerate("tb"):
            theirs, ours = f"quantize_{letter}", f"quantizers.{grid}.codebook"
            weights.dims(f"{theirs}.embed", 2)
            weights.dims(f"{theirs}.embed_avg", 2)
            found |= weights.layer(f"quantize_conv_{letter}", f"to_quantizers.{grid}") | {
                f"{ours}.weight": weights.take(f"{theirs}.embed").map(torch.t),
                f"{ours}.sums": weights.take(f"{theirs}.embed_avg").map(torch.t),
                f"{ours}.counts": weights.take(f"{theirs}.cluster_size"),
            }
        made = load_module(
            lambda: HierarchicalAutoencoder(
                channels, fine, VectorQuantizer(size, dim, EMAUpdate(), normalize=False), coarse
            ),
            found,
        )
        return Model(made, preprocessing(made, options))


def plans(weights: Weights) -> tuple[Strided, Strided, int]:
    """Architecture of the networks of the fine and the coarse grid, and the channels of the images."""
    _, channels, *_ = weights.dims("enc_b.blocks.0.weight", 4)
    dim = weights.dims("enc_b.blocks.4.weight", 4)[0]
    blocks = 0
    while f"enc_b.blocks.{5 + blocks}.conv.1.weight" in weights:
        blocks += 1
    if not blocks:
        raise UserError(
            "enc_b.blocks.5.conv.1.weight not found; models without residual blocks are not supported"
        )
    inner = weights.dims("enc_b.blocks.5.conv.1.weight", 4)[0]
    return Strided(dim, 4, blocks, inner), Strided(dim, 2, blocks, inner), channels


def halves(weights: Weights, fine: Strided, coarse: Strided) -> dict[str, Weight]:
    """Encoders and decoders of both grids; activations count as layers in their names."""
    found = weights.layer("upsample_t", "upsamples.0")
    for grid, (plan, letters) in enumerate(((coarse, ("enc_t", "dec_t")), (fine, ("enc_b", "dec")))):
        downsamples = plan.stride.bit_length() - 1
        reading, writing = (f"{name}.blocks" for name in letters)
        for number in range(downsamples):
            found |= weights.layer(f"{reading}.{2 * number}", f"encoders.{grid}.downsamples.{number}")
            place = 2 + plan.blocks + 2 * number
            found |= weights.layer(f"{writing}.{place}", f"decoders.{grid}.upsamples.{number}")
        found |= weights.layer(f"{reading}.{2 * downsamples}", f"encoders.{grid}.last")
        found |= weights.layer(f"{writing}.0", f"from_quantizers.{grid}")
        for number in range(plan.blocks):
            theirs, ours = f"{reading}.{2 * downsamples + 1 + number}", f"encoders.{grid}.blocks.{number}"
            found |= block(weights, theirs, ours)
            found |= block(weights, f"{writing}.{1 + number}", f"decoders.{grid}.blocks.{number}")
    return found


def block(weights: Weights, theirs: str, ours: str) -> dict[str, Weight]:
    """Convolutions of a residual block."""
    return weights.layer(f"{theirs}.conv.1", f"{ours}.conv1") | weights.layer(
        f"{theirs}.conv.3", f"{ours}.conv2"
    )
