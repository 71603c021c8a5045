"""The transformer that priors share (Vaswani et al. 2017, arXiv:1706.03762; Llama, arXiv:2302.13971)."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import ceil, log
from typing import Literal

import torch
from einops import rearrange
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn.functional import dropout, gelu, normalize, rms_norm, silu
from torch.utils.checkpoint import checkpoint

from genstack.errors import UserError
from genstack.layout import CodeLayout
from genstack.prior.adaptive import Changes, Offset, SteeredNorm, modulated
from genstack.prior.cache import Cache
from genstack.prior.crossing import Answers, CrossedLayer, Crossing, Pair
from genstack.prior.masks import Mask
from genstack.prior.positions import PlaceEmbedding, Rotary, Rotation
from genstack.prior.reading import Reading

EPSILON = 1e-5


@dataclass(frozen=True)
class Backbone:
    """A plan of a transformer.

    Args:
        width: channels of a token, a multiple of `heads`.
        depth: number of layers.
        heads: attention heads of each layer.
        norm: normalization before each half of a layer: rms (root mean square, no mean) or layer.
        feedforward: second half of a layer: swiglu (gated, two thirds as wide, as many weights), gelu, or
            gelu_tanh, its approximation.
        ratio: hidden width of the second half over `width`, for gelu; swiglu takes two thirds of it, rounded
            up to a multiple of `rounding`, or of `width` where that is less.
        positions: how a token knows its place: rotary (angles of row and column) or learned (a vector each).
        qk_norm: normalize queries and keys of each head; keeps attention stable in long and in bf16 training.
            unit: to vectors of length one, with a learned temperature for each head (arXiv:2010.04245).
        dropout: share of values dropped from the tokens at the start and from what each half of a layer adds.
        bias: give the linear layers (and layer norms) biases.
        checkpoint: forget activations and compute them again in the backward pass: less memory, more time.
        rounding: see `ratio`.
        unplaced: rotary queries and keys of a token without a place, such as a condition: kept as they are,
            or zero, so that such tokens weigh alike for all (as in LlamaGen, arXiv:2406.06525).
        adaptive: let the condition also scale, shift and gate what each layer computes (adaptive norms): own
            (each layer has weights for it), shared (one set for all layers) or none.
        crossing: let each layer read the tokens of the condition by cross-attention; before the codes stands
            their mean alone, not all of them. For captions and images, which are many tokens.
    """

    width: int = 384
    depth: int = 8
    heads: int = 6
    norm: Literal["rms", "layer"] = "rms"
    feedforward: Literal["swiglu", "gelu", "gelu_tanh"] = "swiglu"
    ratio: float = 4.0
    positions: Literal["rotary", "learned"] = "rotary"
    qk_norm: bool | Literal["unit"] = True
    dropout: float = 0.1
    bias: bool = False
    checkpoint: bool = False
    rounding: int = 256
    unplaced: Literal["kept", "zero"] = "kept"
    adaptive: Literal["none", "own", "shared"] = "none"
    crossing: bool = False

    def __post_init__(self) -> None:
        if self.rounding < 1:
            raise UserError(f"rounding {self.rounding} is out of range; it is at least 1")
        if min(self.width, self.depth, self.heads) < 1:
            raise UserError(
                f"width, depth and heads are at least 1, not {self.width}, {self.depth} and {self.heads}"
            )
        if self.ratio <= 0 or not 0 <= self.dropout < 1:
            raise UserError(
                f"ratio is above 0, dropout at least 0 and below 1, not {self.ratio} and {self.dropout}"
            )
        step = self.heads * (4 if self.positions == "rotary" else 1)
        if self.width % step:
            raise UserError(
                f"width {self.width} is not a multiple of {step} ({self.heads} heads, {self.positions}); "
                f"use {ceil(self.width / step) * step} or change `heads`"
            )

    @property
    def head_width(self) -> int:
        """Channels of one head."""
        return self.width // self.heads

    def before(self, length: int) -> int:
        """How many tokens stand before the codes for a condition of so many."""
        return 1 if self.crossing else length

    @property
    def hidden(self) -> int:
        """Hidden width of the second half of a layer."""
        if self.feedforward != "swiglu":
            return round(self.ratio * self.width)
        step = min(self.rounding, self.width)
        return ceil(int(self.ratio * self.width * 2 / 3) / step) * step


def normalization(backbone: Backbone) -> nn.Module:
    """A norm over the channels of each token."""
    if backbone.norm == "rms":
        return nn.RMSNorm(backbone.width, eps=EPSILON)
    return nn.LayerNorm(backbone.width, eps=EPSILON, bias=backbone.bias)


class HeadNorm(nn.Module):
    """Root mean square norm over the channels of each head, in float32 (arXiv:2302.05442)."""

    def __init__(self, heads: int, head_width: int):
        super().__init__()
        self.heads = heads
        self.gain = nn.Parameter(torch.ones(heads * head_width))

    def forward(self, heads: Float[Tensor, "b h n d"]) -> Float[Tensor, "b h n d"]:
        gain = rearrange(self.gain, "(h d) -> h 1 d", h=self.heads)
        return rms_norm(heads.float(), heads.shape[-1:], eps=EPSILON) * gain


class UnitNorm(nn.Module):
    """Queries and keys of length one, queries times a learned scale of their head (arXiv:2010.04245)."""

    def __init__(self, heads: int, head_width: int):
        super().__init__()
        self.root = head_width**0.5  # attention divides by it again
        self.scale = nn.Parameter(torch.full((heads,), log(4)))

    def forward(self, heads: Float[Tensor, "b h n d"]) -> Float[Tensor, "b h n d"]:
        queries, keys = normalize(heads.float(), dim=-1).chunk(2, dim=1)
        scale = self.root * self.scale.clamp(max=log(100)).exp()
        return torch.cat([queries * rearrange(scale, "h -> h 1 1"), keys], dim=1)


def meeting_norm(backbone: Backbone) -> nn.Module:
    """What is done to queries and keys, one tensor of twice the heads, before they meet."""
    if backbone.qk_norm == "unit":
        return UnitNorm(backbone.heads, backbone.head_width)
    return HeadNorm(2 * backbone.heads, backbone.head_width) if backbone.qk_norm else nn.Identity()


def crossing_norm(backbone: Backbone) -> nn.Module:
    """What is done to the queries, or to the keys, of cross-attention before they meet."""
    return HeadNorm(backbone.heads, backbone.head_width) if backbone.qk_norm else nn.Identity()


class Attention(nn.Module):
    """Self-attention of several heads. Queries and keys are one tensor of twice the heads until they meet."""

    def __init__(self, backbone: Backbone):
        super().__init__()
        self.heads = backbone.heads
        self.read = nn.Linear(backbone.width, 3 * backbone.width, bias=backbone.bias)
        self.norm = meeting_norm(backbone)
        self.write = nn.Linear(backbone.width, backbone.width, bias=backbone.bias)

    def forward(
        self, tokens: Float[Tensor, "b n width"], rotation: Rotation | None, mask: Mask, cache: Cache | None
    ) -> Float[Tensor, "b n width"]:
        heads = rearrange(self.read(tokens), "b n (h d) -> b h n d", h=3 * self.heads)
        meeting, values = heads.split([2 * self.heads, self.heads], dim=1)
        meeting = self.norm(meeting)
        if rotation is not None:
            meeting = rotation(meeting)
        queries, keys = meeting.type_as(values).chunk(2, dim=1)
        if cache is not None:
            keys, values = cache.append(keys, values)
        return self.write(rearrange(mask.attend(queries, keys, values), "b h n d -> b n (h d)"))


class SwiGLU(nn.Module):
    """A gated feed-forward network (Shazeer 2020, arXiv:2002.05202)."""

    def __init__(self, backbone: Backbone):
        super().__init__()
        self.read = nn.Linear(backbone.width, 2 * backbone.hidden, bias=backbone.bias)
        self.write = nn.Linear(backbone.hidden, backbone.width, bias=backbone.bias)

    def forward(self, tokens: Float[Tensor, "b n width"]) -> Float[Tensor, "b n width"]:
        gate, hidden = self.read(tokens).chunk(2, dim=-1)
        return self.write(silu(gate) * hidden)


class GELU(nn.Module):
    """The feed-forward network of GPT-2."""

    def __init__(self, backbone: Backbone):
        super().__init__()
        self.read = nn.Linear(backbone.width, backbone.hidden, bias=backbone.bias)
        self.write = nn.Linear(backbone.hidden, backbone.width, bias=backbone.bias)
        self.approximate = {"gelu": "none", "gelu_tanh": "tanh"}[backbone.feedforward]

    def forward(self, tokens: Float[Tensor, "b n width"]) -> Float[Tensor, "b n width"]:
        return self.write(gelu(self.read(tokens), approximate=self.approximate))


def feedforward(backbone: Backbone) -> nn.Module:
    """The second half of a layer."""
    return SwiGLU(backbone) if backbone.feedforward == "swiglu" else GELU(backbone)


class Layer(nn.Module):
    """Attention, then a feed-forward network, each added to what it read."""

    def __init__(self, backbone: Backbone):
        super().__init__()
        self.attention_norm = normalization(backbone)
        self.attention = Attention(backbone)
        self.feedforward_norm = normalization(backbone)
        self.feedforward = feedforward(backbone)
        self.dropout = backbone.dropout

    def forward(
        self, tokens: Float[Tensor, "b n width"], rotation: Rotation | None, mask: Mask, cache: Cache | None
    ) -> Float[Tensor, "b n width"]:
        added = self.attention(self.attention_norm(tokens), rotation, mask, cache)
        tokens = tokens + dropout(added, self.dropout, self.training)
        added = self.feedforward(self.feedforward_norm(tokens))
        return tokens + dropout(added, self.dropout, self.training)


class SteeredLayer(nn.Module):
    """A layer whose norms the condition steers, with a gate on what each half adds (arXiv:2212.09748)."""

    def __init__(self, backbone: Backbone):
        super().__init__()
        self.norm = backbone.norm
        self.attention = Attention(backbone)
        self.feedforward = feedforward(backbone)
        shared = backbone.adaptive == "shared"
        self.changes = Offset(backbone.width, 6) if shared else Changes(backbone.width, 6, gates=2)
        self.dropout = backbone.dropout

    def forward(
        self,
        tokens: Float[Tensor, "b n width"],
        rotation: Rotation | None,
        mask: Mask,
        cache: Cache | None,
        steering: Float[Tensor, "b *changes width"],
    ) -> Float[Tensor, "b n width"]:
        """`steering` is the condition, or the changes that all layers share."""
        gates, scales, shifts = rearrange(
            self.changes(steering), "b (kind half) w -> kind half b 1 w", half=2
        )
        added = self.attention(modulated(tokens, scales[0], shifts[0], self.norm), rotation, mask, cache)
        tokens = tokens + dropout(added * gates[0], self.dropout, self.training)
        added = self.feedforward(modulated(tokens, scales[1], shifts[1], self.norm))
        return tokens + dropout(added * gates[1], self.dropout, self.training)


def layer(backbone: Backbone) -> nn.Module:
    """A layer of the kind that is planned."""
    made: nn.Module = Layer(backbone) if backbone.adaptive == "none" else SteeredLayer(backbone)
    if not backbone.crossing:
        return made
    crossing = Crossing(backbone.width, backbone.heads, crossing_norm(backbone), backbone.bias)
    return CrossedLayer(normalization(backbone), crossing, made, backbone.dropout)


def answers(backbone: Backbone) -> nn.ModuleList:
    """What makes keys and values of the condition for each layer, if layers read it across."""
    count, width, heads = backbone.depth if backbone.crossing else 0, backbone.width, backbone.heads
    return nn.ModuleList(Answers(width, heads, crossing_norm(backbone), backbone.bias) for _ in range(count))


class Transformer(nn.Module):
    """Tokens to tokens. Each call says what they see and where they lie, so that any kind of prior fits.

    Args:
        layout: where the codes lie.
        backbone: the plan.
    """

    #: What takes steps instead of `taken`; set while the network is compiled for drawing.
    quick: Callable[..., Tensor] | None = None

    def __init__(self, layout: CodeLayout, backbone: Backbone):
        super().__init__()
        self.layout, self.backbone = layout, backbone
        rotary = backbone.positions == "rotary"
        self.places = PlaceEmbedding(layout, backbone.width, absolute=not rotary)
        self.rotary = Rotary(layout, backbone.head_width, backbone.unplaced == "zero") if rotary else None
        steered, width = backbone.adaptive != "none", backbone.width
        self.layers = nn.ModuleList(layer(backbone) for _ in range(backbone.depth))
        self.answers = answers(backbone)
        self.norm = SteeredNorm(width, backbone.norm) if steered else normalization(backbone)
        self.shared = Changes(width, 6, gates=2) if backbone.adaptive == "shared" else None
        for name, module in self.named_modules():
            if isinstance(module, nn.Linear):
                std = 0.02 / (2 * backbone.depth) ** 0.5 if name.endswith("write") else 0.02
                nn.init.normal_(module.weight, std=std)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
        for module in self.modules():
            if isinstance(module, Changes):
                module.start()

    def forward(
        self,
        tokens: Float[Tensor, "b n width"],
        positions: Int[Tensor, "*b n"],
        mask: Mask,
        caches: Sequence[Cache] | None = None,
        steering: Float[Tensor, "b width"] | None = None,
        pairs: Sequence[Pair] = (),
    ) -> Float[Tensor, "b n width"]:
        """Normalised features of each token.

        Args:
            tokens: embedded codes and conditions.
            positions: the index in the flat sequence of the code that each token stands for, the same for all
                images or one row for each; `layout.length` for a token without a place, such as a condition.
            mask: which tokens see which.
            caches: one for each layer, to go on after the tokens of earlier calls.
            steering: the condition as one vector, from its `reading`; read by adaptive norms alone.
            pairs: the condition as keys and values, from its `reading`; read by cross-attention alone.
        """
        tokens = dropout(self.places(tokens, positions), self.backbone.dropout, self.training)
        rotation = None if self.rotary is None else self.rotary(positions)
        last = () if self.backbone.adaptive == "none" else (steering,)
        each = last if self.shared is None else (self.shared(steering),)
        for index, module in enumerate(self.layers):
            cache = None if caches is None else caches[index]
            read = (*pairs[index : index + 1], rotation, mask, cache, *each)
            if self.backbone.checkpoint and self.training:
                tokens = checkpoint(module, tokens, *read, use_reentrant=False)
            else:
                tokens = module(tokens, *read)
        return self.norm(tokens, *last)

    def step(
        self,
        tokens: Float[Tensor, "b n width"],
        positions: Int[Tensor, "*b n"],
        mask: Mask,
        caches: Sequence[Cache],
        reading: Reading,
        head: nn.Module | None = None,
    ) -> Tensor:
        """As `forward`, for tokens that go on after those that `caches` hold.

        Not `__call__`, since a network compiled for training would be compiled again for every length.

        Args:
            tokens: of codes; at the start of conditions, too.
            positions: see `forward`.
            mask: see `forward`.
            caches: one for each layer.
            reading: the condition.
            head: makes logits, b x K and in float32, of the last token's features. Without it there are the
                features of all tokens, b x n x width.
        """
        return (self.quick or self.taken)(tokens, positions, mask, caches, reading, head)

    def taken(
        self,
        tokens: Float[Tensor, "b n width"],
        positions: Int[Tensor, "*b n"],
        mask: Mask,
        caches: Sequence[Cache],
        reading: Reading,
        head: nn.Module | None,
    ) -> Tensor:
        """A step as it is, not compiled; see `step`."""
        features = self.forward(tokens, positions, mask, caches, reading.steering, reading.pairs)
        return features if head is None else head(features[:, -1]).float()

    def reading(self, condition: Float[Tensor, "b n width"], hidden: Bool[Tensor, "b n"] | None) -> Reading:
        """A condition as this network reads it: across, with one token before the codes, or all before them.

        Args:
            condition: its tokens.
            hidden: True for those that only fill up; None where all are seen.
        """
        if not self.backbone.crossing:
            return Reading(condition, steering(condition), hidden=hidden)
        told = steering(condition) if hidden is None else shown(condition, hidden)
        pairs = [answers(condition, hidden) for answers in self.answers]
        return Reading(rearrange(told, "b width -> b 1 width"), told, pairs)

    def caches(self, length: int) -> list[Cache]:
        """Empty caches for so many tokens."""
        return [Cache(length) for _ in self.layers]


def steering(condition: Float[Tensor, "b n width"]) -> Float[Tensor, "b width"]:
    """The tokens of a condition as one vector: what steers adaptive norms."""
    return condition.mean(dim=1)


def shown(condition: Float[Tensor, "b n width"], hidden: Bool[Tensor, "b n"]) -> Float[Tensor, "b width"]:
    """The mean of the tokens of a condition that are not hidden; 0 where all are."""
    kept = condition.masked_fill(rearrange(hidden, "b n -> b n 1"), 0).sum(dim=1)
    return kept / rearrange((~hidden).sum(dim=1).clamp(min=1), "b -> b 1")
