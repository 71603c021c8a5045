"""The transformer that priors share (Vaswani et al. 2017, arXiv:1706.03762; Llama, arXiv:2302.13971)."""

from collections.abc import Callable, Sequence

from einops import rearrange
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn.functional import dropout, gelu, silu
from torch.utils.checkpoint import checkpoint

from genstack.layout import CodeLayout
from genstack.transformer.adaln import AdaLN, Modulation, SharedModulation, modulated
from genstack.transformer.attention import EPSILON, Attention, crossing_norm
from genstack.transformer.backbone import Backbone
from genstack.transformer.cache import Cache
from genstack.transformer.cross_attention import CrossAttention, CrossAttentionLayer, KeyValue, KeyValuePair
from genstack.transformer.encoded_condition import EncodedCondition
from genstack.transformer.masks import Mask
from genstack.transformer.positions import PlaceEmbedding, Rotary, Rotation


def normalization(backbone: Backbone) -> nn.Module:
    """A norm over the channels of each token."""
    if backbone.norm == "rms":
        return nn.RMSNorm(backbone.width, eps=EPSILON)
    return nn.LayerNorm(backbone.width, eps=EPSILON, bias=backbone.bias)


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


class AdaLNLayer(nn.Module):
    """A layer whose norms the condition steers, with a gate on what each half adds (arXiv:2212.09748)."""

    def __init__(self, backbone: Backbone):
        super().__init__()
        self.norm = backbone.norm
        self.attention = Attention(backbone)
        self.feedforward = feedforward(backbone)
        shared = backbone.adaln == "shared"
        self.changes = (
            SharedModulation(backbone.width, 6) if shared else Modulation(backbone.width, 6, gates=2)
        )
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
    made: nn.Module = Layer(backbone) if backbone.adaln == "none" else AdaLNLayer(backbone)
    if not backbone.cross_attention:
        return made
    cross_attention = CrossAttention(backbone.width, backbone.heads, crossing_norm(backbone), backbone.bias)
    return CrossAttentionLayer(normalization(backbone), cross_attention, made, backbone.dropout)


def answers(backbone: Backbone) -> nn.ModuleList:
    """What makes keys and values of the condition for each layer, if layers read it across."""
    count, width, heads = backbone.depth if backbone.cross_attention else 0, backbone.width, backbone.heads
    return nn.ModuleList(KeyValue(width, heads, crossing_norm(backbone), backbone.bias) for _ in range(count))


class Transformer(nn.Module):
    """Tokens to tokens. Each call says what they see and where they lie, so that any kind of prior fits.

    Args:
        layout: where the codes lie.
        backbone: the plan.
    """

    #: What takes steps instead of `forward`; set while the network is compiled for drawing.
    quick: Callable[..., Tensor] | None = None

    def __init__(self, layout: CodeLayout, backbone: Backbone):
        super().__init__()
        self.layout, self.backbone = layout, backbone
        rotary = backbone.positions == "rotary"
        self.places = PlaceEmbedding(layout, backbone.width, absolute=not rotary)
        self.rotary = Rotary(layout, backbone.head_width, backbone.unplaced == "zero") if rotary else None
        steered, width = backbone.adaln != "none", backbone.width
        self.layers = nn.ModuleList(layer(backbone) for _ in range(backbone.depth))
        self.answers = answers(backbone)
        self.norm = AdaLN(width, backbone.norm) if steered else normalization(backbone)
        self.shared = Modulation(width, 6, gates=2) if backbone.adaln == "shared" else None
        for name, module in self.named_modules():
            if isinstance(module, nn.Linear):
                std = 0.02 / (2 * backbone.depth) ** 0.5 if name.endswith("write") else 0.02
                nn.init.normal_(module.weight, std=std)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
        for module in self.modules():
            if isinstance(module, Modulation):
                module.start()

    def forward(
        self,
        tokens: Float[Tensor, "b n width"],
        positions: Int[Tensor, "*b n"],
        mask: Mask,
        caches: Sequence[Cache] | None = None,
        steering: Float[Tensor, "b width"] | None = None,
        pairs: Sequence[KeyValuePair] = (),
        head: nn.Module | None = None,
    ) -> Tensor:
        """Normalised features of each token, b x n x width, or what a head makes of those of the last.

        Args:
            tokens: embedded codes and conditions.
            positions: the index in the flat sequence of the code that each token stands for, the same for all
                images or one row for each; `layout.length` for a token without a place, such as a condition.
            mask: which tokens see which.
            caches: one for each layer, to go on after the tokens of earlier calls.
            steering: the condition as one vector, from its `reading`; read by adaptive norms alone.
            pairs: the condition as keys and values, from its `reading`; read by cross-attention alone.
            head: makes logits, b x K and in float32, of the last token's features.
        """
        tokens = dropout(self.places(tokens, positions), self.backbone.dropout, self.training)
        rotation = None if self.rotary is None else self.rotary(positions)
        last = () if self.backbone.adaln == "none" else (steering,)
        each = last if self.shared is None else (self.shared(steering),)
        for index, module in enumerate(self.layers):
            cache = None if caches is None else caches[index]
            read = (*pairs[index : index + 1], rotation, mask, cache, *each)
            if self.backbone.checkpoint and self.training:
                tokens = checkpoint(module, tokens, *read, use_reentrant=False)
            else:
                tokens = module(tokens, *read)
        features = self.norm(tokens, *last)
        return features if head is None else head(features[:, -1]).float()

    def step(
        self,
        tokens: Float[Tensor, "b n width"],
        positions: Int[Tensor, "*b n"],
        mask: Mask,
        caches: Sequence[Cache],
        reading: EncodedCondition,
        head: nn.Module | None = None,
    ) -> Tensor:
        """As `forward`, for tokens that go on after those that `caches` hold.

        Not `__call__`, since a network compiled for training would be compiled again for every length.
        """
        walk = self.quick or self.forward
        return walk(tokens, positions, mask, caches, reading.steering, reading.pairs, head)

    def reading(
        self, condition: Float[Tensor, "b n width"], hidden: Bool[Tensor, "b n"] | None
    ) -> EncodedCondition:
        """A condition as this network reads it: across, with one token before the codes, or all before them.

        Args:
            condition: its tokens.
            hidden: True for those that only fill up; None where all are seen.
        """
        if not self.backbone.cross_attention:
            return EncodedCondition(condition, steering(condition), hidden=hidden)
        told = steering(condition) if hidden is None else shown(condition, hidden)
        pairs = [answers(condition, hidden) for answers in self.answers]
        return EncodedCondition(rearrange(told, "b width -> b 1 width"), told, pairs)

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
