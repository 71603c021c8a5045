"""Sizes of models for `--size`: widths, depths and learning rates that go together.

size   transformers in priors  ViT              TiTok     convolutional compressors
tiny   DeiT-Ti                 DeiT-Ti          DeiT-Ti   boards in benchmarks/README.md
small  DiT-S                   ViT-VQGAN small  TiTok-S   recipes of genstack
base   DiT-B                   ViT-VQGAN base   TiTok-B   VQGAN
large  DiT-L                   ViT-VQGAN large  TiTok-L   Open-MAGVIT2: VQGAN with four blocks per level

DeiT: arXiv:2012.12877. DiT: arXiv:2212.09748; LlamaGen (arXiv:2406.06525) has the same sizes B and L.
ViT-VQGAN: arXiv:2110.04627, table 2. TiTok: arXiv:2406.07550. VQGAN: arXiv:2012.09841. Open-MAGVIT2:
arXiv:2409.04410.

size   DVAE             Strided            GatedPixelCNN   PixelSNAIL
tiny   half of `small`  half of `small`    half of `small` half of `small`
small  recipe           VQ-VAE-2           recipe          recipe
base   DALL-E           VQ-VAE             ImageNet        half of `large`
large  twice the blocks twice VQ-VAE       VQ-VAE-2        VQ-VAE-2, coarse grid

DALL-E: arXiv:2102.12092. VQ-VAE: arXiv:1711.00937. VQ-VAE-2: arXiv:1906.00446, tables 4 and 5. ImageNet:
arXiv:1606.05328. Where a size is half or twice another, it is not of a paper.

Learning rates of priors are the recipes' rate at width 384 (192 for convolutional priors), and fall with the
square root of the width. Compressors have the recipes' rates up to `small`, except for the rate of Muon in
`tiny` transformers, which grows with the square root of the ratio of widths. From `base` on, they have the
papers' 1e-4 without Muon; for convolutional ones, this is LlamaGen's, for `Strided` it is VQ-VAE's 2e-4.
Sizes above `small` were not trained to the end here.
"""

from collections.abc import Iterator, Mapping
from typing import Any, Literal, get_args

from genstack.cli.commands import Command
from genstack.cli.parsing.layers import Layers
from genstack.cli.parsing.source import choices
from genstack.errors import UserError

Size = Literal["tiny", "small", "base", "large"]
SIZES: tuple[str, ...] = get_args(Size)
Table = Mapping[str, Mapping[str, Any]]

