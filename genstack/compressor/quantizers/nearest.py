"""The nearest of many rows, without the matrix of all distances (arXiv:1711.00937, equation 1)."""

import torch
from jaxtyping import Float, Int
from torch import Tensor

#: Most scores that exist at a time; 4 MiB of them stay in a CPU's cache.
CHUNK = {"cpu": 2**20}
CHUNK_ELSEWHERE = 2**24
#: Most rows compared at a time; the latents of a chunk follow.
ROWS = 2**14


@torch.no_grad()
def nearest(latents: Float[Tensor, "n d"], rows: Float[Tensor, "k d"]) -> Int[Tensor, " n"]:
    """For each latent the number of the nearest row (Euclidean), of equals the lowest.

    |z - e|^2 = |z|^2 + 2 (|e|^2 / 2 - z e), and |z|^2 is the same for all rows: a matrix product ranks them.
    """
    norms = rows.square().sum(1) / 2
    chunk = CHUNK.get(latents.device.type, CHUNK_ELSEWHERE)
    size = max(1, chunk // min(len(rows), ROWS))
    return torch.cat([nearest_in_chunk(part, rows, norms) for part in latents.split(size)])


def nearest_in_chunk(
    latents: Float[Tensor, "n d"], rows: Float[Tensor, "k d"], norms: Float[Tensor, " k"]
) -> Int[Tensor, " n"]:
    """`nearest` for latents so few that their scores against `ROWS` rows may exist at once."""
    best = torch.full_like(latents[:, 0], torch.inf)
    codes = torch.zeros_like(best, dtype=torch.int64)
    for start in range(0, len(rows), ROWS):
        few = slice(start, start + ROWS)
        score, code = torch.addmm(norms[few], latents, rows[few].T, alpha=-1).min(dim=1)
        closer = score < best
        best, codes = torch.where(closer, score, best), torch.where(closer, code + start, codes)
    return codes
