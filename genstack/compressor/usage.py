"""Codebook usage over a window of codes rather than one batch."""

import math
from dataclasses import dataclass

import torch
from einops import rearrange
from jaxtyping import Int
from torch import Tensor, nn

from genstack.layout import CodeLayout

#: Most joint codes that are counted as such; beyond, no window of codes could show all of them.
MOST = 2**20


@dataclass(frozen=True)
class Usage:
    """Health of a codebook: the joint codes seen, of all there are.

    Args:
        share: share of all codes that were seen at least once, in [0, 1].
        perplexity: exp of the entropy of the codes seen: so many equally frequent codes have that entropy.
        dead: number of codes never seen.
    """

    share: float
    perplexity: float
    dead: int


def usage(codes: Int[Tensor, " count"], codebook_size: int) -> Usage:
    """Usage of a codebook by joint codes; negative ones do not count."""
    codes = codes[codes >= 0]
    if len(codes) == 0:
        return Usage(0.0, 0.0, codebook_size)
    counts = codes.unique(return_counts=True)[1].cpu().double()
    frequencies = counts / counts.sum()
    perplexity = torch.exp(-(frequencies * frequencies.log()).sum())
    return Usage(len(counts) / codebook_size, float(perplexity), codebook_size - len(counts))


class Window(nn.Module):
    """The latest codes: a ring buffer, saved with the run.

    The codes of one position count together, as one of codebook_size ** depth joint codes. Where these are
    more than `MOST`, as for residual codes, each symbol counts by itself; a symbol of more than 2^20 values
    counts in parts of 2^10 (`CodeLayout.parts`).

    Args:
        layout: of the codes.
        shortest: the least number of codes to keep; ten per code, up to 2**20, if that is more.
    """

    codes: Tensor
    position: Tensor

    def __init__(self, layout: CodeLayout, shortest: int = 2**14):
        super().__init__()
        together = layout.codebook_size**layout.depth
        self.joint = together <= MOST
        #: Groups of codes that count apart, with equally many codes in each.
        self.groups = 1 if self.joint else layout.depth * len(layout.parts)
        self.codebook_size = together if self.joint else layout.depth * sum(layout.parts)
        self.layout = layout
        length = max(shortest, min(10 * self.codebook_size, 2**20))
        self.register_buffer("codes", torch.full((length,), -1))
        self.register_buffer("position", torch.tensor(0))

    def add(self, codes: Int[Tensor, "b n"]) -> None:
        """Take in the codes of a batch; the oldest make room."""
        latest = self.numbers(codes)[-len(self.codes) :]
        places = (self.position + torch.arange(len(latest), device=latest.device)) % len(self.codes)
        self.codes[places] = latest
        self.position += len(latest)

    def numbers(self, codes: Int[Tensor, "b n"]) -> Int[Tensor, " count"]:
        """Codes that are counted, each in [0, codebook_size)."""
        if self.joint:
            return self.layout.joint(codes).flatten()
        parts = torch.tensor(self.layout.parts * self.layout.depth, device=codes.device)
        first = rearrange(parts.cumsum(0) - parts, "(depth part) -> depth part", depth=self.layout.depth)
        depth = torch.arange(codes.shape[1], device=codes.device) % self.layout.depth
        return (self.layout.split_parts(codes) + first[depth]).flatten()

    @property
    def kind(self) -> str:
        """What counts as a code."""
        if self.joint:
            return "joint codes of each position"
        whole = "symbols of each depth"
        return whole if len(self.layout.parts) == 1 else f"parts of 10 bits of the {whole}"

    def usage(self) -> Usage:
        """Usage over the window."""
        return usage(self.codes, self.codebook_size)

    @property
    def filled(self) -> int:
        """Number of codes in the window."""
        return int((self.codes >= 0).sum())

    @property
    def possible(self) -> float:
        """The share of the codebook that so many codes would show if all were equally likely."""
        return 1 - math.exp(-self.filled / self.codebook_size)

    def counts(self) -> Int[Tensor, " seen"]:
        """How often each code was seen that was, the most frequent first."""
        counts = self.codes[self.codes >= 0].unique(return_counts=True)[1]
        return counts.sort(descending=True).values.cpu()
