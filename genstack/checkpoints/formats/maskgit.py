"""VQGAN of MaskGIT in 1d-tokenizer (Chang et al. 2022, arXiv:2202.04200; Yu et al. 2024)."""

from genstack.checkpoints.formats.format import (
    Format,
    Provenance,
    Weight,
    Weights,
    load_module,
    preprocessing,
)
from genstack.checkpoints.formats.pyramid import decoder, encoder, sizes, under
from genstack.checkpoints.import_options import ImportOptions
from genstack.compressor import Autoencoder, MaskGITNetwork
from genstack.compressor.quantizers import VectorQuantizer
from genstack.model import Model


class MaskGITVQGAN(Format):
    """The tokenizer of MaskGIT and teacher of TiTok, without attention and biases, for pixels in [0, 1]."""

    what = "VQGAN of MaskGIT, in 1d-tokenizer"
    provenance = Provenance(
        files="maskgit-vqgan-imagenet-f16-256.bin (hub: fun-research/TiTok)",
        source="bytedance/1d-tokenizer, google-research/maskgit",
        licence="Apache 2.0",
        weights="Apache 2.0",
        checked="latents, codes, images",
    )
    required = (
        "encoder.down.0.block.0.conv1.weight",
        "encoder.mid.0.conv1.weight",
        "decoder.up.0.block.0.conv1.weight",
        "quantize.embedding.weight",
    )
    excluded = ("quant_conv.weight", "encoder.mid.block_1.conv1.weight")

    def model(self, weights: Weights, options: ImportOptions) -> Model:
        found = sizes(weights)
        plan = MaskGITNetwork(found.dim, found.width, found.multipliers, found.blocks, unit=True)
        size, dim = weights.dims("quantize.embedding.weight", 2)
        table = {"quantizer.codebook.weight": weights.take("quantize.embedding.weight")}

        def build() -> Autoencoder:
            quantizer = VectorQuantizer(size, dim, normalize=False)
            return Autoencoder(found.channels, plan, quantizer, projection=0)

        made = load_module(build, network(weights, plan) | table)
        return Model(made, preprocessing(made, options))


def network(weights: Weights, plan: MaskGITNetwork) -> dict[str, Weight]:
    """Weights of encoder and decoder under our names."""
    decoded = under("decoder", decoder_network(weights.inside("decoder."), plan))
    return under("encoder", encoder(weights.inside("encoder."), plan)) | decoded


def decoder_network(weights: Weights, plan: MaskGITNetwork) -> dict[str, Weight]:
    """Weights of the decoder."""
    found, top = decoder(weights, plan), len(plan.multipliers) - 1
    for step in range(top):
        found |= weights.layer(f"up.{top - step}.upsample_conv", f"upsamples.{step}.conv")
    return found
