"""RQ-Transformer: positions in raster order, symbols of a position in turn (Lee et al., arXiv:2203.01941)."""

from dataclasses import replace

import torch
from einops import rearrange, repeat
from jaxtyping import Float, Int
from torch import Tensor, nn

from genstack.conditions.condition import Condition
from genstack.errors import UserError
from genstack.layout import CodeLayout
from genstack.prior.sequential import CachedTransformer, DecodingState, Sequential
from genstack.prior.symbols import Softmax, Symbols
from genstack.transformer.backbone import Backbone
from genstack.transformer.cache import Cache
from genstack.transformer.encoded_condition import EncodedCondition
from genstack.transformer.masks import Causal
from genstack.transformer.positions import PositionEmbedding
from genstack.transformer.transformer import Transformer


class ResidualTransformer(Sequential):
    """Two transformers for codes with several symbols per position, such as residual or grouped ones.

    The outer one reads the condition and the positions so far, each as the sum of its symbols, and summarizes
    them for the next position. The inner one reads that summary and the symbols of the position so far, and
    predicts the next symbol. The long sequence is then as short as the grid.

    Args:
        layout: layout of the codes; set from the compressor.
        condition: condition of the prior; set from the data.
        backbone: configuration of the transformer over positions; the inner one differs only in depth.
        layers: layers of the inner transformer.
        symbols: how codes are read and predicted: Softmax; Factorized for large codebooks;
            Bits or MaskedBits for codebooks of 2^n values.
    """

    def __init__(
        self,
        layout: CodeLayout,
        condition: Condition,
        backbone: Backbone = Backbone(),
        layers: int = 4,
        symbols: Symbols = Softmax(),
    ):
        super().__init__()
        if layout.depth == 1:
            raise UserError(
                "ResidualTransformer needs a compressor with several symbols per position, this one has one; "
                "use the quantizer Residual, or the prior Autoregressive"
            )
        if layers < 1:
            raise UserError(f"layers must be at least 1, got {layers}")
        self.layout, self.condition, self.backbone, self.layers = layout, condition, backbone, layers
        self.symbols, self.likelihood = symbols, symbols.likelihood(self.likelihood)
        width = backbone.width
        outer, inner = replace(layout, depth=1), replace(layout, grids=((1, 1),))
        self.prefix = condition.embedding(width)
        # Each depth has its own rows, since a symbol means something else there unless codebooks are shared.
        self.codes = symbols.embedding(layout.codebook_size, backbone, tables=layout.depth)
        self.target = PositionEmbedding(outer, width)
        self.prefix_length = backbone.causal_prefix_length(condition.length)
        self.transformer = Transformer(outer, backbone, self.prefix_length)
        inside = replace(backbone, depth=layers, cross_attention=False, registers=0, prefix=True)
        self.inner = Transformer(inner, inside)
        self.heads = nn.ModuleList(
            symbols.head(self.codes, depth, layout.depth, backbone.head_bias) for depth in range(layout.depth)
        )
        self.distribution = symbols.distribution(layout.codebook_size, backbone)

        no_position, order = torch.full((self.prefix_length,), outer.length), torch.arange(outer.length)
        self.register_buffer("positions", torch.cat([no_position, order[:-1]]), persistent=False)
        self.register_buffer("targets", torch.cat([no_position[:-1], order]), persistent=False)
        self.register_buffer("depths", torch.arange(layout.depth), persistent=False)

    def encode_condition(self, condition: Tensor) -> EncodedCondition:
        """Encode values of the condition, once for all codes."""
        padding_mask = self.condition.padding_mask(condition)
        return self.transformer.encode_condition(self.prefix(condition), padding_mask)

    def logits(self, codes: Int[Tensor, "b n"], condition: Tensor) -> Float[Tensor, "b n K"]:
        """Logits of every code given the codes before it, in float32."""
        encoded = self.encode_condition(condition)
        symbols = self.embed(rearrange(codes, "b (p depth) -> b p depth", depth=self.layout.depth))
        tokens = torch.cat([encoded.prefix, symbols[:, :-1].sum(dim=2)], dim=1)
        tokens = self.target(tokens, self.get_buffer("targets"))
        mask = encoded.mask_padding(Causal())
        summaries = self.transformer(
            tokens,
            self.get_buffer("positions"),
            mask,
            conditioning=encoded.conditioning,
            key_values=encoded.key_values,
        )
        summaries = summaries[:, self.prefix_length - 1 :]
        # Equation 8: the first token is the summary, token d the sum of the symbols before depth d.
        sums = symbols.cumsum(dim=2)[:, :, :-1]
        inner = torch.cat([rearrange(summaries, "b p width -> b p 1 width"), sums], dim=2)
        features = self.inner(
            rearrange(inner, "b p depth width -> (b p) depth width"),
            self.get_buffer("depths"),
            Causal(),
            conditioning=repeat(encoded.conditioning, "b width -> (b p) width", p=inner.shape[1]),
        )
        logits = [head(features[:, depth]).float() for depth, head in enumerate(self.heads)]
        return rearrange(logits, "depth (b p) K -> b (p depth) K", b=len(codes))

    def decoding_state(self, condition: Tensor) -> "ResidualState":
        return ResidualState(self, condition)

    def embed(self, codes: Int[Tensor, "b p depth"]) -> Float[Tensor, "b p depth width"]:
        """Embed each symbol at its depth."""
        return self.codes(codes + self.get_buffer("depths") * self.layout.codebook_size)


class ResidualState(DecodingState):
    """Decode a batch of sequences with key-value caches of both transformers."""

    def __init__(self, prior: ResidualTransformer, condition: Tensor):
        self.prior, self.encoded = prior, prior.encode_condition(condition)
        self.distribution = prior.distribution
        self.inner_encoded = replace(self.encoded, key_values=())  # no cross-attention within a position
        positions, targets = (prior.get_buffer(name) for name in ("positions", "targets"))
        self.transformer = CachedTransformer(
            prior.transformer, self.encoded, prior.target, positions, targets
        )
        self.total: Tensor  # sum of the embedded symbols of this position so far
        self.inner_caches: list[Cache]

    def next_logits(self, codes: Int[Tensor, "n b"], index: int) -> Float[Tensor, "b K"]:
        prior, depth = self.prior, index % self.prior.layout.depth
        if index:
            offset = (index - 1) % prior.layout.depth * prior.layout.codebook_size
            symbols = prior.codes(codes[index - 1] + offset)
            self.total = self.total + rearrange(symbols, "b width -> b 1 width")
        if depth == 0:
            inputs = self.transformer(self.total if index else self.encoded.prefix)[:, -1:]
            self.total, self.inner_caches = torch.zeros_like(inputs), prior.inner.caches(prior.layout.depth)
        else:
            inputs = self.total
        depths = prior.get_buffer("depths")[depth : depth + 1]
        head = prior.heads[depth]
        return prior.inner.step(inputs, depths, Causal(), self.inner_caches, self.inner_encoded, head)
