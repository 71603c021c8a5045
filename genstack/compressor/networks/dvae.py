"""Network of DALL-E's discrete VAE (Ramesh et al. 2021, arXiv:2102.12092, appendix A)."""

import math
from dataclasses import dataclass
from itertools import pairwise

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from genstack.compressor.network import Decoder, Encoder, Images, Latents, check_fit
from genstack.compressor.networks.levels import steps
from genstack.compressor.networks.pyramid import Pyramid
from genstack.compressor.output import squeeze
from genstack.errors import UserError


@dataclass(frozen=True)
class DVAE(Pyramid):
    """Bottleneck blocks of four convolutions, pooling and nearest upsampling, without normalization.

    DALL-E's dVAE is this network with `Gumbel` of `sharpness: null` and 8,192 codes, its `dim` equal to
    width * last multiplier, `projection: 0`, and the output `LocationAndScale`.

    Args:
        width: channels of a level with multiplier 1.
        multipliers: channels of each level in units of `width`, full resolution first; n levels reduce each
            side by 2^(n-1).
        blocks: residual blocks per level.
        entrance: channels of the decoder's first layer.
        gain: weight of residual branches, which begin at zero. null for DALL-E's 1 / (levels * blocks)^2, by
            which they hardly take part in a short training.
    """

    width: int = 256
    multipliers: tuple[int, ...] = (1, 2, 4, 8)
    blocks: int = 2
    entrance: int = 128
    gain: float | None = None

    def __post_init__(self) -> None:
        if self.width < 4:
            raise UserError(
                f"width {self.width} is out of range; it must be at least 4, as blocks use a quarter of it"
            )
        self.check("blocks", "entrance")
        if self.gain is not None and not 0 < self.gain < math.inf:
            raise UserError(f"gain {self.gain} is out of range; it must be above 0, or null")

    @property
    def dim(self) -> int:
        """Channels of the latents."""
        return self.widths[-1]

    @property
    def branch_gain(self) -> float:
        """Weight of residual branches."""
        return 1 / (len(self.multipliers) * self.blocks) ** 2 if self.gain is None else self.gain

    def encoder(self, channels: int) -> "DVAEEncoder":
        return DVAEEncoder(self, channels)

    def decoder(self, channels: int) -> "DVAEDecoder":
        return DVAEDecoder(self, channels)


class DVAEEncoder(Encoder):
    """Encoder of images scaled into [0.1, 0.9]."""

    def __init__(self, config: DVAE, channels: int):
        super().__init__()
        self.config, self.channels, self.dim = config, channels, config.dim
        self.first = convolution(channels, config.width, 7)
        self.levels = nn.ModuleList(
            level(before, after, (3, 3, 3, 1), config) for before, after in config.down
        )

    def forward(self, images: Images) -> Latents:
        features = self.first(squeeze(images))
        for number, part in enumerate(self.levels):
            features = part(features if number == 0 else F.max_pool2d(features, 2))
        return F.relu(features)


class DVAEDecoder(Decoder):
    """Decoder; modules are registered in the order in which they run."""

    def __init__(self, config: DVAE, channels: int):
        super().__init__()
        self.config, self.channels, self.dim = config, channels, config.dim
        self.first = convolution(config.dim, config.entrance, 1)
        self.levels = nn.ModuleList(
            level(before, after, (1, 3, 3, 3), config)
            for before, after in pairwise((config.entrance, *config.widths[::-1]))
        )
        self.last = convolution(config.width * config.multipliers[0], channels, 1)

    def forward(self, latents: Latents, image_size: tuple[int, int]) -> Images:
        check_fit(self.config, latents, image_size)
        features = self.first(latents)
        for number, part in enumerate(self.levels):
            features = part(features if number == 0 else F.interpolate(features, scale_factor=2.0))
        return self.last(F.relu(features))

    @property
    def last_layer(self) -> nn.Parameter:
        return self.last.get_parameter("weight")


def level(dim_in: int, dim_out: int, sides: tuple[int, ...], config: DVAE) -> nn.Sequential:
    """Build the blocks at one resolution."""
    dims = steps(dim_in, dim_out, config.blocks)
    return nn.Sequential(
        *(BottleneckBlock(before, after, sides, config.branch_gain) for before, after in dims)
    )


class BottleneckBlock(nn.Module):
    """Residual block of four ReLUs and convolutions with a quarter of the channels, scaled by `gain`."""

    def __init__(self, dim_in: int, dim_out: int, sides: tuple[int, ...], gain: float):
        super().__init__()
        self.gain = gain
        dims = (dim_in,) + (dim_out // 4,) * (len(sides) - 1) + (dim_out,)
        self.convolutions = nn.ModuleList(
            convolution(before, after, side)
            for (before, after), side in zip(pairwise(dims), sides, strict=True)
        )
        nn.init.zeros_(self.convolutions[-1].get_parameter("weight"))
        self.shortcut = convolution(dim_in, dim_out, 1) if dim_in != dim_out else nn.Identity()

    def forward(self, features: Float[Tensor, "b c h w"]) -> Latents:
        inner = features
        for part in self.convolutions:
            inner = part(F.relu(inner))
        return self.shortcut(features) + self.gain * inner


def convolution(dim_in: int, dim_out: int, side: int) -> nn.Conv2d:
    """Build a convolution of stride 1 that is initialized to keep the variance."""
    part = nn.Conv2d(dim_in, dim_out, side, padding=side // 2)
    nn.init.normal_(part.weight, std=1 / math.sqrt(dim_in * side**2))
    nn.init.zeros_(part.bias)  # type: ignore[arg-type]
    return part
