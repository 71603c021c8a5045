"""Captions through a frozen text encoder, as LlamaGen reads them (Sun et al. 2024, arXiv:2406.06525).

The last states of an encoder such as T5's become tokens before the codes, by a small network that is trained
along. Short captions are filled up on the left, where no token sees what fills up, so that the end of every
caption stands beside the first code. Of no caption, learned states stand for the encoder's.
"""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import islice

import torch
from einops import rearrange
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn.functional import gelu

from genstack.conditions import text_encoder
from genstack.conditions.captions import MOST_READ, chosen, told
from genstack.conditions.condition import Condition, check_dropout
from genstack.conditions.embedding import ConditionEmbedding
from genstack.conditions.text_encoder import Precision, TextEncoder
from genstack.errors import UserError
from genstack.inputs import ConditionInputs, DataInfo, Prompts

MOST_TOKENS = 120  # of a caption, where nothing else is said; as many as LlamaGen has
FLAGS = 2  # channels before the states: whether a token is shown, and whether there is a caption


@dataclass(frozen=True)
class EncodedCaptions(Condition):
    """Captions, as one token for each of theirs, read by a frozen text encoder of the library transformers.

    Args:
        encoder: folder of the encoder (config.json, model.safetensors and the files of its tokenizer), or
            hf:user/name for one of the Hugging Face hub, which is fetched when the training begins.
        length: tokens of a caption, with the one that the tokenizer puts behind it; 0 for as many as the
            longest of the data has, at most 120. What lies behind is cut off.
        precision: of the encoder: fp32, bf16 or fp16.
        lower: read captions in lower case.
        dropout: share of training samples without their caption; 0 makes guidance impossible.
        dim: channels of the encoder's states; set from the encoder.
        weights: hash of the encoder's weights and words; set from the encoder.
    """

    encoder: str = ""
    length: int = 0
    precision: Precision = "fp32"
    lower: bool = False
    dropout: float = 0.1
    dim: int = 0
    weights: str = ""

    def __post_init__(self) -> None:
        check_dropout(self.dropout)
        if self.length < 0 or self.dim < 0:
            raise UserError(
                f"length {self.length} and dim {self.dim} of captions are out of range; they are at least 0"
            )

    def of(self, offer: DataInfo) -> "EncodedCaptions":
        """With what the encoder is, and the length of the longest caption."""
        captions = [self.plain(caption) for caption in islice(offer.captions(), MOST_READ)]
        captions = list(dict.fromkeys(filter(None, captions)))
        if not captions:
            raise UserError("the data has no captions; give it captions, or use the condition ClassLabels")
        encoder = text_encoder.named(self.encoder, self.precision)
        counts = encoder.counts(captions)
        length = self.length or min(max(counts), MOST_TOKENS)
        cut = sum(length < count for count in counts)
        if cut:
            warnings.warn(
                f"{cut} of {len(counts)} captions are longer than {length} tokens and lose their ends; "
                f"raise the condition's `length` up to {max(counts)} to keep them",
                stacklevel=2,
            )
        return replace(self, length=length).by(encoder)

    def by(self, encoder: TextEncoder) -> "EncodedCaptions":
        """With what an encoder is.

        Raises:
            UserError: it does not fit.
        """
        self.check(encoder)
        return replace(self, dim=encoder.dim, weights=encoder.weights)

    def check(self, encoder: TextEncoder) -> None:
        """Refuse an encoder that does not fit.

        Raises:
            UserError: its states or its number of tokens do not.
        """
        if encoder.limit is not None and self.length > encoder.limit:
            raise UserError(
                f"length {self.length} of captions is more than the {encoder.limit} tokens that the text "
                f"encoder {self.encoder} reads; use a smaller `length`"
            )
        if self.dim not in (0, encoder.dim):
            raise UserError(
                f"the prior reads states of {self.dim} channels, and those of the text encoder "
                f"{self.encoder} have {encoder.dim}; name the one that it was trained with"
            )

    def known(self) -> TextEncoder:
        """The encoder that the prior was trained with."""
        encoder = text_encoder.known(self.encoder, self.precision, self.weights)
        self.check(encoder)
        return encoder

    def plain(self, caption: str) -> str:
        """A caption as the encoder reads it; empty for none."""
        text = " ".join(caption.split())
        return text.lower() if self.lower else text

    def values(self, facts: ConditionInputs) -> Float[Tensor, "b length channels"]:
        """The states of each caption's tokens, at the end, behind the flags `FLAGS`.

        No caption has the one token of an empty text.
        """
        device = facts.labels.device
        shown = torch.zeros(len(facts), self.length, 1, device=device)
        shown[:, -1] = 1
        states = torch.zeros(len(facts), self.length, FLAGS - 1 + self.dim, device=device)
        captions = [self.plain(caption) for caption in facts.captions]
        rows = [row for row, caption in enumerate(captions) if caption]
        if rows:
            found, counts = self.known().to(device).read([captions[row] for row in rows], self.length)
            found = torch.cat([torch.ones_like(found[..., :1]), found], dim=2).to(device)
            places = torch.arange(self.length)
            turned = (places + rearrange(counts, "b -> b 1")) % self.length  # what fills up comes first
            states[rows] = found.take_along_dim(rearrange(turned, "b n -> b n 1").to(device), dim=1)
            shown[rows] = rearrange(places >= self.length - counts[:, None], "b n -> b n 1").to(shown)
        return torch.cat([shown, states * shown], dim=2)

    def null(self, values: Float[Tensor, "b length channels"]) -> Float[Tensor, "b length channels"]:
        """As many tokens are shown as of the caption, as in LlamaGen."""
        return torch.cat([values[..., :1], torch.zeros_like(values[..., 1:])], dim=-1)

    def padding_mask(self, values: Float[Tensor, "b length channels"]) -> Bool[Tensor, "b length"]:
        return values[..., 0] == 0

    def embedding(self, width: int) -> ConditionEmbedding:
        return StateProjection(self.dim, self.length, width)

    def choose(self, wishes: Prompts, count: int) -> ConditionInputs:
        """The captions asked for in turn; without any, images of all kinds."""
        return chosen(wishes, count, self.dropout, self.counts, self.length)

    def counts(self, captions: Sequence[str]) -> list[int]:
        """Tokens of each caption."""
        return self.known().counts([self.plain(caption) for caption in captions])

    def shown(self, held_out: ConditionInputs) -> ConditionInputs:
        return ConditionInputs(torch.zeros_like(held_out.labels), held_out.captions)

    def tell(self, facts: ConditionInputs) -> list[dict[str, str]]:
        return told(facts)


class StateProjection(ConditionEmbedding):
    """States of a text encoder to tokens: `b length channels -> b length width`.

    Args:
        dim: channels of a state, behind the flags.
        length: tokens of a caption.
        width: channels of a token.
    """

    def __init__(self, dim: int, length: int, width: int):
        super().__init__()
        self.read = nn.Linear(dim, width, bias=False)
        self.write = nn.Linear(width, width, bias=False)
        self.nothing = nn.Parameter(torch.randn(length, dim) / dim**0.5)
        nn.init.normal_(self.read.weight, std=dim**-0.5)
        nn.init.normal_(self.write.weight, std=0.02)

    def forward(self, values: Float[Tensor, "b length channels"]) -> Float[Tensor, "b length width"]:
        shown, told = values[..., :1], values[..., 1:FLAGS]
        states = torch.where(told > 0, values[..., FLAGS:], self.nothing) * shown
        return self.write(gelu(self.read(states), approximate="tanh"))
