"""Captions from a frozen text encoder, as in LlamaGen (Sun et al. 2024, arXiv:2406.06525).

The last hidden states of an encoder such as T5 become prefix tokens, by a small MLP trained with the prior.
Captions are padded on the left, so that their ends precede the first code; padding is masked. The null
condition has learned states.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import islice

import torch
from einops import rearrange
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn.functional import gelu

from genstack.conditions import text_encoder
from genstack.conditions.captions import MAX_CAPTIONS, CaptionPrompts, warn_truncated
from genstack.conditions.condition import Condition, check_dropout
from genstack.conditions.embedding import ConditionEmbedding
from genstack.conditions.modality import Modality
from genstack.conditions.text_encoder import Precision, TextEncoder
from genstack.errors import UserError
from genstack.inputs import ConditionInputs, DataInfo

MAX_LENGTH = 120  # tokens of a caption, if `length` is 0; as in LlamaGen
FLAGS = 2  # channels before the states: 1 for tokens that are not padding, 1 for captions that are not null


@dataclass(frozen=True)
class EncodedCaptions(Condition):
    """Captions, one token per word piece, encoded by a frozen text encoder of the library transformers.

    Args:
        encoder: folder of the encoder (config.json, model.safetensors and tokenizer files), or hf:user/name
            on the Hugging Face hub, which is downloaded when training starts.
        length: tokens of a caption, including the end token; longer captions are truncated. 0 for the longest
            in the data, at most 120.
        precision: precision of the encoder: fp32, bf16 or fp16.
        lower: convert captions to lower case.
        dropout: share of training samples without their caption; 0 makes guidance impossible.
        dim: channels of the encoder's states; set from the encoder.
        weights_hash: hash of the encoder's weights and vocabulary; set from the encoder.
    """

    encoder: str = ""
    length: int = 0
    precision: Precision = "fp32"
    lower: bool = False
    dropout: float = 0.1
    dim: int = 0
    weights_hash: str = ""

    def __post_init__(self) -> None:
        check_dropout(self.dropout)
        if self.length < 0 or self.dim < 0:
            raise UserError(
                f"length and dim of captions must be at least 0, got {self.length} and {self.dim}"
            )

    @property
    def modality(self) -> Modality:
        return CaptionPrompts(self.count_tokens, self.length, self.dropout)

    def fit(self, data: DataInfo) -> "EncodedCaptions":
        """Open the encoder, and measure the longest caption."""
        captions = [self.normalize(caption) for caption in islice(data.captions(), MAX_CAPTIONS)]
        captions = list(dict.fromkeys(filter(None, captions)))
        if not captions:
            raise UserError("the data has no captions; give it captions, or use the condition ClassLabels")
        encoder = text_encoder.download(self.encoder, self.precision)
        lengths = encoder.count_tokens(captions)
        length = self.length or min(max(lengths), MAX_LENGTH)
        warn_truncated(lengths, length)
        return replace(self, length=length).with_encoder(encoder)

    def with_encoder(self, encoder: TextEncoder) -> "EncodedCaptions":
        """Return a copy with the dimension and hash of an encoder."""
        self.check(encoder)
        return replace(self, dim=encoder.dim, weights_hash=encoder.weights_hash)

    def check(self, encoder: TextEncoder) -> None:
        """Check that an encoder fits."""
        if encoder.limit is not None and self.length > encoder.limit:
            raise UserError(
                f"length {self.length} of captions exceeds the {encoder.limit} tokens of the text encoder "
                f"{self.encoder}; use a smaller `length`"
            )
        if self.dim not in (0, encoder.dim):
            raise UserError(
                f"the prior reads states of {self.dim} channels, the text encoder {self.encoder} has "
                f"{encoder.dim}; use the encoder of its training"
            )

    def open_encoder(self) -> TextEncoder:
        """Open the encoder that the prior was trained with."""
        encoder = text_encoder.find_trained(self.encoder, self.precision, self.weights_hash)
        self.check(encoder)
        return encoder

    def normalize(self, caption: str) -> str:
        """Normalize white space, and case if `lower`; empty for no caption."""
        text = " ".join(caption.split())
        return text.lower() if self.lower else text

    def encode(self, inputs: ConditionInputs) -> Float[Tensor, "b length channels"]:
        """States of each caption's tokens, padded on the left, after the channels `FLAGS`.

        A missing caption has one token.
        """
        device = inputs.labels.device
        content = torch.zeros(len(inputs), self.length, 1, device=device)
        content[:, -1] = 1
        states = torch.zeros(len(inputs), self.length, FLAGS - 1 + self.dim, device=device)
        captions = [self.normalize(caption) for caption in inputs.captions]
        rows = [row for row, caption in enumerate(captions) if caption]
        if rows:
            encoder = self.open_encoder().to(device)
            encoded, counts = encoder.encode([captions[row] for row in rows], self.length)
            encoded = torch.cat([torch.ones_like(encoded[..., :1]), encoded], dim=2).to(device)
            positions = torch.arange(self.length)
            rolled = (positions + rearrange(counts, "b -> b 1")) % self.length  # padding comes first
            states[rows] = encoded.take_along_dim(rearrange(rolled, "b n -> b n 1").to(device), dim=1)
            content[rows] = rearrange(positions >= self.length - counts[:, None], "b n -> b n 1").to(content)
        return torch.cat([content, states * content], dim=2)

    def null(self, values: Float[Tensor, "b length channels"]) -> Float[Tensor, "b length channels"]:
        """Keep the padding of the caption, as in LlamaGen."""
        return torch.cat([values[..., :1], torch.zeros_like(values[..., 1:])], dim=-1)

    def padding_mask(self, values: Float[Tensor, "b length channels"]) -> Bool[Tensor, "b length"]:
        return values[..., 0] == 0

    def embedding(self, width: int) -> ConditionEmbedding:
        return StateProjection(self.dim, self.length, width)

    def count_tokens(self, captions: Sequence[str]) -> list[int]:
        """Count the tokens of each caption."""
        return self.open_encoder().count_tokens([self.normalize(caption) for caption in captions])


class StateProjection(ConditionEmbedding):
    """MLP from states of a text encoder to tokens: `b length channels -> b length width`."""

    def __init__(self, dim: int, length: int, width: int):
        super().__init__()
        self.fc1 = nn.Linear(dim, width, bias=False)
        self.fc2 = nn.Linear(width, width, bias=False)
        self.null_states = nn.Parameter(torch.randn(length, dim) / dim**0.5)
        nn.init.normal_(self.fc1.weight, std=dim**-0.5)
        nn.init.normal_(self.fc2.weight, std=0.02)

    def forward(self, values: Float[Tensor, "b length channels"]) -> Float[Tensor, "b length width"]:
        content, given = values[..., :1], values[..., 1:FLAGS]
        states = torch.where(given > 0, values[..., FLAGS:], self.null_states) * content
        return self.fc2(gelu(self.fc1(states), approximate="tanh"))
