"""EfficientNet-Lite0, a small ImageNet classifier (Tan & Le 2019, arXiv:1905.11946).

Its weights come from the package index, for machines that reach nothing else.
"""

from dataclasses import dataclass
from pathlib import Path

import torch
from einops import reduce
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import interpolate, pad, relu6

from genstack import pretrained
from genstack.errors import UserError
from genstack.losses.features import Features, ImageFeatures

#: Blocks, side of the kernel, stride, expansion and channels of each stage.
STAGES = (
    (1, 3, 1, 1, 16),
    (2, 3, 2, 6, 24),
    (2, 5, 2, 6, 40),
    (3, 3, 2, 6, 80),
    (3, 5, 1, 6, 112),
    (4, 5, 2, 6, 192),
    (1, 3, 1, 6, 320),
)
MAPS = {2: 4, 4: 8, 10: 16, 15: 32}  # blocks whose output is a map, and its stride
SMALLEST = 32  # stride of the coarsest map


@dataclass(frozen=True)
class EfficientNetLite0(Features):
    """Classifier of 1,000 ImageNet classes, 19 MB; weights: `genstack weights list`.

    Args:
        size: shorter side after resizing (224 in its training); null for no resizing, from 32 pixels on.
        weights: file of the weights; by default the downloaded ones.
    """

    size: int | None = 112
    weights: str | None = None

    def __post_init__(self) -> None:
        if self.size is not None and self.size < SMALLEST:
            raise UserError(
                f"size {self.size} of EfficientNetLite0 is out of range; it must be at least {SMALLEST}"
            )

    @property
    def widths(self) -> tuple[int, ...]:
        return 24, 40, 112, 320

    def input_size(self, height: int, width: int) -> tuple[int, int]:
        """Return the size of images after resizing."""
        if self.size is None:
            return height, width
        scale = self.size / min(height, width)
        return round(height * scale), round(width * scale)

    def grids(self, height: int, width: int) -> tuple[tuple[int, int], ...]:
        height, width = self.input_size(height, width)
        if min(height, width) < SMALLEST:
            raise UserError(
                f"EfficientNetLite0 needs images of {SMALLEST} x {SMALLEST} pixels or more, got "
                f"{height} x {width}; set `size` to resize them, such as 112"
            )
        return tuple((height // stride, width // stride) for stride in MAPS.values())

    def build(self) -> nn.Module:
        path = None if self.weights is None else Path(self.weights).expanduser()
        with torch.device("meta"):
            network = Classifier(self)
        published = pretrained.load("efficientnet-lite0", path)
        network.load_state_dict(
            {name: published[published_name(name)] for name in network.state_dict()}, assign=True
        )
        return network.eval().requires_grad_(False)


class Classifier(nn.Module):
    """Network of `EfficientNetLite0`: a convolution, 16 blocks, a convolution, 1,000 logits."""

    def __init__(self, config: EfficientNetLite0):
        super().__init__()
        self.config = config
        self.stem = Unit(3, 32, kernel=3, stride=2)
        self.blocks, width = nn.ModuleList(), 32
        for blocks, kernel, stride, expansion, after in STAGES:
            for block in range(blocks):
                self.blocks.append(Block(width, after, kernel, 1 if block else stride, expansion))
                width = after
        self.head = Unit(width, 1280)
        self.classifier = nn.Linear(1280, 1000)

    def forward(self, images: Float[Tensor, "b 3 H W"]) -> ImageFeatures:
        size = self.config.input_size(*images.shape[-2:])
        if size != images.shape[-2:]:
            images = interpolate(images, size, mode="bilinear", antialias=True, align_corners=False)
        features, maps = relu6(self.stem((127.5 * images + 0.5) / 128)), []
        for number, block in enumerate(self.blocks):
            features = block(features)
            if number in MAPS:
                maps.append(features)
        pooled = reduce(relu6(self.head(features)), "b d h w -> b d", "mean")
        return ImageFeatures(maps, pooled, self.classifier(pooled))


class Block(nn.Module):
    """Inverted residual block: expand, depthwise convolution, project."""

    def __init__(self, before: int, after: int, kernel: int, stride: int, expansion: int):
        super().__init__()
        wide = before * expansion
        self.expand = Unit(before, wide) if expansion > 1 else None
        self.depthwise = Unit(wide, wide, kernel, stride, groups=wide)
        self.project = Unit(wide, after)
        self.residual = stride == 1 and before == after

    def forward(self, features: Float[Tensor, "b c h w"]) -> Float[Tensor, "b d k l"]:
        inner = features if self.expand is None else relu6(self.expand(features))
        inner = self.project(relu6(self.depthwise(inner)))
        return features + inner if self.residual else inner


class Unit(nn.Module):
    """Convolution and BatchNorm with its trained statistics, padded as TensorFlow does."""

    def __init__(self, before: int, after: int, kernel: int = 1, stride: int = 1, groups: int = 1):
        super().__init__()
        self.conv = nn.Conv2d(before, after, kernel, stride, groups=groups, bias=False)
        self.norm = nn.BatchNorm2d(after, eps=1e-3)
        total = kernel - stride
        self.padding = (total // 2, total - total // 2) * 2

    def forward(self, features: Float[Tensor, "b c h w"]) -> Float[Tensor, "b d k l"]:
        return self.norm(self.conv(pad(features, self.padding)))


def published_name(name: str) -> str:
    """Return the name of a tensor of `Classifier` in the published file."""
    if name.startswith("classifier"):
        return name.replace("classifier", "_fc")
    *place, unit, part, tensor = name.split(".")
    numbers = {"stem": 0, "expand": 0, "depthwise": 1, "head": 1, "project": 2}
    convolution = f"_conv_{unit}" if unit in {"stem", "head"} else f"_{unit}_conv"
    prefix = f"_blocks.{place[1]}." if place else ""
    return f"{prefix}{convolution if part == 'conv' else f'_bn{numbers[unit]}'}.{tensor}"
