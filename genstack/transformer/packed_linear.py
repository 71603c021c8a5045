"""Linear layers with weights packed for few rows: a sampled code multiplies each weight by a row per image.

torch's matrix product reads weights as they are stored, and packs them anew in every call. On a CPU, oneDNN
reads weights that are packed once; with 4 rows that takes less than half the time.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import linear

from genstack.transformer.head import TiedHead
from genstack.transformer.transformer import Transformer

FEW = 64  # rows; with more, packing in every call hardly shows
CALLS = 3  # with the same shape before a weight is packed
LARGEST = 2**30  # bytes of weights that are kept twice


class PackedLinear:
    """Multiply rows by a weight, which is packed once features of one shape come again and again.

    Args:
        weight: the weight, which must not change.
        bias: added to the result; None for none.
    """

    def __init__(self, weight: Float[Tensor, "out in"], bias: Float[Tensor, " out"] | None = None):
        self.weight = weight.detach()
        self.bias = None if bias is None else bias.detach().to(weight.dtype)
        #: Shape of the latest features, and the number of calls with it in a row.
        self.shape, self.calls = torch.Size(), 0
        #: The weight, packed for that shape; None while it is multiplied as it is.
        self.packed: Tensor | None = None

    def __call__(self, features: Float[Tensor, "*b in"]) -> Float[Tensor, "*b out"]:
        if features.shape != self.shape:
            self.shape, self.calls, self.packed = features.shape, 0, None
        if self.packed is not None:
            features = features.to(self.weight.dtype)
            return torch.ops.mkldnn._linear_pointwise.default(
                features, self.packed, self.bias, "none", [], ""
            )
        self.calls += 1
        rows = features.numel() // features.shape[-1]
        if self.calls == CALLS and rows <= FEW:
            self.packed = torch.ops.mkldnn._reorder_linear_weight(self.weight, rows)
        return linear(features, self.weight, self.bias)


@contextmanager
def pack_weights(module: nn.Module, device: torch.device) -> Iterator[None]:
    """Let linear layers and heads of a module on a CPU pack their weights, and restore them on exit.

    Compiled networks pack their own weights. Sharded weights, and more than a gigabyte, are left alone.
    """
    linears = [each for each in module.modules() if isinstance(each, nn.Linear)]
    heads = [each for each in module.modules() if isinstance(each, TiedHead)]
    compiled = any(isinstance(each, Transformer) and each.compiled_step for each in module.modules())
    weights = [*(layer.weight for layer in linears), *(head.vectors for head in heads)]
    if (
        compiled
        or device.type != "cpu"
        or not torch.backends.mkldnn.enabled
        or not torch.backends.mkldnn.is_available()
        or not all(is_packable(weight) for weight in weights)
        or sum(weight.nbytes for weight in weights) > LARGEST
    ):
        yield
        return
    try:
        for layer in linears:
            vars(layer)["forward"] = PackedLinear(layer.weight, layer.bias)
        for head in heads:
            head.product = PackedLinear(head.vectors, head.bias)
        yield
    finally:
        for layer in linears:
            vars(layer).pop("forward", None)
        for head in heads:
            head.product = None


def is_packable(weight: Tensor) -> bool:
    """Return True for whole weights of a dtype that oneDNN multiplies on this processor."""
    if type(weight) not in (Tensor, nn.Parameter):
        return False
    if weight.dtype == torch.bfloat16:
        return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())
    return weight.dtype == torch.float32
