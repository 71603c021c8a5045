"""Smoothing an image before it is halved, so that nothing aliases (Zhang 2019, arXiv:1904.11486)."""

import torch
from einops import repeat
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import conv2d, pad


class Blur(nn.Module):
    """Smooths by the filter (1, 3, 3, 1) each way and keeps one pixel of every so many.

    Args:
        border: zeros before the first pixel and after the last; one more after it where the side is odd.
        stride: 2 keeps every second pixel, 1 all of them.
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
