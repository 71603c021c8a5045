"""Codebook usage over a window of recent codes."""

import math
from dataclasses import dataclass

import torch
from einops import rearrange
from jaxtyping import Int
from torch import Tensor, nn

from genstack.layout import CodeLayout

#: Maximum number of joint codes; no window could show more of them.
MAX_JOINT = 2**20


@dataclass(frozen=True)
class Usage:
    """Usage of a codebook.

    Args:
        share: share of the codes in use, in [0, 1].
        perplexity: exp of the entropy of the codes, an effective number of equally frequent codes.
        dead: number of unused codes.
    """

    share: float
    perplexity: float
    dead: int


def usage(codes: Int[Tensor, " count"], codebook_size: int) -> Usage:
    """Compute the usage of a codebook; negative codes do not count."""
    codes = codes[codes >= 0]
    if len(codes) == 0:
        return Usage(0.0, 0.0, codebook_size)
    counts = codes.unique(return_counts=True)[1].cpu().double()
    frequencies = counts / counts.sum()
    perplexity = torch.exp(-(frequencies * frequencies.log()).sum())
    return Usage(len(counts) / codebook_size, float(perplexity), codebook_size - len(counts))


class Window(nn.Module):
    """Ring buffer of recent codes, saved in checkpoints.

    The symbols of a position count as one of codebook_size ** depth joint codes. If these are more than
    `MAX_JOINT`, as for residual codes, symbols count separately. A symbol of more than 2^20 values counts in
    parts of 2^10 (`CodeLayout.parts`).

    Args:
        layout: layout of the codes.
        shortest: minimum number of codes to keep; it is at least ten per code, up to 2**20.
    """

    codes: Tensor
    position: Tensor

    def __init__(self, layout: CodeLayout, shortest: int = 2**14):
        super().__init__()
        together = layout.codebook_size**layout.depth
        self.joint = together <= MAX_JOINT
        #: Number of groups that count separately, with equally many codes in each.
        self.groups = 1 if self.joint else layout.depth * len(layout.parts)
        self.codebook_size = together if self.joint else layout.depth * sum(layout.parts)
        self.layout = layout
        length = max(shortest, min(10 * self.codebook_size, 2**20))
        self.register_buffer("codes", torch.full((length,), -1))
        self.register_buffer("position", torch.tensor(0))

    def add(self, codes: Int[Tensor, "b n"]) -> None:
        """Add the codes of a batch in place of the oldest."""
        latest = self.numbers(codes)[-len(self.codes) :]
        places = (self.position + torch.arange(len(latest), device=latest.device)) % len(self.codes)
        self.codes[places] = latest
        self.position += len(latest)

    def numbers(self, codes: Int[Tensor, "b n"]) -> Int[Tensor, " count"]:
        """Number the codes to count, in [0, codebook_size)."""
        if self.joint:
            return self.layout.joint(codes).flatten()
        parts = torch.tensor(self.layout.parts * self.layout.depth, device=codes.device)
        first = rearrange(parts.cumsum(0) - parts, "(depth part) -> depth part", depth=self.layout.depth)
        depth = torch.arange(codes.shape[1], device=codes.device) % self.layout.depth
        return (self.layout.split_parts(codes) + first[depth]).flatten()

    @property
    def kind(self) -> str:
        """Description of the codes that are counted."""
        if self.joint:
            return "joint codes of each position"
        whole = "symbols of each depth"
        return whole if len(self.layout.parts) == 1 else f"parts of 10 bits of the {whole}"

    def usage(self) -> Usage:
        """Compute the usage over the window."""
        return usage(self.codes, self.codebook_size)

    @property
    def count(self) -> int:
        """Number of codes in the window."""
        return int((self.codes >= 0).sum())

    @property
    def possible(self) -> float:
        """Expected share of the codebook in a window of this many uniform codes."""
        return 1 - math.exp(-self.count / self.codebook_size)

    def counts(self) -> Int[Tensor, " seen"]:
        """Count the codes in use, the most frequent first."""
        counts = self.codes[self.codes >= 0].unique(return_counts=True)[1]
        return counts.sort(descending=True).values.cpu()
