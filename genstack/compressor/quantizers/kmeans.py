"""Initial rows of a codebook: random latents, or k-means (Lloyd 1982; arXiv:2107.03312).

In distributed training, all processes call these functions together and get the same rows.
"""

import torch
from jaxtyping import Float
from torch import Tensor

from genstack.compressor.quantizers.nearest import nearest
from genstack.dist import all_reduce_sum, broadcast


def kmeans(latents: Float[Tensor, "n d"], count: int, rounds: int = 10) -> Float[Tensor, "{count} d"]:
    """Return the means of `count` clusters of latents; an empty cluster keeps its previous mean."""
    rows = random_latents(latents, count)
    for _ in range(rounds):
        codes = nearest(latents, rows)
        sizes = all_reduce_sum(torch.bincount(codes, minlength=count))
        sums = all_reduce_sum(torch.zeros_like(rows).index_add_(0, codes, latents))
        rows = torch.where(sizes[:, None] > 0, sums / sizes[:, None].clamp(min=1), rows)
    return rows


def random_latents(latents: Float[Tensor, "n d"], count: int) -> Float[Tensor, "{count} d"]:
    """Choose latents of rank 0 at random; too few are repeated with 1 % of their spread as noise."""
    order = torch.randperm(len(latents), device=latents.device)[:count]
    again = torch.randint(len(latents), (count - len(order),), device=latents.device)
    noise = torch.randn_like(latents[again]) * latents.std(dim=0, correction=0) / 100
    return broadcast(torch.cat([latents[order], latents[again] + noise]))
