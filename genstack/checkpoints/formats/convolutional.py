"""Convolutional autoencoders of other projects: layer names, architecture and weights."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from genstack.checkpoints.formats.format import Weight, Weights, load_module
from genstack.compressor import Autoencoder, Convolutional
from genstack.compressor.gaussian import Gaussian
from genstack.compressor.quantizers import IBQ, VectorQuantizer
from genstack.errors import UserError

MOST_LEVELS = 16


@dataclass(frozen=True)
class Names:
    """Names of the parts of encoder and decoder in a project.

    Args:
        down: a level of the encoder; `{level}` counts from full resolution.
        up: a level of the decoder; `{level}` counts from full resolution, `{step}` in execution order.
        block: a residual block in a level.
        attention: attention in a level.
        downsample: the convolution that downsamples.
        upsample: the convolution after upsampling.
        middle: block, attention and block at the lowest resolution.
        norm: the last normalisation.
        shortcut: the 1 x 1 convolution of a residual block.
        parts: parts of attention, from our names to theirs.
    """

    down: str = "encoder.down.{level}"
    up: str = "decoder.up.{level}"
    block: str = "block.{number}"
    attention: str = "attn.{number}"
    downsample: str = "downsample.conv"
    upsample: str = "upsample.conv"
    middle: tuple[str, str, str] = ("mid.block_1", "mid.attn_1", "mid.block_2")
    norm: str = "norm_out"
    shortcut: str = "nin_shortcut"
    parts: Mapping[str, str] = field(
        default_factory=lambda: {"norm": "norm", "query": "q", "key": "k", "value": "v", "out": "proj_out"}
    )


def plan_of(weights: Weights, names: Names, groups: int = 32) -> tuple[Convolutional, int]:
    """Architecture of a network, and the number of channels of its images."""
    width, channels, *_ = weights.dims("encoder.conv_in.weight", 4)
    levels = 0
    widths, counts, attention = [], set(), []
    while (
        levels < MOST_LEVELS
        and f"{names.down.format(level=levels)}.{first(names.block)}.conv1.weight" in weights
    ):
        place = names.down.format(level=levels)
        widths.append(weights.dims(f"{place}.{first(names.block)}.conv1.weight", 4)[0])
        counts.add(weights.count(f"{place}.{names.block.format(number='{}')}.conv1.weight"))
        if f"{place}.{first(names.attention)}.{names.parts['norm']}.weight" in weights:
            attention.append(levels)
        levels += 1
    if len(counts) != 1 or not width:
        raise UserError(
            f"all levels of the encoder must have the same number of blocks, got {sorted(counts)}"
        )
    ratios = [level / width for level in widths]
    plan = Convolutional(
        dim=weights.dims("decoder.conv_in.weight", 4)[1],
        width=width,
        multipliers=tuple(int(ratio) if ratio.is_integer() else ratio for ratio in ratios),
        blocks=counts.pop(),
        attention=tuple(attention),
        middle_attention=f"encoder.{names.middle[1]}.{names.parts['norm']}.weight" in weights,
        groups=groups,
    )
    return plan, channels


def layers(names: Names, plan: Convolutional) -> dict[str, str]:
    """Map our layer names to the project's; some shortcuts do not exist."""
    top = len(plan.multipliers) - 1
    found: dict[str, str] = {}
    for half, blocks in (("encoder", plan.blocks), ("decoder", plan.blocks + 1)):
        found[f"{half}.first"] = f"{half}.conv_in"
        found[f"{half}.norm"] = f"{half}.{names.norm}"
        found[f"{half}.last"] = f"{half}.conv_out"
        for theirs, ours in zip(names.middle, ("before", "attention", "after"), strict=True):
            if ours != "attention":
                found |= block(names, f"{half}.{theirs}", f"{half}.middle.{ours}")
            elif plan.middle_attention:
                found |= attention(names, f"{half}.{theirs}", f"{half}.middle.{ours}")
        for step in range(top + 1):
            level = step if half == "encoder" else top - step
            template = names.down if half == "encoder" else names.up
            place, ours = template.format(level=level, step=step), f"{half}.levels.{step}"
            for number in range(blocks):
                found |= block(
                    names, f"{place}.{names.block.format(number=number)}", f"{ours}.blocks.{number}"
                )
                if level in plan.attention:
                    theirs = f"{place}.{names.attention.format(number=number)}"
                    found |= attention(names, theirs, f"{ours}.attentions.{number}")
            if step < top:
                way = ("downsample", names.downsample) if half == "encoder" else ("upsample", names.upsample)
                found[f"{half}.{way[0]}s.{step}.conv"] = f"{place}.{way[1]}"
    return found


