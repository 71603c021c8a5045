"""The transformer that priors share (Vaswani et al. 2017, arXiv:1706.03762; Llama, arXiv:2302.13971)."""

from collections.abc import Callable, Sequence

import torch
from einops import rearrange, repeat
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn.functional import gelu, pad, silu
from torch.utils.checkpoint import checkpoint

from genstack.layout import Layout
from genstack.transformer.adaln import AdaLN, Modulation, SharedModulation, modulate
from genstack.transformer.attention import Attention
from genstack.transformer.backbone import Backbone
from genstack.transformer.cache import Cache
from genstack.transformer.cross_attention import CrossAttention, CrossAttentionLayer, KeyValue, KeyValuePair
from genstack.transformer.encoded_condition import EncodedCondition
from genstack.transformer.masks import Mask
from genstack.transformer.positions import PositionEmbedding, Rotary, Rotation
from genstack.transformer.rms_norm import RMSNorm


def normalization(backbone: Backbone) -> nn.Module:
    """Norm over the channels of each token."""
    if backbone.norm == "rms":
        return RMSNorm(backbone.width, backbone.norm_epsilon)
    return nn.LayerNorm(backbone.width, eps=backbone.norm_epsilon, bias=backbone.bias)


class SwiGLU(nn.Module):
    """Gated feed-forward network (Shazeer 2020, arXiv:2002.05202)."""

    def __init__(self, backbone: Backbone):
        super().__init__()
        self.fc1 = nn.Linear(backbone.width, 2 * backbone.mlp_width, bias=backbone.bias)
        self.fc2 = nn.Linear(backbone.mlp_width, backbone.width, bias=backbone.bias)

    def forward(self, tokens: Float[Tensor, "b n width"]) -> Float[Tensor, "b n width"]:
        gate, hidden = self.fc1(tokens).chunk(2, dim=-1)
        return self.fc2(silu(gate) * hidden)


class GELU(nn.Module):
    """Feed-forward network of GPT-2."""

    def __init__(self, backbone: Backbone):
        super().__init__()
        self.fc1 = nn.Linear(backbone.width, backbone.mlp_width, bias=backbone.bias)
        self.fc2 = nn.Linear(backbone.mlp_width, backbone.width, bias=backbone.bias)
        self.approximate = {"gelu": "none", "gelu_tanh": "tanh"}[backbone.feedforward]

    def forward(self, tokens: Float[Tensor, "b n width"]) -> Float[Tensor, "b n width"]:
        return self.fc2(gelu(self.fc1(tokens), approximate=self.approximate))


def feedforward(backbone: Backbone) -> nn.Module:
    """Feed-forward network of a layer."""
    return SwiGLU(backbone) if backbone.feedforward == "swiglu" else GELU(backbone)


class Layer(nn.Module):
    """Pre-norm transformer layer: attention, then a feed-forward network, both residual."""

    def __init__(self, backbone: Backbone):
        super().__init__()
        self.attention_norm = normalization(backbone)
        self.attention = Attention(backbone)
        self.feedforward_norm = normalization(backbone)
        self.feedforward = feedforward(backbone)
        self.dropout = nn.Dropout(backbone.dropout_after())

    def forward(
        self, tokens: Float[Tensor, "b n width"], rotation: Rotation | None, mask: Mask, cache: Cache | None
    ) -> Float[Tensor, "b n width"]:
        added = self.attention(self.attention_norm(tokens), rotation, mask, cache)
        tokens = tokens + (self.dropout(added) if self.training else added)
        added = self.feedforward(self.feedforward_norm(tokens))
        return tokens + (self.dropout(added) if self.training else added)


class PostNormLayer(nn.Module):
    """Post-norm transformer layer of BERT (arXiv:1810.04805): sums are normalized after each sub-layer."""

    def __init__(self, backbone: Backbone):
        super().__init__()
        self.attention = Attention(backbone)
        self.attention_norm = normalization(backbone)
        self.feedforward = feedforward(backbone)
        self.feedforward_norm = normalization(backbone)
        self.dropout = nn.Dropout(backbone.dropout_after())

    def forward(
        self, tokens: Float[Tensor, "b n width"], rotation: Rotation | None, mask: Mask, cache: Cache | None
    ) -> Float[Tensor, "b n width"]:
        added = self.attention(tokens, rotation, mask, cache)
        tokens = self.attention_norm(tokens + (self.dropout(added) if self.training else added))
        added = self.feedforward(tokens)
        return self.feedforward_norm(tokens + (self.dropout(added) if self.training else added))


