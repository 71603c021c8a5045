"""Conversion of adaLN modulation: other orders of vectors, and norms with weights."""

import torch
from torch import Tensor

from genstack.checkpoints.formats.format import Weight, Weights, combine, constant
from genstack.errors import UserError

#: From DiT's order of vectors (shift, scale, gate, twice) to ours: gates, scales, shifts.
LAYER = (2, 5, 1, 4, 0, 3)


def modulation(
    weights: Weights, theirs: str, ours: str, order: tuple[int, ...], norms: tuple[str, ...] = ()
) -> dict[str, Weight]:
    """Convert the layer of modulation vectors.

    Args:
        weights: weights of the file.
        theirs: its name.
        ours: name of our module that contains it.
        order: index of their vector for each of ours.
        norms: modulated norms with weights g and biases b, if any. Since (g x + b)(1 + s) + t equals x (1 +
            s') + t' with s' = g (1 + s) - 1 and t' = b (1 + s) + t, they become part of the modulation.
    """
    found = {}
    for part, one in (("weight", 0.0), ("bias", 1.0)):
        source = weights.take(f"{theirs}.{part}")
        if not source.shape or source.shape[0] % len(order):
            raise UserError(f"{source.name} must consist of {len(order)} vectors, got shape {source.shape}")
        vectors = source.map(lambda each: torch.stack([each.chunk(len(order))[number] for number in order]))
        for number, norm in enumerate(norms):
            scale = len(order) + number - 2 * len(norms)
            gain, bias = gain_and_bias(weights, norm)
            given = (scale, scale + len(norms), one)
            vectors = combine(
                lambda rows, gain, bias, given=given: absorb_norm(rows, gain, bias, *given),
                vectors,
                gain,
                bias,
            )
        found[f"{ours}.modulation.linear.{part}"] = vectors.map(lambda each: each.flatten(0, 1))
    return found


def gain_and_bias(weights: Weights, norm: str) -> tuple[Weight, Weight]:
    """Weights of a norm; the bias is 0 if it has none."""
    gain = weights.take(f"{norm}.weight")
    bias = f"{norm}.bias"
    return gain, weights.take(bias) if bias in weights else constant(torch.zeros(gain.shape))


def absorb_norm(rows: Tensor, gain: Tensor, bias: Tensor, scale: int, shift: int, one: float) -> Tensor:
    """Absorb a norm into scale and shift; `one` is 1 for biases of the layer, 0 for its weights."""
    if rows.dim() == 3:
        gain, bias = gain[:, None], bias[:, None]
    rows = rows.clone()
    rows[shift] += bias * (one + rows[scale])
    rows[scale] = gain * (one + rows[scale]) - one
    return rows
