"""MaskBit's tokenizer: VQGAN+ without a codebook (Weber et al. 2024, arXiv:2409.16211)."""

import torch

from genstack.checkpoints.formats.format import Format, Weight, Weights, load_module, preprocessing
from genstack.checkpoints.formats.pyramid import Names, halves, sizes
from genstack.checkpoints.import_options import ImportOptions
from genstack.compressor import Autoencoder, MaskGITNetwork
from genstack.compressor.quantizers import LFQ
from genstack.errors import UserError
from genstack.model import Model

#: Levels of the decoder are counted in the order of running.
NAMES = Names(up="up.{step}", block="res_blocks.{number}", middle="mid.res_blocks.{number}")
PLACES = "quantize.bits_to_indices"


class MaskBitTokenizer(Format):
    """The tokenizer of 10 to 18 bits; pixels are in [0, 1], and codes are signs, the first the lowest bit."""

    what = "tokenizer of MaskBit"
    required = (
        "encoder.down.0.res_blocks.0.conv1.weight",
        "encoder.mid.res_blocks.0.conv1.weight",
        "decoder.up.0.res_blocks.0.conv1.weight",
        PLACES,
    )
    excluded = ("quantize.embedding.weight",)
    ignored = (r"quantize\.(bits_to_indices|codebook)$",)

    def model(self, weights: Weights, options: ImportOptions) -> Model:
        found = sizes(weights, NAMES)
        places = weights.tensors[weights.prefix + PLACES].flatten().long()
        if not torch.equal(places, 2 ** torch.arange(found.dim)):
            raise UserError(f"{PLACES} must be the powers of two of {found.dim} bits")
        plan = MaskGITNetwork(
            found.dim,
            found.width,
            found.multipliers,
            found.blocks,
            downsampling="convolution" if "encoder.down.0.down_conv.weight" in weights else "average",
            unit=True,
            decoder_blocks=weights.count("decoder.up.0.res_blocks.{}.conv1.weight"),
        )
        made = load_module(
            lambda: Autoencoder(found.channels, plan, LFQ(plan.dim), projection=0), network(weights, plan)
        )
        return Model(made, preprocessing(made, options))


def network(weights: Weights, plan: MaskGITNetwork) -> dict[str, Weight]:
    """The weights of both halves under our names."""
    found = halves(weights, plan, NAMES)
    for step in range(len(plan.multipliers) - 1):
        found |= weights.layer(f"decoder.up.{step}.upsample_conv", f"decoder.upsamples.{step}.conv")
        if plan.downsampling == "convolution":
            found |= weights.layer(f"encoder.down.{step}.down_conv", f"encoder.downsamples.{step}.conv")
    return found
