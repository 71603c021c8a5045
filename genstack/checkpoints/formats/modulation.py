"""Modulation of adaLN under other names: its vectors in another order, and beside norms with weights."""

import torch
from torch import Tensor

from genstack.checkpoints.formats.format import Weight, Weights, combine, constant
from genstack.errors import UserError

#: The vectors of a layer in DiT's order (shift, scale, gate, twice), in ours: gates, scales, shifts.
LAYER = (2, 5, 1, 4, 0, 3)


def modulation(
    weights: Weights, theirs: str, ours: str, order: tuple[int, ...], norms: tuple[str, ...] = ()
) -> dict[str, Weight]:
    """The layer that makes modulation vectors.

    Args:
        weights: of the file.
        theirs: its name.
        ours: name of the module of ours that has it.
        order: which of their vectors is each of ours.
        norms: the norms that it scales and shifts, where these have weights g, and biases b or none. Since
            (g x + b)(1 + s) + t is x (1 + s') + t' with s' = g (1 + s) - 1 and t' = b (1 + s) + t, and s and
            t are linear, modulation alone does the same.
    """
    found = {}
    for part, one in (("weight", 0.0), ("bias", 1.0)):
        source = weights.take(f"{theirs}.{part}")
        if not source.shape or source.shape[0] % len(order):
            raise UserError(f"{source.name} has shape {source.shape}, which is not {len(order)} vectors")
        vectors = source.map(lambda each: torch.stack([each.chunk(len(order))[number] for number in order]))
        for number, norm in enumerate(norms):
            scale = len(order) + number - 2 * len(norms)
            gain, bias = gain_and_bias(weights, norm)
            given = (scale, scale + len(norms), one)
            vectors = combine(
                lambda rows, gain, bias, given=given: absorbed(rows, gain, bias, *given), vectors, gain, bias
            )
        found[f"{ours}.modulation.linear.{part}"] = vectors.map(lambda each: each.flatten(0, 1))
    return found


def gain_and_bias(weights: Weights, norm: str) -> tuple[Weight, Weight]:
    """The weights of a norm; a bias of 0 where it has none."""
    gain = weights.take(f"{norm}.weight")
    bias = f"{norm}.bias"
    return gain, weights.take(bias) if bias in weights else constant(torch.zeros(gain.shape))


def absorbed(rows: Tensor, gain: Tensor, bias: Tensor, scale: int, shift: int, one: float) -> Tensor:
    """Vectors of which two have absorbed a norm; `one` is 1 for biases of the layer, 0 for its weights."""
    if rows.dim() == 3:
        gain, bias = gain[:, None], bias[:, None]
    rows = rows.clone()
    rows[shift] += bias * (one + rows[scale])
    rows[scale] = gain * (one + rows[scale]) - one
    return rows
