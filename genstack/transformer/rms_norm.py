"""Root mean square norm (Zhang and Sennrich 2019, arXiv:1910.07467), in few operations on a CPU."""

import torch
from jaxtyping import Float
from torch import Tensor, nn

FEW = 64  # tokens; with more, the number of operations hardly shows


class RMSNorm(nn.RMSNorm):
    """torch's RMSNorm; while codes are sampled on a CPU, in half the time."""

    def __init__(self, width: int, epsilon: float):
        super().__init__(width, eps=epsilon)
        self.inverse = InverseRMS(width, epsilon)

    def forward(self, x: Float[Tensor, "*b width"]) -> Float[Tensor, "*b width"]:
        few = x.numel() <= FEW * x.shape[-1] and x.dtype == torch.float32
        if not few or x.device.type != "cpu" or torch.is_grad_enabled():
            return super().forward(x)
        return x * (self.inverse(x) * self.weight)


class InverseRMS:
    """1 / root mean square of the last axis, on a CPU.

    torch's `rms_norm` takes several passes over memory there, and twice as many backward.
    """

    def __init__(self, width: int, epsilon: float):
        self.width, self.epsilon = width, torch.tensor(epsilon, device="cpu")

    def __call__(self, x: Float[Tensor, "*b width"]) -> Float[Tensor, "*b one=1"]:
        norm = torch.linalg.vector_norm(x, dim=-1, keepdim=True)
        if torch.is_grad_enabled():
            return (norm.square() / self.width + self.epsilon).rsqrt()
        return torch.addcmul(self.epsilon, norm, norm, value=1 / self.width).rsqrt_()
