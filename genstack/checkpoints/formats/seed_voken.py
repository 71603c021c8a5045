"""Open-MAGVIT2 of SEED-Voken (Luo et al. 2024, arXiv:2409.04410); its IBQ has the names of taming."""

from genstack.checkpoints.formats.averages import AROUND, ema_weights
from genstack.checkpoints.formats.format import Format, Weight, Weights, filled, preprocessing
from genstack.checkpoints.formats.pyramid import Names, halves, sizes
from genstack.checkpoints.import_options import ImportOptions
from genstack.compressor import Autoencoder, MAGVITNetwork
from genstack.compressor.quantizers import LFQ
from genstack.errors import UserError
from genstack.model import Model

MOST_BITS = 30  # of a code, which is one symbol


class OpenMAGVIT2(Format):
    """The tokenizer of images. Its codes are signs, and no table; averaged weights are those to use."""

    what = "LFQ tokenizer of SEED-Voken (Open-MAGVIT2)"
    marks = (
        "encoder.down.0.block.0.conv1.weight",
        "encoder.mid_block.0.conv1.weight",
        "decoder.adaptive.0.gamma.weight",
        "decoder.up.0.block.0.conv1.weight",
    )
    beside = AROUND

    def model(self, weights: Weights, options: ImportOptions) -> Model:
        if "model_ema.decay" in weights:
            weights = ema_weights(weights)
        found = sizes(weights)
        if not 1 <= found.dim <= MOST_BITS:
            raise UserError(f"codes of {found.dim} bits are not supported; {MOST_BITS} are the most")
        plan = MAGVITNetwork(found.dim, found.width, found.multipliers, found.blocks)
        made = filled(
            lambda: Autoencoder(found.channels, plan, LFQ(plan.dim), projection=0), network(weights, plan)
        )
        return Model(made, preprocessing(made, options))


def network(weights: Weights, plan: MAGVITNetwork) -> dict[str, Weight]:
    """The weights of both halves under our names."""
    found, top = halves(weights, plan, Names(middle="mid_block.{number}")), len(plan.multipliers) - 1
    for step in range(top):
        found |= weights.both(f"encoder.down.{step}.downsample", f"encoder.downsamples.{step}")
        found |= weights.both(f"decoder.up.{top - step}.upsample.conv1", f"decoder.upsamples.{step}.conv")
    for step in range(top + 1):
        look = f"decoder.adaptive.{top - step}"
        found |= weights.both(f"{look}.gamma", f"decoder.looks.{step}.scale")
        found |= weights.both(f"{look}.beta", f"decoder.looks.{step}.shift")
    return found
