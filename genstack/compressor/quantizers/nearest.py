"""Nearest-row search without the matrix of all distances (arXiv:1711.00937, equation 1)."""

import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Float, Int
from torch import Tensor

#: Scores per chunk; 4 MiB stay in a CPU's cache.
CHUNK = {"cpu": 2**20}
CHUNK_ELSEWHERE = 2**24
#: Limits of the rows per chunk, which are copied: rows, and numbers in them.
ROWS = 2**14
NUMBERS = 2**21
#: Rows per block. A minimum is several times faster than its index, so indices are searched in the best block
#: only.
BLOCK = 128


@torch.no_grad()
def nearest(latents: Float[Tensor, "n d"], rows: Float[Tensor, "k d"]) -> Int[Tensor, " n"]:
    """Return the index of the nearest row (Euclidean) for each latent; the lowest index wins ties.

    |z - e|^2 = |z|^2 + 2 (|e|^2 / 2 - z e), where |z|^2 is constant over rows. Rows are therefore ranked by
    the matrix product of (z, 1) and (-e, |e|^2 / 2).
    """
    best = torch.full_like(latents[:, 0], torch.inf)
    codes = torch.zeros_like(best, dtype=torch.int64)
    most = max(1, min(ROWS, NUMBERS // latents.shape[1]))
    chunk = CHUNK.get(latents.device.type, CHUNK_ELSEWHERE)
    for start in range(0, len(rows), most):
        columns = score_matrix(rows[start : start + most])
        for begin in range(0, len(latents), size := max(1, chunk // columns.shape[1])):
            few = slice(begin, begin + size)
            score, code = minimum(F.pad(latents[few], (0, 1), value=1.0) @ columns)
            closer = score < best[few]  # False if a score is NaN
            best[few] = torch.where(closer, score, best[few])
            codes[few] = torch.where(closer, code + start, codes[few])
    return codes


def score_matrix(rows: Float[Tensor, "k d"]) -> Float[Tensor, "d+1 padded"]:
    """Build the matrix that maps (latents, 1) to scores, padded to full blocks with infinite scores."""
    missing = -len(rows) % BLOCK if len(rows) > BLOCK else 0
    columns = rows.new_zeros(rows.shape[1] + 1, len(rows) + missing)
    torch.neg(rows.T, out=columns[:-1, : len(rows)])
    columns[-1] = torch.inf
    columns[-1, : len(rows)] = rows.square().sum(1) / 2
    return columns


def minimum(scores: Float[Tensor, "n k"]) -> tuple[Float[Tensor, " n"], Int[Tensor, " n"]]:
    """Return the minimum of each row of scores, and its first index."""
    if scores.shape[1] <= BLOCK:
        score, place = scores.min(dim=1)
        return score, place
    blocks = rearrange(scores, "n (block k) -> n block k", k=BLOCK)
    block = blocks.amin(dim=2).argmin(dim=1)
    score, place = blocks[torch.arange(len(scores), device=scores.device), block].min(dim=1)
    return score, block * BLOCK + place
