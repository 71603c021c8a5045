"""Levels of residual blocks under the names of taming and of the projects after it: sizes and weights."""

from dataclasses import dataclass
from math import gcd

from genstack.checkpoints.formats.format import Weight, Weights
from genstack.compressor.networks.pyramid import Pyramid
from genstack.errors import UserError


@dataclass(frozen=True)
class Names:
    """Names that a project gives to the blocks of an encoder or a decoder.

    Args:
        down: a level of the encoder; `{level}` counts from full resolution.
        up: a level of the decoder; `{level}` counts from full resolution, `{step}` in the order of running.
        block: a residual block within a level.
        middle: a block at the smallest size.
    """

    down: str = "down.{level}"
    up: str = "up.{level}"
    block: str = "block.{number}"
    middle: str = "mid.{number}"


@dataclass(frozen=True)
class Sizes:
    """Arguments of a plan that follow from the tensors, and the channels of the images."""

    channels: int
    dim: int
    width: int
    multipliers: tuple[int, ...]
    blocks: int


def sizes(weights: Weights, names: Names = Names()) -> Sizes:
    """The sizes that the tensors of an encoder have, and the decoder's number of channels."""
    width, channels, *_ = weights.dims("encoder.conv_in.weight", 4)
    first = f"encoder.{names.down}.{names.block}.conv1.weight"
    widths = level_widths(weights, first)
    if not width or any(each % width for each in widths):
        raise UserError(f"levels of {widths} channels are no multiples of the first, {width}")
    return Sizes(
        channels,
        dim=weights.dims("decoder.conv_in.weight", 4)[1],
        width=width,
        multipliers=tuple(each // width for each in widths),
        blocks=weights.count(first.format(level=0, number="{}")),
    )


def decoder_sizes(weights: Weights, names: Names = Names()) -> Sizes:
    """The sizes that the tensors of a decoder without its encoder have."""
    first = f"{names.up}.{names.block}.conv1.weight"
    widths = level_widths(weights, first)
    width = gcd(*widths)
    if not width:
        raise UserError(f"{weights.prefix}{first.format(level=0, step=0, number=0)} is missing")
    return Sizes(
        channels=weights.dims("conv_out.weight", 4)[0],
        dim=weights.dims("conv_in.weight", 4)[1],
        width=width,
        multipliers=tuple(each // width for each in widths),
        blocks=weights.count(first.format(level=0, step=0, number="{}")),
    )


def level_widths(weights: Weights, first: str) -> list[int]:
    """Channels of each level, from the template of the name of a block's first convolution."""
    levels = weights.count(first.format(level="{0}", step="{0}", number=0))
    return [weights.dims(first.format(level=level, step=level, number=0), 4)[0] for level in range(levels)]


def halves(weights: Weights, plan: Pyramid, names: Names = Names()) -> dict[str, Weight]:
    """Both halves under our names, but for what is between levels."""
    found = under("encoder", encoder(weights.inside("encoder."), plan, names))
    return found | under("decoder", decoder(weights.inside("decoder."), plan, names))


def encoder(weights: Weights, plan: Pyramid, names: Names = Names()) -> dict[str, Weight]:
    """An encoder under our names, but for what is between levels."""
    return half(weights, [names.down.format(level=level) for level in range(len(plan.multipliers))], names)


def decoder(weights: Weights, plan: Pyramid, names: Names = Names()) -> dict[str, Weight]:
    """A decoder under our names, but for what is between levels."""
    top = len(plan.multipliers) - 1
    return half(weights, [names.up.format(level=top - step, step=step) for step in range(top + 1)], names)


def half(weights: Weights, levels: list[str], names: Names) -> dict[str, Weight]:
    """An encoder or decoder under our names, but for what is between its levels; these run in order."""
    found: dict[str, Weight] = {}
    for theirs, ours in (("conv_in", "first"), ("norm_out", "norm"), ("conv_out", "last")):
        found |= weights.both(theirs, ours)
    for number in range(weights.count(f"{levels[0]}.{names.block}.conv1.weight".replace("{number}", "{}"))):
        found |= block(weights, names.middle.format(number=number), f"middle.blocks.{number}")
        for step, level in enumerate(levels):
            theirs = f"{level}.{names.block.format(number=number)}"
            found |= block(weights, theirs, f"levels.{step}.blocks.{number}")
    return found


def under(place: str, found: dict[str, Weight]) -> dict[str, Weight]:
    """The weights of a module within another, under the names of that one."""
    return {f"{place}.{name}": weight for name, weight in found.items()}


def block(weights: Weights, theirs: str, ours: str) -> dict[str, Weight]:
    """A residual block."""
    found: dict[str, Weight] = {}
    for part in ("norm1", "conv1", "norm2", "conv2"):
        found |= weights.both(f"{theirs}.{part}", f"{ours}.{part}")
    if f"{theirs}.nin_shortcut.weight" in weights:
        found |= weights.both(f"{theirs}.nin_shortcut", f"{ours}.shortcut")
    return found
