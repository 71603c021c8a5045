"""First rows of a codebook: random latents, or the means of their clusters (Lloyd 1982; arXiv:2107.03312).

In distributed training all processes call these alike, and all of them get the same rows.
"""

import torch
from jaxtyping import Float
from torch import Tensor

from genstack.compressor.quantizers.nearest import nearest
from genstack.dist import all_reduce_sum, broadcast


def kmeans(latents: Float[Tensor, "n d"], count: int, rounds: int = 10) -> Float[Tensor, "{count} d"]:
    """The means of `count` clusters of latents; a cluster that is empty keeps the place it had."""
    rows = draw(latents, count)
    for _ in range(rounds):
        codes = nearest(latents, rows)
        sizes = all_reduce_sum(torch.bincount(codes, minlength=count))
        sums = all_reduce_sum(torch.zeros_like(rows).index_add_(0, codes, latents))
        rows = torch.where(sizes[:, None] > 0, sums / sizes[:, None].clamp(min=1), rows)
    return rows


def draw(latents: Float[Tensor, "n d"], count: int) -> Float[Tensor, "{count} d"]:
    """Latents in random order; where there are too few, repeats with a hundredth of their spread as noise.

    In distributed training the first process's draw is everybody's.
    """
    order = torch.randperm(len(latents), device=latents.device)[:count]
    again = torch.randint(len(latents), (count - len(order),), device=latents.device)
    noise = torch.randn_like(latents[again]) * latents.std(dim=0, correction=0) / 100
    return broadcast(torch.cat([latents[order], latents[again] + noise]))
