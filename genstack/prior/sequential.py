"""Sequential sampling: one code after the other, each given those before it."""

from abc import ABC, abstractmethod

import torch
from einops import rearrange
from jaxtyping import Float, Int
from torch import Tensor

from genstack.prior.guidance import Guidance
from genstack.prior.known import Known
from genstack.prior.logits import sample_from_logits
from genstack.prior.options import SamplingOptions


class Decoder(ABC):
    """State of one pass through the codes of a batch, such as caches of keys and values."""

    @abstractmethod
    def next_logits(self, codes: Int[Tensor, "n b"], index: int) -> Float[Tensor, "b K"]:
        """Logits of code `index`, in float32.

        Called once for each index, in order.

        Args:
            codes: all codes, of which the first `index` are sampled.
            index: number of the next code.
        """


def sample_sequence(
    decoder: Decoder,
    guidance: Guidance,
    options: SamplingOptions,
    uniforms: Float[Tensor, "b n"],
    known: Known,
    start: int = 0,
) -> Int[Tensor, "b n"]:
    """Sample one code after the other; known codes are kept.

    Args:
        decoder: gives the logits, for all rows of `guidance`.
        guidance: applied to the logits.
        options: sampling options.
        uniforms: a number in [0, 1) for each code.
        known: codes that are given.
        start: first code to sample; those before it are known.
    """
    images, length = known.values.shape
    uniforms = rearrange(uniforms, "b n -> n b").contiguous()
    given, mask = (rearrange(each, "b n -> n b") for each in (known.values, known.mask))
    codes = guidance.expand(known.values.masked_fill(~known.mask, 0))
    codes = rearrange(codes, "rows n -> n rows").contiguous()
    for index in range(start, length):
        logits = guidance.apply(decoder.next_logits(codes, index), options.progress(index, length))
        sampled = sample_from_logits(logits, options, uniforms[index])
        codes[index] = guidance.expand(torch.where(mask[index], given[index], sampled))
    return rearrange(codes[:, :images], "n b -> b n").contiguous()
