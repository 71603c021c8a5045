"""A choice by the largest inner product whose gradient is that of a softmax, in chunks (arXiv:2412.02692).

All gradients are in closed form and what they need is computed again, so memory grows with neither latents
nor rows: the matrix of all inner products never exists.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor
from torch.autograd.function import FunctionCtx, once_differentiable

from genstack.dist import differentiable_mean

CHUNK = 2**21  # inner products that exist at a time; some arrays of this size do


@dataclass
class SoftChoice:
    """Output of a soft choice.

    Args:
        vectors: the chosen rows, with the gradient of the softmax.
        hard: the chosen rows, whose gradient is theirs alone.
        codes: their numbers; of equal products the lowest.
        entropy: mean entropy of the softmax of each latent.
        even: the mean softmax over all latents, of all processes.
    """

    vectors: Float[Tensor, "n d"]
    hard: Float[Tensor, "n d"]
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
    vectors, hard, codes, entropies, sums = Choice.apply(latents, rows, temperature)
    return SoftChoice(
        vectors, hard, codes, entropies / len(latents), differentiable_mean(sums / len(latents))
    )


class Choice(torch.autograd.Function):
    """Vectors twice, codes, and sums over latents of entropies and of probabilities.

    All gradients of the rows meet in one array here: autograd would make one more of their size for each use.
    """

    @staticmethod
    def forward(ctx: FunctionCtx, latents: Tensor, rows: Tensor, temperature: float) -> tuple[Tensor, ...]:
        chosen = torch.empty(len(latents), dtype=torch.int64, device=latents.device)
        entropies, sums = latents.new_zeros(()), torch.zeros_like(rows[:, 0])
        begin = 0
        for few, products, logs in chunks(latents, rows, spaces=2):
            torch.mm(few, rows.T, out=products)
            part = slice(begin, begin := begin + len(few))
            chosen[part] = products.argmax(1)
            torch.log_softmax(products.div_(temperature), dim=1, out=logs)
            shares = torch.exp(logs, out=products)
            entropies -= torch.dot(shares.flatten(), logs.flatten())
            sums += shares.sum(0)
        ctx.save_for_backward(latents, rows, chosen)
        ctx.temperature = temperature  # type: ignore[attr-defined]
        ctx.mark_non_differentiable(chosen)
        ctx.set_materialize_grads(False)
        vectors = F.embedding(chosen, rows)
        return vectors, vectors.clone(), chosen, entropies, sums

    @staticmethod
    @once_differentiable
    def backward(ctx: FunctionCtx, *gradients: Tensor | None) -> tuple[Tensor | None, ...]:
        vectors, hard, _, entropies, sums = gradients
        latents, rows, codes = ctx.saved_tensors  # type: ignore[attr-defined]
        temperature = ctx.temperature  # type: ignore[attr-defined]
        of_latents, of_rows = torch.empty_like(latents), torch.zeros_like(rows)
        begin = 0
        for few, products, slope, other in chunks(latents, rows, spaces=3):
            part = slice(begin, begin := begin + len(few))
            torch.mm(few, rows.T, out=products)
            if vectors is None:
                slope.zero_()
            else:
                torch.mm(vectors[part], rows.T, out=slope)
                through_softmax(torch.softmax(products, dim=1, out=other), slope)
            if entropies is not None or sums is not None:
                slope.add_(of_entropies(products, entropies, sums, temperature, other))
            of_latents[part] = slope @ rows
            of_rows.addmm_(slope.T, few)
        for gradient in (vectors, hard):
            if gradient is not None:
                of_rows.index_add_(0, codes, gradient)
        return of_latents, of_rows, None


def chunks(latents: Float[Tensor, "n d"], rows: Float[Tensor, "k d"], spaces: int) -> Iterator[list[Tensor]]:
    """Latents, so many at a time as may meet all rows, and so many matrices for their products.

    The matrices are the same for all chunks: memory that is given back in between lies in pieces.
    """
    size = max(1, CHUNK // len(rows))
    held = [latents.new_empty(min(size, len(latents)), len(rows)) for _ in range(spaces)]
    for few in latents.split(size):
        yield [few, *(space[: len(few)] for space in held)]


def through_softmax(shares: Float[Tensor, "n k"], slope: Float[Tensor, "n k"]) -> Float[Tensor, "n k"]:
    """The slope of what a softmax was taken of, from the slope of the shares, in its place."""
    mean = torch.einsum("n k, n k -> n", shares, slope)  # vecdot would write out all products
    return slope.sub_(mean.unsqueeze(1)).mul_(shares)


def of_entropies(
    products: Float[Tensor, "n k"],
    entropies: Float[Tensor, ""] | None,
    sums: Float[Tensor, " k"] | None,
    temperature: float,
    logs: Float[Tensor, "n k"],
) -> Float[Tensor, "n k"]:
    """The slope of products, from those of entropies and of sums of probabilities, in the place of `logs`.

    An entropy's slope by a share q is -log q - 1; what is the same for all shares falls out.
    """
    torch.log_softmax(products.div_(temperature), dim=1, out=logs)
    shares = torch.exp(logs, out=products)
    slope = logs.mul_(-entropies) if entropies is not None else logs.zero_()
    if sums is not None:
        slope += sums
    return through_softmax(shares, slope).div_(temperature)
