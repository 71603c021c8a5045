"""Linear layers with weights packed for few rows: a sampled code multiplies each weight by a row per image.

torch's matrix product reads weights as they are stored, and packs them anew in every call. On a CPU, oneDNN
and MKL read weights that are packed once; with 4 rows that takes half the time at best.
"""

import platform
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import linear

from genstack.transformer.head import TiedHead
from genstack.transformer.transformer import Transformer

FEW = 64  # rows; with more, packing in every call hardly shows
CALLS = 3  # with the same shape before a weight is packed
LARGEST = 2**30  # bytes of weights that are kept twice

Product = Callable[[Tensor], Tensor]


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
        #: Multiplies features of that shape by the packed weight; None while the weight is as it is.
        self.packed: Product | None = None

    def __call__(self, features: Float[Tensor, "*b in"]) -> Float[Tensor, "*b out"]:
        if features.shape != self.shape:
            self.shape, self.calls, self.packed = features.shape, 0, None
        if self.packed is not None:
            return self.packed(features.to(self.weight.dtype))
        self.calls += 1
        rows = features.numel() // features.shape[-1]
        if self.calls == CALLS and rows <= FEW:
            self.packed = pack(self.weight, self.bias, rows)
        return linear(features, self.weight, self.bias)


def pack(weight: Float[Tensor, "out in"], bias: Float[Tensor, " out"] | None, rows: int) -> Product:
    """Pack a weight for products with a number of rows.

    In float32, MKL is the quicker of the two on processors by Intel, oneDNN on others. The choice is not
    measured at run time, since they round differently, and one seed must give one image.
    """
    if weight.dtype == torch.float32 and torch.backends.mkl.is_available() and is_intel():
        packed = torch.ops.mkl._mkl_reorder_linear_weight(weight, rows)
        return lambda features: torch.ops.mkl._mkl_linear.default(features, packed, weight, bias, rows)
    packed = torch.ops.mkldnn._reorder_linear_weight(weight, rows)
    multiply = torch.ops.mkldnn._linear_pointwise.default
    return lambda features: multiply(features, packed, bias, "none", [], "")


@cache
def is_intel() -> bool:
    """Return True on a processor by Intel."""
    try:
        return "GenuineIntel" in Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:  # not Linux
        return "Intel" in platform.processor()


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
