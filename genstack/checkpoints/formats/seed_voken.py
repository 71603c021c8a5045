"""Open-MAGVIT2 of SEED-Voken (Luo et al. 2024, arXiv:2409.04410); its IBQ is in taming.py."""

from genstack.checkpoints.formats.format import (
    TRAINING_TENSORS,
    Format,
    Provenance,
    Weight,
    Weights,
    load_module,
    preprocessing,
)
from genstack.checkpoints.formats.pyramid import Names, halves, sizes
from genstack.checkpoints.import_options import ImportOptions
from genstack.compressor import Autoencoder, MAGVITNetwork
from genstack.compressor.quantizers import LFQ
from genstack.errors import UserError
from genstack.model import Model

MOST_BITS = 30  # of a code with one symbol
SYMBOL_BITS = 16  # maximum number of bits of a symbol, for codes with several


class OpenMAGVIT2(Format):
    """The image tokenizer, whose codes are signs; EMA weights are used if the file has them.

    BitDance's has the same names; codes of 32 bits and more are symbols of at most 16.
    """

    what = "LFQ tokenizer of SEED-Voken (Open-MAGVIT2) or BitDance"
    provenance = Provenance(
        files="imagenet_{128,256}_L.ckpt, pretrain256_{16384,262144}.ckpt (hub: "
        "TencentARC/Open-MAGVIT2-Tokenizer-*); ae_{d16c32,d32c128,d32c256}.safetensors (hub: "
        "shallowdream204/BitDance-Tokenizer)",
        source="TencentARC/SEED-Voken, shallowdream204/BitDance",
        licence="Apache 2.0",
        weights="Apache 2.0",
        checked="latents, codes, bits, images, EMA",
    )
    required = (
        "encoder.down.0.block.0.conv1.weight",
        "encoder.mid_block.0.conv1.weight",
        "decoder.adaptive.0.gamma.weight",
        "decoder.up.0.block.0.conv1.weight",
    )
    ignored = TRAINING_TENSORS

    def model(self, weights: Weights, options: ImportOptions) -> Model:
        if "model_ema.decay" in weights:
            weights = weights.ema()
        made = tokenizer(weights)
        return Model(made, preprocessing(made, options))


def tokenizer(weights: Weights) -> Autoencoder:
    """Load the tokenizer."""
    found = sizes(weights)
    bits = weights.dims("encoder.conv_out.weight", 4)[0]
    if found.dim != bits:
        raise UserError(
            f"the decoder reads {found.dim} channels, but codes have {bits} bits; a decoder that also "
            f"reads noise (gan_decoder of BitDance) is not supported"
        )
    depth = symbols(bits)
    plan = MAGVITNetwork(found.dim, found.width, found.multipliers, found.blocks)
    return load_module(
        lambda: Autoencoder(found.channels, plan, LFQ(bits, depth), projection=0), network(weights, plan)
    )


def symbols(bits: int) -> int:
    """Smallest number of symbols of a code: one, or for many bits symbols of at most `SYMBOL_BITS`."""
    if bits <= MOST_BITS:
        return 1
    return next(depth for depth in range(2, bits + 1) if bits % depth == 0 and bits // depth <= SYMBOL_BITS)


def network(weights: Weights, plan: MAGVITNetwork) -> dict[str, Weight]:
    """Weights of encoder and decoder under our names."""
    found, top = halves(weights, plan, Names(middle="mid_block.{number}")), len(plan.multipliers) - 1
    for step in range(top):
        found |= weights.layer(f"encoder.down.{step}.downsample", f"encoder.downsamples.{step}")
        found |= weights.layer(f"decoder.up.{top - step}.upsample.conv1", f"decoder.upsamples.{step}.conv")
    for step in range(top + 1):
        look = f"decoder.adaptive.{top - step}"
        found |= weights.layer(f"{look}.gamma", f"decoder.adaptive_norms.{step}.scale")
        found |= weights.layer(f"{look}.beta", f"decoder.adaptive_norms.{step}.shift")
    return found
