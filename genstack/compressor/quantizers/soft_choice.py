"""A choice by the largest inner product whose gradient is that of a softmax, in chunks (arXiv:2412.02692).

All gradients are in closed form and what they need is computed again, so memory grows with neither latents
nor rows: the matrix of all inner products never exists.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor
from torch.autograd.function import FunctionCtx, once_differentiable

from genstack.compressor.quantizers.binary import mean_over_processes

CHUNK = 2**21  # inner products that exist at a time; some arrays of this size do


@dataclass
class SoftChoice:
    """What a choice gives.

    Args:
        vectors: the chosen rows.
        codes: their numbers; of equal products the lowest.
        entropy: mean entropy of the softmax of each latent.
        even: the mean softmax over all latents, of all processes.
    """

    vectors: Float[Tensor, "n d"]
    codes: Int[Tensor, " n"]
    entropy: Float[Tensor, ""]
    even: Float[Tensor, " k"]

    @property
    def entropy_of_mean(self) -> Float[Tensor, ""]:
        """Entropy of the mean softmax."""
        return -(self.even * self.even.clamp(min=torch.finfo(self.even.dtype).tiny).log()).sum()


def soft_choice(latents: Float[Tensor, "n d"], rows: Float[Tensor, "k d"], temperature: float) -> SoftChoice:
    """The rows of the largest inner products, and the entropies of softmax(products / temperature).

    The gradient of the vectors is that of softmax(products) @ rows, where these rows are constants, and of
    the chosen rows themselves (equations 3 to 5).
    """
    vectors, codes, entropies, sums = Choice.apply(latents, rows, temperature)
    return SoftChoice(vectors, codes, entropies / len(latents), mean_over_processes(sums / len(latents)))


class Choice(torch.autograd.Function):
    """Vectors, codes, and sums over latents of entropies and of probabilities."""

    @staticmethod
    def forward(ctx: FunctionCtx, latents: Tensor, rows: Tensor, temperature: float) -> tuple[Tensor, ...]:
        codes, entropies, sums = [], latents.new_zeros(()), torch.zeros_like(rows[:, 0])
        for few in chunks(latents, rows):
            products = few @ rows.T
            codes.append(products.argmax(1))
            logs = F.log_softmax(products.div_(temperature), dim=1)
            shares = torch.exp(logs, out=products)
            entropies -= torch.dot(shares.flatten(), logs.flatten())
            sums += shares.sum(0)
        chosen = torch.cat(codes)
        ctx.save_for_backward(latents, rows, chosen)
        ctx.temperature = temperature  # type: ignore[attr-defined]
        ctx.mark_non_differentiable(chosen)
        ctx.set_materialize_grads(False)
        return F.embedding(chosen, rows), chosen, entropies, sums

    @staticmethod
    @once_differentiable
    def backward(ctx: FunctionCtx, *gradients: Tensor | None) -> tuple[Tensor | None, ...]:
        vectors, _, entropies, sums = gradients
        latents, rows, codes = ctx.saved_tensors  # type: ignore[attr-defined]
        of_latents, of_rows = torch.empty_like(latents), torch.zeros_like(rows)
        begin = 0
        for few in chunks(latents, rows):
            part = slice(begin, begin := begin + len(few))
            products = few @ rows.T
            slope = torch.zeros_like(products)
            if vectors is not None:
                slope += through_softmax(products.softmax(1), vectors[part] @ rows.T)
            if entropies is not None or sums is not None:
                slope += of_entropies(products, entropies, sums, ctx.temperature)  # type: ignore[attr-defined]
            of_latents[part] = slope @ rows
            of_rows.addmm_(slope.T, few)
        if vectors is not None:
            of_rows.index_add_(0, codes, vectors)
        return of_latents, of_rows, None


def chunks(latents: Float[Tensor, "n d"], rows: Float[Tensor, "k d"]) -> tuple[Float[Tensor, "_ d"], ...]:
    """Latents, so many at a time as may meet all rows."""
    return latents.split(max(1, CHUNK // len(rows)))


def through_softmax(shares: Float[Tensor, "n k"], slope: Float[Tensor, "n k"]) -> Float[Tensor, "n k"]:
    """The slope of what a softmax was taken of, from the slope of the shares, in its place."""
    mean = torch.linalg.vecdot(shares, slope).unsqueeze(1)
    return slope.sub_(mean).mul_(shares)


def of_entropies(
    products: Float[Tensor, "n k"],
    entropies: Float[Tensor, ""] | None,
    sums: Float[Tensor, " k"] | None,
    temperature: float,
) -> Float[Tensor, "n k"]:
    """The slope of products, which are overwritten, from those of entropies and of sums of probabilities.

    An entropy's slope by a share q is -log q - 1; what is the same for all shares falls out.
    """
    logs = F.log_softmax(products.div_(temperature), dim=1)
    shares = torch.exp(logs, out=products)
    slope = logs.mul_(-entropies) if entropies is not None else logs.zero_()
    if sums is not None:
        slope += sums
    return through_softmax(shares, slope).div_(temperature)
