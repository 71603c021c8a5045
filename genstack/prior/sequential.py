"""Sequential sampling: one code after the other, each given those before it."""

from abc import ABC, abstractmethod
from typing import final

import torch
from einops import rearrange
from jaxtyping import Float, Int
from torch import Tensor, nn

from genstack.prior.exact import Exact
from genstack.prior.guidance import Guidance
from genstack.prior.known import Known
from genstack.prior.logits import uniforms
from genstack.prior.options import SamplingOptions
from genstack.prior.symbols import Distribution
from genstack.transformer.encoded_condition import EncodedCondition
from genstack.transformer.masks import Causal
from genstack.transformer.positions import PositionEmbedding
from genstack.transformer.transformer import Transformer


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


class CachedTransformer:
    """A causal transformer that keeps keys and values, so that each call costs its own tokens alone.

    Args:
        transformer: the transformer.
        encoded: the condition, one row per sequence.
        target: embedding of the position that a token predicts.
        positions: position of each token's own code, shared by all sequences or one row for each.
        targets: position of the code that each token predicts, likewise.
    """

    def __init__(
        self,
        transformer: Transformer,
        encoded: EncodedCondition,
        target: PositionEmbedding,
        positions: Int[Tensor, "*b t"],
        targets: Int[Tensor, "*b t"],
    ):
        self.transformer, self.encoded, self.target = transformer, encoded, target
        self.positions, self.targets = positions, targets
        self.mask, self.caches = encoded.mask_padding(Causal()), transformer.caches(positions.shape[-1])
        self.tokens = 0

    def __call__(self, tokens: Float[Tensor, "b n width"], head: nn.Module | None = None) -> Tensor:
        """Features of the next tokens, b x n x width, or with `head` the logits of the last, b x K."""
        now = slice(self.tokens, self.tokens + tokens.shape[1])
        self.tokens = now.stop
        tokens = self.target(tokens, self.targets[..., now])
        return self.transformer.step(
            tokens, self.positions[..., now], self.mask, self.caches, self.encoded, head
        )


class Sequential(Exact):
    """An exact prior that samples in the order of the flat sequence; known codes affect later ones only."""

    @abstractmethod
    def decoder(self, condition: Tensor) -> Decoder:
        """Begin to decode a batch of sequences, one for each row of the condition's values."""

    @property
    def numbers(self) -> int:
        """Random numbers that sampling a code takes."""
        return self.distribution.numbers

    @final
    def sample_codes(
        self, guidance: Guidance, options: SamplingOptions, seeds: Int[Tensor, " b"], known: Known
    ) -> Int[Tensor, "b n"]:
        noise = uniforms(seeds, self.layout.length * self.numbers).to(known.values.device)
        return sample_sequence(self.decoder(guidance.values), guidance, options, noise, known)


def sample_sequence(
    decoder: Decoder,
    guidance: Guidance,
    options: SamplingOptions,
    noise: Float[Tensor, "b numbers"],
    known: Known,
    start: int = 0,
) -> Int[Tensor, "b n"]:
    """Sample one code after the other, from index `start`; codes before it are known.

    `noise` holds as many numbers in [0, 1) for each code as its distribution takes.
    """
    images, length = known.values.shape
    noise = rearrange(noise, "b (n number) -> n b number", n=length).contiguous()
    given, mask = (rearrange(each, "b n -> n b") for each in (known.values, known.mask))
    codes = guidance.expand(known.values.masked_fill(~known.mask, 0))
    codes = rearrange(codes, "rows n -> n rows").contiguous()
    for index in range(start, length):
        logits, guide = decoder.next_logits(codes, index), guidance.at(options.progress(index, length))
        sampled = decoder.distribution.sample(logits, guide, options, noise[index])
        codes[index] = guidance.expand(torch.where(mask[index], given[index], sampled))
    return rearrange(codes[:, :images], "n b -> b n").contiguous()
