"""Scaled dot-product attention (Vaswani et al. 2017, arXiv:1706.03762, 3.2.1), quick on a CPU too."""

from functools import partial

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

SHORT = 512  # keys; with more, products in bfloat16 are no quicker than attention in float32
#: True if torch's loops use AVX-512. Without, its attention in bfloat16 fails where the processor has AMX.
AVX512 = torch.backends.cpu.get_cpu_capability() == "AVX512"
#: True if this processor multiplies in bfloat16 without conversions in torch's own loops.
BFLOAT16 = torch.backends.mkldnn.is_available() and bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())


def dot_product_attention(
    queries: Float[Tensor, "b h q d"],
    keys: Float[Tensor, "b kv_h k d"],
    values: Float[Tensor, "b kv_h k d"],
    visible: Bool[Tensor, "*images q k"] | None = None,
    causal: bool = False,
) -> Float[Tensor, "b h q d"]:
    """Compute scaled dot-product attention, on a CPU in bfloat16 by the quickest way.

    With fewer key heads than query heads, each key head serves h / kv_h consecutive query heads. torch's own
    attention takes twice as long on a CPU in bfloat16 as in float32, backward and for a single query. In
    training, plain products in bfloat16 take half the time of float32, if the sequence is short.
    """
    grouped = keys.shape[1] < queries.shape[1]
    attend = partial(scaled_dot_product_attention, attn_mask=visible, is_causal=causal, enable_gqa=grouped)
    if queries.dtype != torch.bfloat16 or queries.device.type != "cpu":
        return attend(queries, keys, values)
    single = queries.shape[2] == 1
    if AVX512 and not single and not torch.is_grad_enabled():
        return attend(queries, keys, values)
    plain = visible is None or visible.ndim == 2
    if BFLOAT16 and not single and not grouped and plain and keys.shape[2] <= SHORT:
        return attend_by_products(queries, keys, values, visible, causal)
    with torch.autocast("cpu", enabled=False):
        return attend(queries.float(), keys.float(), values.float()).bfloat16()


def attend_by_products(
    queries: Float[Tensor, "b h q d"],
    keys: Float[Tensor, "b h k d"],
    values: Float[Tensor, "b h k d"],
    visible: Bool[Tensor, "q k"] | None,
    causal: bool,
) -> Float[Tensor, "b h q d"]:
    """Compute attention by two products, with all weights in memory; each query must attend to some key."""
    batch, _, _, width = queries.shape
    queries, keys, values = (each.flatten(0, 1) for each in (queries, keys, values))
    bias = queries.new_zeros(queries.shape[1], keys.shape[1])
    if causal:
        visible = torch.ones_like(bias, dtype=torch.bool).tril()
    if visible is not None:
        bias = bias.masked_fill(~visible, -torch.inf)
    scores = torch.baddbmm(bias, queries, keys.transpose(1, 2), alpha=width**-0.5)
    return torch.bmm(scores.softmax(dim=-1), values).unflatten(0, (batch, -1))
