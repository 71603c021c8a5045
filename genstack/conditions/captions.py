"""Captions: words through a transformer of their own, trained along, to tokens before the codes.

As in DALL-E (Ramesh et al. 2021, arXiv:2102.12092) every place behind the end of a caption has a learned
vector of its own; an empty caption is the null condition. An encoder reads the words first, each seeing all
others, as in Parti (Yu et al. 2022, arXiv:2206.10789).
"""

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import islice

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from genstack.conditions.condition import Condition, check_dropout, in_turn, only
from genstack.conditions.embedding import ConditionEmbedding
from genstack.conditions.vocabulary import BYTES, learn, tokens
from genstack.errors import UserError
from genstack.inputs import ConditionInputs, DataInfo, Prompts
from genstack.transformer.backbone import Backbone
from genstack.transformer.masks import Full
from genstack.transformer.transformer import Layer, normalization

MOST_READ = 200_000  # captions that the vocabulary is learned from
MOST_TOKENS = 64  # of a caption, where nothing else is said
LARGEST = 2**17  # vocabulary


@dataclass(frozen=True)
class Captions(Condition):
    """Captions, as one token for each of theirs, read by a small transformer that is trained along.

    Args:
        vocabulary: most tokens that the words of the training captions are cut into; 256 are single bytes.
        length: tokens of a caption; 0 for as many as the longest of the data has, at most 64. What lies
            behind is cut off.
        depth: layers of the transformer that reads the words.
        heads: attention heads of each layer; the prior's width is a multiple of them.
        dropout: share of training samples whose caption becomes empty; 0 makes guidance impossible.
        merges: how bytes become longer tokens; set from the data.
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
            "vocabulary": (BYTES <= self.vocabulary <= LARGEST, f"from {BYTES} to {LARGEST}"),
            "length": (self.length >= 0, "at least 0 (0 for that of the longest caption)"),
            "depth": (self.depth >= 0, "at least 0"),
            "heads": (self.heads >= 1, "at least 1"),
        }
        for name, (kept, limit) in limits.items():
            if not kept:
                raise UserError(f"{name} {getattr(self, name)} of captions is out of range; it is {limit}")

    def of(self, offer: DataInfo) -> "Captions":
        """With the vocabulary of the training captions, and the length of the longest."""
        captions = [caption for caption in islice(offer.captions(), MOST_READ) if caption.strip()]
        if not captions:
            raise UserError("the data has no captions; give it captions, or use the condition ClassLabels")
        merges = self.merges or learn(captions, self.vocabulary)
        lengths = [len(tokens(caption, merges)) for caption in captions]
        length = self.length or min(max(lengths), MOST_TOKENS)
        cut = sum(length < one for one in lengths)
        if cut:
            warnings.warn(
                f"{cut} of {len(lengths)} captions are longer than {length} tokens and lose their ends; "
                f"raise the condition's `length` up to {max(lengths)} to keep them",
                stacklevel=2,
            )
        return replace(self, merges=merges, length=length)

    def values(self, facts: ConditionInputs) -> Int[Tensor, "b length"]:
        """Tokens of each caption; 0 behind its end."""
        rows = torch.zeros(len(facts), self.length, dtype=torch.int64)
        for row, caption in zip(rows, facts.captions, strict=False):
            found = tokens(caption, self.merges)[: self.length]
            row[: len(found)] = torch.tensor(found, dtype=torch.int64)
        return rows.to(facts.labels.device)

    def null(self, values: Int[Tensor, "b length"]) -> Int[Tensor, "b length"]:
        return torch.zeros_like(values)

    def embedding(self, width: int) -> ConditionEmbedding:
        return TextTransformer(BYTES + len(self.merges) + 1, self.length, width, self.depth, self.heads)

    def choose(self, wishes: Prompts, count: int) -> ConditionInputs:
        """The captions asked for in turn; without any, images of all kinds."""
        return chosen(wishes, count, self.dropout, self.counts, self.length)

    def counts(self, captions: Sequence[str]) -> list[int]:
        """Tokens of each caption."""
        return [len(tokens(caption, self.merges)) for caption in captions]

    def shown(self, held_out: ConditionInputs) -> ConditionInputs:
        return ConditionInputs(torch.zeros_like(held_out.labels), held_out.captions)

    def tell(self, facts: ConditionInputs) -> list[dict[str, str]]:
        return told(facts)


def chosen(
    wishes: Prompts, count: int, dropout: float, counts: Callable[[Sequence[str]], list[int]], length: int
) -> ConditionInputs:
    """Inputs for the captions asked for, in turn; without any, of nothing.

    Args:
        wishes: what was asked for.
        count: number of images.
        dropout: share of training samples that had no caption.
        counts: tokens of captions.
        length: most tokens that are read.
    """
    only(wishes, "captions", "on captions")
    if not wishes.captions:
        if dropout == 0:
            raise UserError(
                'this prior was trained with a caption for every image; say one: --caption "a red circle"'
            )
        return ConditionInputs.nothing(count)
    for caption, needed in zip(wishes.captions, counts(wishes.captions), strict=True):
        if needed > length:
            raise UserError(
                f"caption {caption[:60]!r} has {needed} tokens, and this prior reads {length}; shorten it, "
                f"or train one whose condition has a larger `length`"
            )
    return replace(ConditionInputs.nothing(count), captions=tuple(in_turn(wishes.captions, count)))


def told(facts: ConditionInputs) -> list[dict[str, str]]:
    """The caption of each image, for people and for files."""
    return [{"caption": caption} for caption in facts.captions] or [{}] * len(facts)


class TextTransformer(ConditionEmbedding):
    """Tokens of captions to vectors, each of which has seen the whole caption: `b length -> b length width`.

    Args:
        tokens: how many there are, with 0 for no token.
        length: of a caption.
        width: channels.
        depth: layers.
        heads: attention heads of a layer.
    """

    def __init__(self, tokens: int, length: int, width: int, depth: int, heads: int):
        super().__init__()
        if width % heads:
            raise UserError(f"the prior's width {width} is not a multiple of {heads} heads of its captions")
        plan = Backbone(width, max(1, depth), heads, positions="learned", dropout=0.0)
        self.tokens = nn.Embedding(tokens, width)
        self.places = nn.Embedding(length, width)
        self.nothing = nn.Embedding(length, width)
        self.layers = nn.ModuleList(Layer(plan) for _ in range(depth))
        self.norm = normalization(plan)
        for table in (self.tokens, self.places, self.nothing):
            nn.init.normal_(table.weight, std=0.02)
        for name, module in self.layers.named_modules():
            if isinstance(module, nn.Linear):
                std = 0.02 / (2 * depth) ** 0.5 if name.endswith(("out", "fc2")) else 0.02
                nn.init.normal_(module.weight, std=std)

    def forward(self, values: Int[Tensor, "b length"]) -> Float[Tensor, "b length width"]:
        read = values > 0
        features = torch.where(read[..., None], self.tokens(values) + self.places.weight, self.nothing.weight)
        for layer in self.layers:
            features = layer(features, None, Full(), None)
        return self.norm(features)