def block(names: Names, theirs: str, ours: str) -> dict[str, str]:
    """Layers of a residual block."""
    found = {f"{ours}.{part}": f"{theirs}.{part}" for part in ("norm1", "conv1", "norm2", "conv2")}
    return found | {f"{ours}.shortcut": f"{theirs}.{names.shortcut}"}


def attention(names: Names, theirs: str, ours: str) -> dict[str, str]:
    """Layers of attention."""
    return {f"{ours}.{part}": f"{theirs}.{name}" for part, name in names.parts.items()}


def network(weights: Weights, names: Names, plan: Convolutional) -> dict[str, Weight]:
    """Weights of encoder and decoder under our names; 1 x 1 convolutions may be stored as matrices."""
    found: dict[str, Weight] = {}
    for ours, theirs in layers(names, plan).items():
        if ours.endswith(".shortcut") and f"{theirs}.weight" not in weights:
            continue
        for key, weight in weights.layer(theirs, ours).items():
            found[key] = weight.map(lambda each: each[..., None, None]) if len(weight.shape) == 2 else weight
    return found


def first(template: str) -> str:
    """Name of the first part of a kind."""
    return template.format(number=0)


def compressor(
    weights: Weights,
    names: Names = Names(),
    groups: int = 32,
    normalize: bool = False,
    products: bool = False,
) -> Autoencoder:
    """Load an autoencoder with one codebook."""
    plan, channels = plan_of(weights, names, groups)
    size, dim = weights.dims("quantize.embedding.weight", 2)
    side = weights.dims("quant_conv.weight", 4)[-1]
    found = network(weights, names, plan)
    found |= weights.layer("quant_conv", "to_quantizer") | weights.layer("post_quant_conv", "from_quantizer")
    rows = "quantizer.rows" if products else "quantizer.codebook.weight"
    found[rows] = weights.take("quantize.embedding.weight")

    def build() -> Autoencoder:
        quantizer = IBQ(size, dim) if products else VectorQuantizer(size, dim, normalize=normalize)
        return Autoencoder(channels, plan, quantizer, projection=side)

    return load_module(build, found)


def gaussian(
    weights: Weights,
    names: Names = Names(),
    groups: int = 32,
    shift: float = 0.0,
    scale: float | None = None,
) -> Autoencoder:
    """Load an autoencoder with normal distributions as latents (KL of latent-diffusion).

    SD3 and FLUX have no convolutions around the latents. `Gaussian` explains `shift` and `scale`.
    """
    plan, channels = plan_of(weights, names, groups)
    plan, side, dim = replace(plan, double=True), 0, plan.dim
    found = network(weights, names, plan)
    if "quant_conv.weight" in weights:
        dim, side = weights.dims("post_quant_conv.weight", 4)[1], weights.dims("quant_conv.weight", 4)[-1]
        found |= weights.layer("quant_conv", "to_quantizer")
        found |= weights.layer("post_quant_conv", "from_quantizer")

    def build() -> Autoencoder:
        return Autoencoder(channels, plan, Gaussian(dim, shift=shift, scale=scale), projection=side)

    return load_module(build, found)
