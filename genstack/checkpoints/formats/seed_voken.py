"""Open-MAGVIT2 of SEED-Voken (Luo et al. 2024, arXiv:2409.04410); its IBQ is in taming.py."""

from genstack.checkpoints.formats.format import (
    TRAINING_TENSORS,
    Format,
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

MOST_BITS = 30  # of a code


class OpenMAGVIT2(Format):
    """The image tokenizer, whose codes are signs; EMA weights are used if the file has them."""

    what = "LFQ tokenizer of SEED-Voken (Open-MAGVIT2)"
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
        found = sizes(weights)
        if not 1 <= found.dim <= MOST_BITS:
            raise UserError(f"codes must have 1 to {MOST_BITS} bits, got {found.dim}")
        plan = MAGVITNetwork(found.dim, found.width, found.multipliers, found.blocks)
        made = load_module(
            lambda: Autoencoder(found.channels, plan, LFQ(plan.dim), projection=0), network(weights, plan)
        )
        return Model(made, preprocessing(made, options))


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
