"""The nearest of many rows, without the matrix of all distances (arXiv:1711.00937, equation 1)."""

import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Float, Int
from torch import Tensor

#: Most scores that exist at a time; 4 MiB of them stay in a CPU's cache.
CHUNK = {"cpu": 2**20}
CHUNK_ELSEWHERE = 2**24
#: Most rows compared at a time, and most numbers in them, for they are copied. The latents of a chunk follow.
ROWS = 2**14
NUMBERS = 2**21
#: Rows that are first compared by the least score among them alone. A minimum is found several times quicker
#: than its place, so places are looked for in one block per latent only.
BLOCK = 128


@torch.no_grad()
def nearest(latents: Float[Tensor, "n d"], rows: Float[Tensor, "k d"]) -> Int[Tensor, " n"]:
    """For each latent the number of the nearest row (Euclidean), of equals the lowest.

    |z - e|^2 = |z|^2 + 2 (|e|^2 / 2 - z e), and |z|^2 is the same for all rows: what ranks them is the matrix
    product of (z, 1) and (-e, |e|^2 / 2).
    """
    best = torch.full_like(latents[:, 0], torch.inf)
    codes = torch.zeros_like(best, dtype=torch.int64)
    most = max(1, min(ROWS, NUMBERS // latents.shape[1]))
    chunk = CHUNK.get(latents.device.type, CHUNK_ELSEWHERE)
    for start in range(0, len(rows), most):
        columns = scoring(rows[start : start + most])
        for begin in range(0, len(latents), size := max(1, chunk // columns.shape[1])):
            few = slice(begin, begin + size)
            score, code = least(F.pad(latents[few], (0, 1), value=1.0) @ columns)
            closer = score < best[few]  # never where a score is not a number
            best[few] = torch.where(closer, score, best[few])
            codes[few] = torch.where(closer, code + start, codes[few])
    return codes


def scoring(rows: Float[Tensor, "k d"]) -> Float[Tensor, "d+1 padded"]:
    """Matrix that (latents, 1) are multiplied by for their scores, in full blocks; padding rows are far."""
    missing = -len(rows) % BLOCK if len(rows) > BLOCK else 0
    columns = rows.new_zeros(rows.shape[1] + 1, len(rows) + missing)
    torch.neg(rows.T, out=columns[:-1, : len(rows)])
    columns[-1] = torch.inf
    columns[-1, : len(rows)] = rows.square().sum(1) / 2
    return columns


def least(scores: Float[Tensor, "n k"]) -> tuple[Float[Tensor, " n"], Int[Tensor, " n"]]:
    """The least of each line and the first place where it is."""
    if scores.shape[1] <= BLOCK:
        score, place = scores.min(dim=1)
        return score, place
    blocks = rearrange(scores, "n (block k) -> n block k", k=BLOCK)
    block = blocks.amin(dim=2).argmin(dim=1)
    score, place = blocks[torch.arange(len(scores), device=scores.device), block].min(dim=1)
    return score, block * BLOCK + place
