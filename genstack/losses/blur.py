"""Halving an image after smoothing it, so that nothing aliases (Zhang 2019, arXiv:1904.11486)."""

import torch
from einops import repeat
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import conv2d, pad


class BlurredHalf(nn.Module):
    """Smooths by the filter (1, 3, 3, 1) each way and keeps every second pixel; zeros lie around."""

    kernel: Tensor

    def __init__(self) -> None:
        super().__init__()
        line = torch.tensor([1.0, 3.0, 3.0, 1.0]) / 8
        self.register_buffer("kernel", line[:, None] * line, persistent=False)

    def forward(self, features: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c k l"]:
        height, width = features.shape[-2:]
        channels = features.shape[1]
        kernel = repeat(self.kernel.to(features.dtype), "h w -> c 1 h w", c=channels)
        return conv2d(pad(features, (1, 1 + width % 2, 1, 1 + height % 2)), kernel, stride=2, groups=channels)
