"""Levels of residual blocks under the names of taming, which later projects kept: their sizes and weights."""

from dataclasses import dataclass

from genstack.checkpoints.formats.format import Weight, Weights
from genstack.compressor.networks.pyramid import Pyramid
from genstack.errors import UserError


@dataclass(frozen=True)
class Sizes:
    """Arguments of a plan that follow from the tensors, and the channels of the images."""

    channels: int
    dim: int
    width: int
    multipliers: tuple[int, ...]
    blocks: int


def sizes(weights: Weights) -> Sizes:
    """The sizes that the tensors of an encoder have."""
    width, channels, *_ = weights.dims("encoder.conv_in.weight", 4)
    levels = weights.count("encoder.down.{}.block.0.conv1.weight")
    widths = [weights.dims(f"encoder.down.{level}.block.0.conv1.weight", 4)[0] for level in range(levels)]
    if not width or any(each % width for each in widths):
        raise UserError(f"levels of {widths} channels are no multiples of the first, {width}")
    return Sizes(
        channels,
        dim=weights.dims("decoder.conv_in.weight", 4)[1],
        width=width,
        multipliers=tuple(each // width for each in widths),
        blocks=weights.count("encoder.down.0.block.{}.conv1.weight"),
    )


def halves(weights: Weights, plan: Pyramid, middle: str) -> dict[str, Weight]:
    """Both halves under our names, but for what is between levels. They count levels from full resolution."""
    levels = len(plan.multipliers)
    found: dict[str, Weight] = {}
    for half, way, order in (("encoder", "down", range(levels)), ("decoder", "up", range(levels)[::-1])):
        for theirs, ours in (("conv_in", "first"), ("norm_out", "norm"), ("conv_out", "last")):
            found |= weights.both(f"{half}.{theirs}", f"{half}.{ours}")
        for number in range(plan.blocks):
            found |= block(weights, f"{half}.{middle}.{number}", f"{half}.middle.blocks.{number}")
            for step, level in enumerate(order):
                theirs, ours = f"{half}.{way}.{level}.block.{number}", f"{half}.levels.{step}.blocks.{number}"
                found |= block(weights, theirs, ours)
    return found


def block(weights: Weights, theirs: str, ours: str) -> dict[str, Weight]:
    """A residual block."""
    found: dict[str, Weight] = {}
    for part in ("norm1", "conv1", "norm2", "conv2"):
        found |= weights.both(f"{theirs}.{part}", f"{ours}.{part}")
    if f"{theirs}.nin_shortcut.weight" in weights:
        found |= weights.both(f"{theirs}.nin_shortcut", f"{ours}.shortcut")
    return found