BACKBONE: Table = {
    "tiny": {"width": 192, "depth": 12, "heads": 3},
    "small": {"width": 384, "depth": 12, "heads": 6},
    "base": {"width": 768, "depth": 12, "heads": 12},
    "large": {"width": 1024, "depth": 24, "heads": 16},
}
VIT: Table = {
    "tiny": {"width": 192, "depth": 12, "heads": 3},
    "small": {"width": 512, "depth": 8, "heads": 8},
    "base": {"width": 768, "depth": 12, "heads": 12},
    "large": {"width": 1280, "depth": 32, "heads": 16},
}
TITOK: Table = {**VIT, "large": {"width": 1024, "depth": 24, "heads": 16}}
PYRAMID: Table = {
    "tiny": {"width": 32, "blocks": 1},
    "small": {"width": 64, "blocks": 2},
    "base": {"width": 128, "blocks": 2},
    "large": {"width": 128, "blocks": 4},
}
DVAE: Table = {
    "tiny": {"width": 64, "blocks": 2},
    "small": {"width": 128, "blocks": 2},
    "base": {"width": 256, "blocks": 2},
    "large": {"width": 256, "blocks": 4},
}
STRIDED: Table = {
    "tiny": {"dim": 64, "inner": 32, "blocks": 2},
    "small": {"dim": 128, "inner": 64, "blocks": 2},
    "base": {"dim": 256, "inner": 256, "blocks": 2},
    "large": {"dim": 512, "inner": 512, "blocks": 2},
}
PIXELCNN: Table = {
    "tiny": {"width": 96, "layers": 12},
    "small": {"width": 192, "layers": 12},
    "base": {"width": 384, "layers": 20},
    "large": {"width": 512, "layers": 20},
}
PIXELSNAIL: Table = {
    "tiny": {"width": 96, "blocks": 4, "layers": 4},
    "small": {"width": 192, "blocks": 4, "layers": 4},
    "base": {"width": 256, "blocks": 4, "layers": 5},
    "large": {"width": 512, "blocks": 4, "layers": 5},
}
#: Settings of each class by size.
PARTS: Mapping[str, Table] = {
    "Backbone": BACKBONE,
    "ViT": VIT,
    "TiTok": TITOK,
    "Convolutional": PYRAMID,
    "MaskGITNetwork": PYRAMID,
    "MAGVITNetwork": PYRAMID,
    "DVAE": DVAE,
    "Strided": STRIDED,
    "GatedPixelCNN": PIXELCNN,
    "PixelSNAIL": PIXELSNAIL,
}
PUBLISHED_RATES: Table = {
    "base": {"learning_rate": 1e-4, "muon": None},
    "large": {"learning_rate": 1e-4, "muon": None},
}
#: Settings of the optimization by class and size; others stay as in the recipe.
RATES: Mapping[str, Table] = {
    "Backbone": {
        "tiny": {"learning_rate": 5.7e-4},
        "small": {"learning_rate": 4e-4},
        "base": {"learning_rate": 2.8e-4},
        "large": {"learning_rate": 2.4e-4},
    },
    "ViT": {"tiny": {"muon": 8e-3}, **PUBLISHED_RATES},
    "TiTok": {"tiny": {"muon": 1.6e-2}, **PUBLISHED_RATES},
    "Convolutional": PUBLISHED_RATES,
    "MaskGITNetwork": PUBLISHED_RATES,
    "MAGVITNetwork": PUBLISHED_RATES,
    "DVAE": PUBLISHED_RATES,
    "Strided": {"base": {"learning_rate": 2e-4}, "large": {"learning_rate": 2e-4}},
    "GatedPixelCNN": {
        "tiny": {"learning_rate": 5.7e-4},
        "small": {"learning_rate": 4e-4},
        "base": {"learning_rate": 2.8e-4},
        "large": {"learning_rate": 2.4e-4},
    },
    "PixelSNAIL": {
        "tiny": {"learning_rate": 5.7e-4},
        "small": {"learning_rate": 4e-4},
        "base": {"learning_rate": 3.5e-4},
        "large": {"learning_rate": 2.4e-4},
    },
}


def size_settings(command: Command, layers: Layers, size: str) -> dict[str, Any]:
    """Return the settings of a size for the classes that other settings choose.

    Raises:
        UserError: the size is unknown, or none of the classes has sizes.
    """
    if size not in SIZES:
        raise UserError(f"unknown --size '{size}'; choose from {', '.join(SIZES)}")
    found = dict(chosen_classes(command, layers, "model"))
    sized = {place: name for place, name in found.items() if name in PARTS}
    if not sized:
        names = ", ".join(name for place, name in found.items() if place.endswith((".network", ".prior")))
        raise UserError(
            f"--size: no sizes for {names or 'this model'}; leave it out, or use {', '.join(PARTS)}"
        )
    settings: dict[str, Any] = {}
    for place, name in sized.items():
        insert(settings, place, PARTS[name][size])
        insert(settings, "model.optimization", RATES[name].get(size, {}))
    return settings


def insert(settings: dict[str, Any], place: str, values: Mapping[str, Any]) -> None:
    """Put values at a dotted place of mappings in mappings."""
    for name in place.split("."):
        settings = settings.setdefault(name, {})
    settings.update(values)


def chosen_classes(command: Command, layers: Layers, place: str) -> Iterator[tuple[str, str]]:
    """The classes that are chosen below a place, by place."""
    for name, argument in layers.settings(command, place).items():
        below = f"{place}.{name}"
        if choices(argument) and (part := layers.part(argument, below)) and below.count(".") < 5:
            yield below, part[0].node.name
            yield from chosen_classes(command, layers, below)
