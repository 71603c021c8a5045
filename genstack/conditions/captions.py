"""Captions, encoded by a small transformer that is trained with the prior.

As in Parti (Yu et al. 2022, arXiv:2206.10789), attention among the words is bidirectional. As in DALL-E
(Ramesh et al. 2021, arXiv:2102.12092), padding has a learned vector per position, and an empty caption is the
null condition.
"""

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import islice

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from genstack.conditions.condition import Condition, check_dropout
from genstack.conditions.embedding import ConditionEmbedding
from genstack.conditions.modality import Modality, cycle
from genstack.conditions.vocabulary import BYTES, learn_merges, tokenize
from genstack.errors import UserError
from genstack.inputs import ConditionInputs, DataInfo, Prompts
from genstack.transformer.backbone import Backbone
from genstack.transformer.masks import Full
from genstack.transformer.transformer import Layer, normalization

MAX_CAPTIONS = 200_000  # that the vocabulary is learned from
MAX_LENGTH = 64  # tokens of a caption, if `length` is 0
MAX_VOCABULARY = 2**17


@dataclass(frozen=True)
class Captions(Condition):
    """Captions, one token per word piece, encoded by a small transformer trained with the prior.

    Args:
        vocabulary: size of the byte-pair vocabulary learned from the training captions; 256 are single bytes.
        length: tokens of a caption; longer captions are truncated. 0 for the longest in the data, at most 64.
        depth: layers of the text transformer.
        heads: attention heads of each layer, a divisor of the prior's width.
        dropout: share of training samples whose caption becomes empty; 0 makes guidance impossible.
        merges: merges of byte pairs; set from the data.
    """

    vocabulary: int = 4096
    length: int = 0
    depth: int = 2
    heads: int = 4
    dropout: float = 0.1
    merges: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        check_dropout(self.dropout)
        limits = {
            "vocabulary": (BYTES <= self.vocabulary <= MAX_VOCABULARY, f"from {BYTES} to {MAX_VOCABULARY}"),
            "length": (self.length >= 0, "at least 0 (0 for the longest caption)"),
            "depth": (self.depth >= 0, "at least 0"),
            "heads": (self.heads >= 1, "at least 1"),
        }
        for name, (valid, limit) in limits.items():
            if not valid:
                raise UserError(f"{name} of captions must be {limit}, got {getattr(self, name)}")

    @property
    def modality(self) -> Modality:
        return CaptionPrompts(self.count_tokens, self.length, self.dropout)

    def fit(self, data: DataInfo) -> "Captions":
        """Learn the vocabulary, and measure the longest caption."""
        captions = [caption for caption in islice(data.captions(), MAX_CAPTIONS) if caption.strip()]
        if not captions:
            raise UserError("the data has no captions; give it captions, or use the condition ClassLabels")
        merges = self.merges or learn_merges(captions, self.vocabulary)
        lengths = [len(tokenize(caption, merges)) for caption in captions]
        length = self.length or min(max(lengths), MAX_LENGTH)
        warn_truncated(lengths, length)
        return replace(self, merges=merges, length=length)

    def encode(self, inputs: ConditionInputs) -> Int[Tensor, "b length"]:
        """Tokens of each caption, padded with 0."""
        rows = torch.zeros(len(inputs), self.length, dtype=torch.int64)
        for row, caption in zip(rows, inputs.captions, strict=False):
            tokens = tokenize(caption, self.merges)[: self.length]
            row[: len(tokens)] = torch.tensor(tokens, dtype=torch.int64)
        return rows.to(inputs.labels.device)

    def null(self, values: Int[Tensor, "b length"]) -> Int[Tensor, "b length"]:
        return torch.zeros_like(values)

    def embedding(self, width: int) -> ConditionEmbedding:
        return TextTransformer(BYTES + len(self.merges) + 1, self.length, width, self.depth, self.heads)

    def count_tokens(self, captions: Sequence[str]) -> list[int]:
        """Count the tokens of each caption."""
        return [len(tokenize(caption, self.merges)) for caption in captions]


def warn_truncated(lengths: Sequence[int], length: int) -> None:
    """Warn of captions with more than `length` tokens."""
    truncated = sum(length < one for one in lengths)
    if truncated:
        warnings.warn(
            f"{truncated} of {len(lengths)} captions are longer than {length} tokens and are truncated; "
            f"raise the condition's `length` up to {max(lengths)} to keep them",
            stacklevel=3,
        )


class CaptionPrompts(Modality):
    """Captions of at most `length` tokens; without prompts, empty ones."""

    kind = "captions"

    def __init__(self, count_tokens: Callable[[Sequence[str]], list[int]], length: int, dropout: float):
        self.count_tokens, self.length, self.dropout = count_tokens, length, dropout

    def read_prompts(self, prompts: Prompts, count: int) -> ConditionInputs:
        if not prompts.captions:
            return self.unprompted(count, self.dropout)
        for caption, tokens in zip(prompts.captions, self.count_tokens(prompts.captions), strict=True):
            if tokens > self.length:
                raise UserError(
                    f"caption {caption[:60]!r} has {tokens} tokens, the prior reads {self.length}; shorten "
                    f"it, or train a prior with a larger `length` of the condition"
                )
        return replace(ConditionInputs.nothing(count), captions=tuple(cycle(prompts.captions, count)))

    def preview(self, held_out: ConditionInputs) -> ConditionInputs:
        return ConditionInputs(torch.zeros_like(held_out.labels), held_out.captions)

    def describe(self, inputs: ConditionInputs) -> list[dict[str, str]]:
        return [{"caption": caption} for caption in inputs.captions] or [{}] * len(inputs)


class TextTransformer(ConditionEmbedding):
    """Bidirectional transformer over the tokens of captions, 0 for padding: `b length -> b length width`."""

    def __init__(self, tokens: int, length: int, width: int, depth: int, heads: int):
        super().__init__()
        if width % heads:
            raise UserError(f"the prior's width {width} is not a multiple of the captions' {heads} heads")
        backbone = Backbone(width, max(1, depth), heads, positions="learned", dropout=0.0)
        self.tokens = nn.Embedding(tokens, width)
        self.position_embedding = nn.Embedding(length, width)
        self.padding = nn.Embedding(length, width)
        self.layers = nn.ModuleList(Layer(backbone) for _ in range(depth))
        self.norm = normalization(backbone)
        for table in (self.tokens, self.position_embedding, self.padding):
            nn.init.normal_(table.weight, std=0.02)
        for name, module in self.layers.named_modules():
            if isinstance(module, nn.Linear):
                std = 0.02 / (2 * depth) ** 0.5 if name.endswith(("out", "fc2")) else 0.02
                nn.init.normal_(module.weight, std=std)

    def forward(self, values: Int[Tensor, "b length"]) -> Float[Tensor, "b length width"]:
        padding = values == 0
        features = torch.where(
            ~padding[..., None], self.tokens(values) + self.position_embedding.weight, self.padding.weight
        )
        for layer in self.layers:
            features = layer(features, None, Full(), None)
        return self.norm(features)
