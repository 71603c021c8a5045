"""Low-pass filter before downsampling, against aliasing (Zhang 2019, arXiv:1904.11486)."""

import torch
from einops import repeat
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import conv2d, pad


class Blur(nn.Module):
    """Separable filter (1, 3, 3, 1), then every second pixel.

    Args:
        border: zero padding on each side; one more at the end where a side is odd.
        stride: 2 for every second pixel, 1 for all.
    """

    kernel: Tensor

    def __init__(self, border: int, stride: int) -> None:
        super().__init__()
        self.border, self.stride = border, stride
        line = torch.tensor([1.0, 3.0, 3.0, 1.0]) / 8
        self.register_buffer("kernel", line[:, None] * line, persistent=False)

    def forward(self, features: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c k l"]:
        channels, height, width = features.shape[1:]
        kernel = repeat(self.kernel.to(features.dtype), "h w -> c 1 h w", c=channels)
        before = self.border
        framed = pad(features, (before, before + width % 2, before, before + height % 2))
        return conv2d(framed, kernel, stride=self.stride, groups=channels)
