"""Open-MAGVIT2 of SEED-Voken (Luo et al. 2024, arXiv:2409.04410); its IBQ has the names of taming."""

from genstack.checkpoints.formats.averages import AROUND, averaged
from genstack.checkpoints.formats.format import Format, Options, Weight, Weights, filled, preprocessing
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

    def model(self, weights: Weights, options: Options) -> Model:
        if "model_ema.decay" in weights:
            weights = averaged(weights)
        plan, channels = plan_of(weights)
        found = network(weights, plan)
        made = filled(lambda: Autoencoder(channels, plan, LFQ(plan.dim), projection=0), found)
        return Model(made, preprocessing(made, options))


def plan_of(weights: Weights) -> tuple[MAGVITNetwork, int]:
    """The plan that the tensors follow, and the channels of the images."""
    width, channels, *_ = weights.dims("encoder.conv_in.weight", 4)
    levels = weights.count("encoder.down.{}.block.0.conv1.weight")
    widths = [weights.dims(f"encoder.down.{level}.block.0.conv1.weight", 4)[0] for level in range(levels)]
    dim = weights.dims("decoder.conv_in.weight", 4)[1]
    if not width or any(each % width for each in widths):
        raise UserError(f"levels of {widths} channels are no multiples of the first, {width}")
    if not 1 <= dim <= MOST_BITS:
        raise UserError(f"codes of {dim} bits are not supported; {MOST_BITS} are the most")
    plan = MAGVITNetwork(
        dim=dim,
        width=width,
        multipliers=tuple(each // width for each in widths),
        blocks=weights.count("encoder.down.0.block.{}.conv1.weight"),
    )
    return plan, channels


def network(weights: Weights, plan: MAGVITNetwork) -> dict[str, Weight]:
    """The weights of both halves under our names; their decoder counts levels from full resolution."""
    top = len(plan.multipliers) - 1
    found: dict[str, Weight] = {}
    for half in ("encoder", "decoder"):
        for theirs, ours in (("conv_in", "first"), ("norm_out", "norm"), ("conv_out", "last")):
            found |= weights.both(f"{half}.{theirs}", f"{half}.{ours}")
        for number in range(plan.blocks):
            found |= block(weights, f"{half}.mid_block.{number}", f"{half}.middle.blocks.{number}")
        for step in range(top + 1):
            place = f"encoder.down.{step}" if half == "encoder" else f"decoder.up.{top - step}"
            for number in range(plan.blocks):
                ours = f"{half}.levels.{step}.blocks.{number}"
                found |= block(weights, f"{place}.block.{number}", ours)
            if half == "encoder" and step < top:
                found |= weights.both(f"{place}.downsample", f"encoder.downsamples.{step}")
            if half == "decoder" and step < top:
                found |= weights.both(f"{place}.upsample.conv1", f"decoder.upsamples.{step}.conv")
            if half == "decoder":
                look = f"decoder.adaptive.{top - step}"
                found |= weights.both(f"{look}.gamma", f"decoder.looks.{step}.scale")
                found |= weights.both(f"{look}.beta", f"decoder.looks.{step}.shift")
    return found


def block(weights: Weights, theirs: str, ours: str) -> dict[str, Weight]:
    """A residual block."""
    found: dict[str, Weight] = {}
    for part in ("norm1", "conv1", "norm2", "conv2"):
        found |= weights.both(f"{theirs}.{part}", f"{ours}.{part}")
    if f"{theirs}.nin_shortcut.weight" in weights:
        found |= weights.both(f"{theirs}.nin_shortcut", f"{ours}.shortcut")
    return found
