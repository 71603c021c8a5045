"""DINOv2 (Oquab et al. 2023, arXiv:2304.07193), a frozen vision transformer whose features are semantic."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import interpolate

from genstack.errors import UserError
from genstack.losses.features import Features, ImageFeatures
from genstack.losses.vision_models import VisionModel

MODEL = VisionModel(
    "DINOv2",
    "GENSTACK_DINOV2",
    (("dinov2", "Dinov2Model"), ("dinov2_with_registers", "Dinov2WithRegistersModel")),
    "facebook/dinov2-large",
    (0.485, 0.456, 0.406),
    (0.229, 0.224, 0.225),
)


@dataclass(frozen=True)
class DINOv2(Features):
    """DINOv2 of transformers, such as facebook/dinov2-small; for discriminators and alignment.

    Args:
        folder: folder with config.json and model.safetensors, or `hf:user/name`, which is downloaded once;
            null for the one that $GENSTACK_DINOV2 names.
        size: shorter side after resizing, rounded to whole patches (14 pixels).
        layers: layers whose tokens are the maps, counted from 1; null for the last layer.
    """

    folder: str | None = None
    size: int = 112
    layers: tuple[int, ...] | None = None
    has_logits = False

    def __post_init__(self) -> None:
        if self.size < 1:
            raise UserError(f"size of DINOv2 must be at least 1, got {self.size}")
        if self.layers is not None and (not self.layers or min(self.layers) < 1):
            raise UserError(f"layers of DINOv2 must be numbers from 1 on, got {list(self.layers)}")

    @property
    def place(self) -> str:
        """The folder, with the default resolved."""
        return self.folder or MODEL.place

    @property
    def config(self) -> Mapping[str, Any]:
        """Content of config.json."""
        return MODEL.config(self.place)

    @property
    def numbers(self) -> tuple[int, ...]:
        """Layers whose tokens are the maps, with the default resolved."""
        depth = int(self.config["num_hidden_layers"])
        if self.layers is None:
            return (depth,)
        if max(self.layers) > depth:
            raise UserError(f"{self.place} has {depth} layers, got layers {list(self.layers)}")
        return self.layers

    @property
    def widths(self) -> tuple[int, ...]:
        return (int(self.config["hidden_size"]),) * len(self.numbers)

    def grids(self, height: int, width: int) -> tuple[tuple[int, int], ...]:
        patch, scale = int(self.config["patch_size"]), self.size / min(height, width)
        grid = max(1, round(height * scale / patch)), max(1, round(width * scale / patch))
        return (grid,) * len(self.numbers)

    def build(self) -> nn.Module:
        return DINOv2Network(MODEL.load(self.place), self).eval().requires_grad_(False)


class DINOv2Network(nn.Module):
    """Network of `DINOv2`: images in [-1, 1] to tokens of some layers, each normalized as the last ones are.

    Args:
        network: model of transformers.
        config: settings.
    """

    def __init__(self, network: Any, config: DINOv2):
        super().__init__()
        self.network, self.config = network, config
        self.numbers, self.patch = config.numbers, int(config.config["patch_size"])

    def forward(self, images: Float[Tensor, "b 3 H W"]) -> ImageFeatures:
        height, width = self.config.grids(*images.shape[-2:])[0]
        size = height * self.patch, width * self.patch
        pixels = interpolate((images + 1) / 2, size, mode="bicubic", antialias=True, align_corners=False)
        outputs = self.network(pixel_values=MODEL.standardize(pixels), output_hidden_states=True)
        maps = []
        for number in self.numbers:
            tokens = self.network.layernorm(outputs.hidden_states[number])[:, -height * width :]
            maps.append(rearrange(tokens, "b (h w) d -> b d h w", h=height))
        return ImageFeatures(maps, outputs.pooler_output, None)
