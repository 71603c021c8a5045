"""Sequential sampling: one code after the other, or several at a time, given all previous codes."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
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
from genstack.transformer.masks import Causal, Full
from genstack.transformer.positions import PositionEmbedding
from genstack.transformer.transformer import Transformer


class DecodingState(ABC):
    """State of one pass through the codes of a batch, such as caches of keys and values."""

    #: Distribution of the next code given its logits.
    distribution: Distribution
    #: Indices of the codes that each step samples; () for one code after the other.
    steps: Sequence[Int[Tensor, " group"]] = ()

    @abstractmethod
    def next_logits(self, codes: Int[Tensor, "n b"], index: int) -> Float[Tensor, "rows K"]:
        """Return the logits of the codes of a step, in float32, one row per image and code.

        Called once for each step, in order.

        Args:
            codes: codes of the whole sequence; only codes of earlier steps are valid.
            index: number of the step; with one code per step, the index of the code.
        """


class CachedTransformer:
    """A causal transformer that keeps keys and values, so that each call costs its own tokens alone.

    Tokens of the first call see earlier ones. Tokens of a later call see each other, too.

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
        self.caches = transformer.caches(positions.shape[-1])
        self.mask, self.later = (encoded.mask_padding(mask) for mask in (Causal(), Full()))
        self.tokens = 0

    def __call__(self, tokens: Float[Tensor, "b n width"], head: nn.Module | None = None) -> Tensor:
        """Features of the next tokens, b x n x width, or with `head` the logits of the last, b x K."""
        now = slice(self.tokens, self.tokens + tokens.shape[1])
        mask = self.later if self.tokens else self.mask
        self.tokens = now.stop
        tokens = self.target(tokens, self.targets[..., now])
        return self.transformer.step(tokens, self.positions[..., now], mask, self.caches, self.encoded, head)


class Sequential(Exact):
    """An exact prior that samples code after code; known codes affect later ones only."""

    @abstractmethod
    def decoding_state(self, condition: Tensor) -> DecodingState:
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
        return sample_sequence(self.decoding_state(guidance.values), guidance, options, noise, known)


def sample_sequence(
    state: DecodingState,
    guidance: Guidance,
    options: SamplingOptions,
    noise: Float[Tensor, "b numbers"],
    known: Known,
    start: int = 0,
) -> Int[Tensor, "b n"]:
    """Sample codes step by step from step `start`; codes of earlier steps must be known.

    `noise` holds as many numbers in [0, 1) for each code as its distribution takes.
    """
    images, length = known.values.shape
    noise = rearrange(noise, "b (n number) -> n b number", n=length).contiguous()
    given, mask = (rearrange(each, "b n -> n b") for each in (known.values, known.mask))
    codes = guidance.expand(known.values.masked_fill(~known.mask, 0))
    codes = rearrange(codes, "rows n -> n rows").contiguous()
    copies = rearrange(codes, "n (copies b) -> n copies b", b=images)  # the same memory
    single = [slice(index, index + 1) for index in range(length)]
    steps: Sequence[Tensor | slice] = state.steps or single
    for step in range(start, len(steps)):
        now = steps[step]
        logits, guide = state.next_logits(codes, step), guidance.at(options.progress(step, len(steps)))
        numbers = rearrange(noise[now], "n b number -> (b n) number")
        sampled = state.distribution.sample(logits, guide, options, numbers)
        sampled = rearrange(sampled, "(b n) -> n b", b=images)
        copies[now] = torch.where(mask[now], given[now], sampled)[:, None]
    return rearrange(codes[:, :images], "n b -> b n").contiguous()
