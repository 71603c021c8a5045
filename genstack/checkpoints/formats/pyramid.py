"""Pyramids of residual blocks in taming and later projects: architecture and weights."""

from dataclasses import dataclass
from math import gcd

from genstack.checkpoints.formats.format import Weight, Weights
from genstack.compressor.networks.pyramid import Pyramid
from genstack.errors import UserError


@dataclass(frozen=True)
class Names:
    """Names of the blocks of encoder and decoder in a project; see `convolutional.Names`."""

    down: str = "down.{level}"
    up: str = "up.{level}"
    block: str = "block.{number}"
    middle: str = "mid.{number}"


@dataclass(frozen=True)
class Sizes:
    """Sizes of a network, and the number of channels of its images."""

    channels: int
    dim: int
    width: int
    multipliers: tuple[int, ...]
    blocks: int


def sizes(weights: Weights, names: Names = Names()) -> Sizes:
    """Sizes of an encoder and its decoder."""
    width, channels, *_ = weights.dims("encoder.conv_in.weight", 4)
    first = f"encoder.{names.down}.{names.block}.conv1.weight"
    widths = level_widths(weights, first)
    if not width or any(each % width for each in widths):
        raise UserError(f"channels of all levels must be multiples of {width}, got {widths}")
    return Sizes(
        channels,
        dim=weights.dims("decoder.conv_in.weight", 4)[1],
        width=width,
        multipliers=tuple(each // width for each in widths),
        blocks=weights.count(first.format(level=0, number="{}")),
    )


def decoder_sizes(weights: Weights, names: Names = Names()) -> Sizes:
    """Sizes of a decoder alone."""
    first = f"{names.up}.{names.block}.conv1.weight"
    widths = level_widths(weights, first)
    width = gcd(*widths)
    if not width:
        raise UserError(f"tensor {weights.prefix}{first.format(level=0, step=0, number=0)} not found")
    return Sizes(
        channels=weights.dims("conv_out.weight", 4)[0],
        dim=weights.dims("conv_in.weight", 4)[1],
        width=width,
        multipliers=tuple(each // width for each in widths),
        blocks=weights.count(first.format(level=0, step=0, number="{}")),
    )


def level_widths(weights: Weights, first: str) -> list[int]:
    """Channels of each level; `first` is the name of a block's first convolution."""
    levels = weights.count(first.format(level="{0}", step="{0}", number=0))
    return [weights.dims(first.format(level=level, step=level, number=0), 4)[0] for level in range(levels)]


def halves(weights: Weights, plan: Pyramid, names: Names = Names()) -> dict[str, Weight]:
    """Encoder and decoder under our names, without the layers between levels."""
    found = under("encoder", encoder(weights.inside("encoder."), plan, names))
    return found | under("decoder", decoder(weights.inside("decoder."), plan, names))


def encoder(weights: Weights, plan: Pyramid, names: Names = Names()) -> dict[str, Weight]:
    """Encoder under our names, without the layers between levels."""
    return half(weights, [names.down.format(level=level) for level in range(len(plan.multipliers))], names)


def decoder(weights: Weights, plan: Pyramid, names: Names = Names()) -> dict[str, Weight]:
    """Decoder under our names, without the layers between levels."""
    top = len(plan.multipliers) - 1
    return half(weights, [names.up.format(level=top - step, step=step) for step in range(top + 1)], names)


def half(weights: Weights, levels: list[str], names: Names) -> dict[str, Weight]:
    """Encoder or decoder under our names, without the layers between levels, which are in execution order."""
    found: dict[str, Weight] = {}
    for theirs, ours in (("conv_in", "first"), ("norm_out", "norm"), ("conv_out", "last")):
        found |= weights.layer(theirs, ours)
    for number in range(weights.count(f"{levels[0]}.{names.block}.conv1.weight".replace("{number}", "{}"))):
        found |= block(weights, names.middle.format(number=number), f"middle.blocks.{number}")
        for step, level in enumerate(levels):
            theirs = f"{level}.{names.block.format(number=number)}"
            found |= block(weights, theirs, f"levels.{step}.blocks.{number}")
    return found


def under(place: str, found: dict[str, Weight]) -> dict[str, Weight]:
    """Add a prefix to the names of weights."""
    return {f"{place}.{name}": weight for name, weight in found.items()}


def block(weights: Weights, theirs: str, ours: str) -> dict[str, Weight]:
    """Layers of a residual block."""
    found: dict[str, Weight] = {}
    for part in ("norm1", "conv1", "norm2", "conv2"):
        found |= weights.layer(f"{theirs}.{part}", f"{ours}.{part}")
    if f"{theirs}.nin_shortcut.weight" in weights:
        found |= weights.layer(f"{theirs}.nin_shortcut", f"{ours}.shortcut")
    return found
