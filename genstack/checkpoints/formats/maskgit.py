"""MaskGIT's VQGAN as 1d-tokenizer publishes it (Chang et al. 2022, arXiv:2202.04200; Yu et al. 2024)."""

from genstack.checkpoints.formats.format import Format, Options, Weight, Weights, filled, preprocessing
from genstack.compressor import Autoencoder, MaskGITNetwork
from genstack.compressor.quantizers import VectorQuantizer
from genstack.errors import UserError
from genstack.model import Model


class MaskGITVQGAN(Format):
    """The tokenizer of MaskGIT and TiTok's teacher: no attention, no biases, pixels in [0, 1]."""

    what = "VQGAN of MaskGIT, as 1d-tokenizer writes it"
    marks = (
        "encoder.down.0.block.0.conv1.weight",
        "encoder.mid.0.conv1.weight",
        "decoder.up.0.block.0.conv1.weight",
        "quantize.embedding.weight",
    )
    unlike = ("quant_conv.weight", "encoder.mid.block_1.conv1.weight")

    def model(self, weights: Weights, options: Options) -> Model:
        plan, channels = plan_of(weights)
        size, dim = weights.dims("quantize.embedding.weight", 2)
        found = network(weights, plan)
        found["quantizer.codebook.weight"] = weights.take("quantize.embedding.weight")
        made = filled(
            lambda: Autoencoder(channels, plan, VectorQuantizer(size, dim, normalize=False), projection=0),
            found,
        )
        return Model(made, preprocessing(made, options))


def plan_of(weights: Weights) -> tuple[MaskGITNetwork, int]:
    """The plan that the tensors follow, and the channels of the images."""
    width, channels, *_ = weights.dims("encoder.conv_in.weight", 4)
    levels = weights.count("encoder.down.{}.block.0.conv1.weight")
    widths = [weights.dims(f"encoder.down.{level}.block.0.conv1.weight", 4)[0] for level in range(levels)]
    if not width or any(each % width for each in widths):
        raise UserError(f"levels of {widths} channels are no multiples of the first, {width}")
    plan = MaskGITNetwork(
        dim=weights.dims("decoder.conv_in.weight", 4)[1],
        width=width,
        multipliers=tuple(each // width for each in widths),
        blocks=weights.count("encoder.down.0.block.{}.conv1.weight"),
        unit=True,
    )
    return plan, channels


def network(weights: Weights, plan: MaskGITNetwork) -> dict[str, Weight]:
    """The weights of both halves under our names; their decoder counts levels from full resolution."""
    top = len(plan.multipliers) - 1
    found: dict[str, Weight] = {}
    for half in ("encoder", "decoder"):
        for theirs, ours in (("conv_in", "first"), ("norm_out", "norm"), ("conv_out", "last")):
            found |= weights.both(f"{half}.{theirs}", f"{half}.{ours}")
        for number in range(plan.blocks):
            found |= block(weights, f"{half}.mid.{number}", f"{half}.middle.blocks.{number}")
        for step in range(top + 1):
            place = f"encoder.down.{step}" if half == "encoder" else f"decoder.up.{top - step}"
            for number in range(plan.blocks):
                ours = f"{half}.levels.{step}.blocks.{number}"
                found |= block(weights, f"{place}.block.{number}", ours)
            if half == "decoder" and step < top:
                found |= weights.both(f"{place}.upsample_conv", f"decoder.upsamples.{step}.conv")
    return found


def block(weights: Weights, theirs: str, ours: str) -> dict[str, Weight]:
    """A residual block."""
    found: dict[str, Weight] = {}
    for part in ("norm1", "conv1", "norm2", "conv2"):
        found |= weights.both(f"{theirs}.{part}", f"{ours}.{part}")
    if f"{theirs}.nin_shortcut.weight" in weights:
        found |= weights.both(f"{theirs}.nin_shortcut", f"{ours}.shortcut")
    return found