class AdaLNLayer(nn.Module):
    """Transformer layer with adaLN: modulated norms and gated outputs (arXiv:2212.09748)."""

    def __init__(self, backbone: Backbone):
        super().__init__()
        self.norm, self.epsilon = backbone.norm, backbone.adaln_epsilon
        self.attention = Attention(backbone)
        self.feedforward = feedforward(backbone)
        shared = backbone.adaln == "shared"
        self.modulation = (
            SharedModulation(backbone.width, 6) if shared else Modulation(backbone.width, 6, gates=2)
        )
        self.dropout = nn.Dropout(backbone.dropout_after())

    def forward(
        self,
        tokens: Float[Tensor, "b n width"],
        rotation: Rotation | None,
        mask: Mask,
        cache: Cache | None,
        modulation: Float[Tensor, "b m *count width"],
    ) -> Float[Tensor, "b n width"]:
        """Apply the layer; `modulation` is the conditioning vector, or the modulation that layers share."""
        gates, scales, shifts = rearrange(
            self.modulation(modulation), "b m (kind part) w -> kind part b m w", part=2
        )
        normed = modulate(tokens, scales[0], shifts[0], self.norm, self.epsilon)
        added = self.attention(normed, rotation, mask, cache)
        tokens = tokens + self.dropout(added * gates[0])
        added = self.feedforward(modulate(tokens, scales[1], shifts[1], self.norm, self.epsilon))
        return tokens + self.dropout(added * gates[1])


def layer(backbone: Backbone) -> nn.Module:
    """Build the kind of layer that the configuration asks for."""
    plain = PostNormLayer if backbone.post_norm else Layer
    result: nn.Module = plain(backbone) if backbone.adaln == "none" else AdaLNLayer(backbone)
    if not backbone.cross_attention:
        return result
    return CrossAttentionLayer(
        normalization(backbone), CrossAttention(backbone), result, backbone.dropout_after()
    )


def last_norm(backbone: Backbone) -> nn.Module:
    """Build what follows the layers."""
    if backbone.adaln != "none":
        return AdaLN(backbone.width, backbone.norm, backbone.adaln_epsilon)
    if backbone.last == "none":
        return nn.Identity()
    norm = nn.Identity() if backbone.post_norm else normalization(backbone)
    if backbone.last == "norm":
        return norm
    dense = nn.Linear(backbone.width, backbone.width, bias=backbone.bias)
    return nn.Sequential(norm, dense, nn.GELU(), normalization(backbone))


def skips(backbone: Backbone) -> nn.ModuleList | None:
    """Build the layers that join inputs of the last layers with outputs of the first; None without skips."""
    if not backbone.skips:
        return None
    width, count = backbone.width, (backbone.depth - 1) // 2
    return nn.ModuleList(nn.Linear(2 * width, width, bias=backbone.bias) for _ in range(count))


