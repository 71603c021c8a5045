"""Sequential sampling: one code after the other, each given those before it."""

from abc import ABC, abstractmethod

import torch
from einops import rearrange
from jaxtyping import Float, Int
from torch import Tensor

from genstack.prior.guidance import Guidance
from genstack.prior.known import Known
from genstack.prior.options import SamplingOptions
from genstack.prior.symbols import Distribution


class Decoder(ABC):
    """State of one pass through the codes of a batch, such as caches of keys and values."""

    #: Distribution of the next code given its logits.
    distribution: Distribution

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
    uniforms: Float[Tensor, "b numbers"],
    known: Known,
    start: int = 0,
) -> Int[Tensor, "b n"]:
    """Sample one code after the other; known codes are kept.

    Args:
        decoder: gives the logits, for all rows of `guidance`.
        guidance: applied to the logits.
        options: sampling options.
        uniforms: as many numbers in [0, 1) for each code as its distribution takes.
        known: codes that are given.
        start: first code to sample; those before it are known.
    """
    images, length = known.values.shape
    uniforms = rearrange(uniforms, "b (n number) -> n b number", n=length).contiguous()
    given, mask = (rearrange(each, "b n -> n b") for each in (known.values, known.mask))
    codes = guidance.expand(known.values.masked_fill(~known.mask, 0))
    codes = rearrange(codes, "rows n -> n rows").contiguous()
    for index in range(start, length):
        logits, guide = decoder.next_logits(codes, index), guidance.at(options.progress(index, length))
        sampled = decoder.distribution.sample(logits, guide, options, uniforms[index])
        codes[index] = guidance.expand(torch.where(mask[index], given[index], sampled))
    return rearrange(codes[:, :images], "n b -> b n").contiguous()
