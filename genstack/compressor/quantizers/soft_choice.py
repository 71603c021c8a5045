"""Choice by the largest inner product with the gradient of a softmax, in chunks (arXiv:2412.02692).

Gradients are in closed form, and the backward pass recomputes what it needs. The matrix of all inner products
never exists, so memory grows with neither latents nor rows.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor
from torch.autograd.function import FunctionCtx, once_differentiable

from genstack.dist import differentiable_mean

CHUNK = 2**21  # inner products per chunk; a few arrays of this size exist at a time


@dataclass
class SoftChoice:
    """Output of a soft choice.

    Args:
        vectors: the chosen rows, with the gradient of the softmax.
        hard: the chosen rows, with gradients to the rows only.
        codes: indices of the chosen rows; the lowest index wins ties.
        entropy: mean entropy of the softmax over latents.
        mean: mean softmax over the latents of all processes.
    """

    vectors: Float[Tensor, "n d"]
    hard: Float[Tensor, "n d"]
    codes: Int[Tensor, " n"]
    entropy: Float[Tensor, ""]
    mean: Float[Tensor, " k"]

    @property
    def entropy_of_mean(self) -> Float[Tensor, ""]:
        """Entropy of the mean softmax."""
        return -(self.mean * self.mean.clamp(min=torch.finfo(self.mean.dtype).tiny).log()).sum()


def soft_choice(latents: Float[Tensor, "n d"], rows: Float[Tensor, "k d"], temperature: float) -> SoftChoice:
    """Choose rows by the largest inner product, and compute entropies of softmax(products / temperature).

    The vectors have the gradient of softmax(products) @ rows with constant rows, plus the gradient of the
    chosen rows (equations 3 to 5).
    """
    vectors, hard, codes, entropies, sums = Choice.apply(latents, rows, temperature)
    return SoftChoice(
        vectors, hard, codes, entropies / len(latents), differentiable_mean(sums / len(latents))
    )


class Choice(torch.autograd.Function):
    """Vectors twice, codes, and sums over latents of entropies and of probabilities.

    All gradients of the rows add up in one array; autograd would allocate one per use.
    """

    @staticmethod
    def forward(ctx: FunctionCtx, latents: Tensor, rows: Tensor, temperature: float) -> tuple[Tensor, ...]:
        chosen = torch.empty(len(latents), dtype=torch.int64, device=latents.device)
        entropies, sums = latents.new_zeros(()), torch.zeros_like(rows[:, 0])
        begin = 0
        for few, products, logs in chunks(latents, rows, buffers=2):
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
        latents_gradient, rows_gradient = torch.empty_like(latents), torch.zeros_like(rows)
        begin = 0
        for few, products, gradient, other in chunks(latents, rows, buffers=3):
            part = slice(begin, begin := begin + len(few))
            torch.mm(few, rows.T, out=products)
            if vectors is None:
                gradient.zero_()
            else:
                torch.mm(vectors[part], rows.T, out=gradient)
                softmax_backward(torch.softmax(products, dim=1, out=other), gradient)
            if entropies is not None or sums is not None:
                gradient.add_(entropy_backward(products, entropies, sums, temperature, other))
            latents_gradient[part] = gradient @ rows
            rows_gradient.addmm_(gradient.T, few)
        for each in (vectors, hard):
            if each is not None:
                rows_gradient.index_add_(0, codes, each)
        return latents_gradient, rows_gradient, None


def chunks(latents: Float[Tensor, "n d"], rows: Float[Tensor, "k d"], buffers: int) -> Iterator[list[Tensor]]:
    """Yield chunks of latents, each with a number of matrices for its products.

    All chunks share the matrices, since freeing them in between fragments memory.
    """
    size = max(1, CHUNK // len(rows))
    matrices = [latents.new_empty(min(size, len(latents)), len(rows)) for _ in range(buffers)]
    for few in latents.split(size):
        yield [few, *(space[: len(few)] for space in matrices)]


def softmax_backward(shares: Float[Tensor, "n k"], gradient: Float[Tensor, "n k"]) -> Float[Tensor, "n k"]:
    """Backpropagate through a softmax: turn the gradient of its output, in place, into its input's."""
    mean = torch.einsum("n k, n k -> n", shares, gradient)  # vecdot would write out all products
    return gradient.sub_(mean.unsqueeze(1)).mul_(shares)


def entropy_backward(
    products: Float[Tensor, "n k"],
    entropies: Float[Tensor, ""] | None,
    sums: Float[Tensor, " k"] | None,
    temperature: float,
    logs: Float[Tensor, "n k"],
) -> Float[Tensor, "n k"]:
    """Backpropagate from entropies and sums of probabilities to products, overwriting `logs`.

    The derivative of an entropy by a share q is -log q - 1; constants over shares cancel.
    """
    torch.log_softmax(products.div_(temperature), dim=1, out=logs)
    shares = torch.exp(logs, out=products)
    gradient = logs.mul_(-entropies) if entropies is not None else logs.zero_()
    if sums is not None:
        gradient += sums
    return softmax_backward(shares, gradient).div_(temperature)