class Transformer(nn.Module):
    """Tokens to tokens. The caller passes mask and positions, so that it serves every kind of prior.

    Args:
        layout: layout of the codes, or of patches of latents.
        backbone: configuration.
        prefix_length: tokens before the codes.
    """

    #: Replaces `forward` in `step` while the network is compiled for sampling.
    compiled_step: Callable[..., Tensor] | None = None

    def __init__(self, layout: Layout, backbone: Backbone, prefix_length: int = 0):
        super().__init__()
        self.layout, self.backbone = layout, backbone
        rotary, width = backbone.positions != "learned", backbone.width
        self.position_embedding = PositionEmbedding(layout, width, absolute=backbone.positions != "rotary")
        self.rotary = Rotary(layout, backbone.head_width, backbone.unplaced == "zero") if rotary else None
        self.layers = nn.ModuleList(layer(backbone) for _ in range(backbone.depth))
        #: Projections of the condition, one for each layer with cross-attention.
        self.key_values = nn.ModuleList(
            KeyValue(backbone) for _ in range(backbone.depth if backbone.cross_attention else 0)
        )
        self.dropout = nn.Dropout(backbone.dropout_after())
        self.norm = last_norm(backbone)
        self.skips = skips(backbone)
        self.shared = Modulation(width, 6, gates=2) if backbone.adaln == "shared" else None
        for name, module in self.named_modules():
            if isinstance(module, nn.Linear):
                std = 0.02 / (2 * backbone.depth) ** 0.5 if name.endswith(("out", "fc2")) else 0.02
                nn.init.normal_(module.weight, std=std)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
        for module in self.modules():
            if isinstance(module, Modulation):
                module.reset_parameters()
        self.first_norm = normalization(backbone) if backbone.post_norm else None
        self.registers = small_table(backbone.registers, width)
        self.steps = small_table(prefix_length + layout.length if backbone.adaln_steps else 0, width)

    def set_dropout(self, passes: float) -> None:
        """Set the dropout after so many passes over the same predictions."""
        for module in self.modules():
            if isinstance(module, nn.Dropout):
                module.p = self.backbone.dropout_after(passes)

    def forward(
        self,
        tokens: Float[Tensor, "b n width"],
        positions: Int[Tensor, "*b n"],
        mask: Mask,
        caches: Sequence[Cache] | None = None,
        conditioning: Float[Tensor, "b width"] | None = None,
        key_values: Sequence[KeyValuePair] = (),
        head: nn.Module | None = None,
    ) -> Tensor:
        """Return normalized features, b x n x width, or with `head` the logits of the last token, b x K.

        Args:
            tokens: embedded codes and conditions.
            positions: index of each token's code in the flat sequence, shared by all images or one row for
                each; `layout.length` for a token without a position, such as a condition.
            mask: attention mask.
            caches: one for each layer, to continue after the tokens of earlier calls.
            conditioning: the condition as one vector, for adaLN.
            key_values: keys and values of the condition for each layer, for cross-attention.
            head: maps features to logits, which are returned in float32.
        """
        tokens = self.position_embedding(tokens, positions)
        if self.first_norm is not None:
            tokens = self.first_norm(tokens)
        if self.training:
            tokens = self.dropout(tokens)
        rotation = None if self.rotary is None else self.rotary(positions)
        last = () if self.backbone.adaln == "none" else (self._conditions(conditioning, tokens, caches),)
        modulation = last if self.shared is None else (self.shared(*last),)
        first = 0 if self.skips is None else len(self.skips)
        kept: list[Tensor] = []
        for index, module in enumerate(self.layers):
            if self.skips is not None and index >= len(self.layers) - first:
                join = self.skips[index - len(self.layers) + first]
                tokens = join(torch.cat([tokens, kept.pop()], dim=-1))
            cache = None if caches is None else caches[index]
            given = (*key_values[index : index + 1], rotation, mask, cache, *modulation)
            if self.backbone.checkpoint and self.training:
                tokens = checkpoint(module, tokens, *given, use_reentrant=False)
            else:
                tokens = module(tokens, *given)
            if index < first:
                kept.append(tokens)
        features = self.norm(tokens, *last)
        return features if head is None else head(features[:, -1]).float()

    def _conditions(
        self,
        conditioning: Float[Tensor, "b width"] | None,
        tokens: Float[Tensor, "b n width"],
        caches: Sequence[Cache] | None,
    ) -> Float[Tensor, "b m width"]:
        """The condition of adaLN: one vector for all tokens, or one for each place in the sequence."""
        assert conditioning is not None, "adaLN reads a condition"
        vectors = rearrange(conditioning, "b width -> b 1 width")
        if self.steps is None:
            return vectors
        first = 0 if caches is None else caches[0].length
        return vectors + self.steps.weight[first : first + tokens.shape[1]]

    def step(
        self,
        tokens: Float[Tensor, "b n width"],
        positions: Int[Tensor, "*b n"],
        mask: Mask,
        caches: Sequence[Cache],
        encoded: EncodedCondition,
        head: nn.Module | None = None,
    ) -> Tensor:
        """Apply `forward` to tokens that follow those in `caches`.

        It does not go through `__call__`: a network compiled for training would be compiled again for every
        length.
        """
        forward = self.compiled_step or self.forward
        return forward(tokens, positions, mask, caches, encoded.conditioning, encoded.key_values, head)

    def encode_condition(
        self, condition: Float[Tensor, "b n width"], padding_mask: Bool[Tensor, "b n"] | None
    ) -> EncodedCondition:
        """Encode a condition as prefix tokens, or with cross-attention as one prefix token, keys and values.

        Registers come first.

        Args:
            condition: its tokens.
            padding_mask: True for padding; None without padding.
        """
        if not self.backbone.cross_attention:
            return self._encoded(condition, mean_pool(condition), padding_mask=padding_mask)
        pooled = mean_pool(condition) if padding_mask is None else masked_mean_pool(condition, padding_mask)
        key_values = [project(condition, padding_mask) for project in self.key_values]
        return self._encoded(rearrange(pooled, "b width -> b 1 width"), pooled, key_values)

    def _encoded(
        self,
        prefix: Float[Tensor, "b n width"],
        pooled: Float[Tensor, "b width"],
        key_values: Sequence[KeyValuePair] = (),
        padding_mask: Bool[Tensor, "b n"] | None = None,
    ) -> EncodedCondition:
        """Put registers before the prefix, which may be left out."""
        if not self.backbone.prefix:
            prefix, padding_mask = prefix[:, :0], None
        if self.registers is not None:
            registers = repeat(self.registers.weight, "n width -> b n width", b=len(prefix))
            prefix = torch.cat([registers, prefix], dim=1)
            if padding_mask is not None:
                padding_mask = pad(padding_mask, (self.backbone.registers, 0), value=False)
        return EncodedCondition(prefix, pooled, key_values, padding_mask)

    def caches(self, length: int) -> list[Cache]:
        """Create empty caches for `length` tokens, one per layer."""
        return [Cache(length) for _ in self.layers]


def small_table(count: int, width: int) -> nn.Embedding | None:
    """A table of learned vectors, small at first; None for none."""
    if not count:
        return None
    table = nn.Embedding(count, width)
    nn.init.normal_(table.weight, std=0.02)
    return table


def mean_pool(condition: Float[Tensor, "b n width"]) -> Float[Tensor, "b width"]:
    """Mean of a condition's tokens: the conditioning vector of adaLN."""
    return condition.mean(dim=1)


def masked_mean_pool(
    condition: Float[Tensor, "b n width"], padding_mask: Bool[Tensor, "b n"]
) -> Float[Tensor, "b width"]:
    """Mean of a condition's tokens without padding; 0 if all are padding."""
    total = condition.masked_fill(rearrange(padding_mask, "b n -> b n 1"), 0).sum(dim=1)
    return total / rearrange((~padding_mask).sum(dim=1).clamp(min=1), "b -> b 1")
