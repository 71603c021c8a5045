"""Position after position, and within one from coarse to fine (RQ-Transformer, arXiv:2203.01941)."""

from dataclasses import replace

import torch
from einops import rearrange, repeat
from jaxtyping import Float, Int
from torch import Tensor, nn

from genstack.conditions.condition import Condition
from genstack.errors import UserError
from genstack.layout import CodeLayout
from genstack.prior.exact import Exact
from genstack.prior.guidance import Guidance
from genstack.prior.options import SamplingOptions
from genstack.prior.prior import Known
from genstack.prior.sampling import draw, uniforms
from genstack.transformer.backbone import Backbone
from genstack.transformer.encoded_condition import EncodedCondition
from genstack.transformer.masks import Causal
from genstack.transformer.positions import PositionEmbedding
from genstack.transformer.transformer import Transformer


class ResidualTransformer(Exact):
    """Two transformers for codes of several symbols a position, such as residual, grouped or factorized ones.

    The first reads the condition and the positions so far, each as the sum of its symbols, and writes a
    summary for the next position. The second reads that summary and the symbols of the position so far, and
    predicts the next symbol. The long sequence is then as short as the grid, not as the number of symbols.

    Args:
        layout: where the codes lie; set from the compressor.
        condition: what steers the prior; set from the data.
        backbone: the plan of the transformer over positions; the one within a position differs only in depth.
        layers: layers of the transformer within a position.
    """

    def __init__(
        self, layout: CodeLayout, condition: Condition, backbone: Backbone = Backbone(), layers: int = 4
    ):
        super().__init__()
        if layout.depth == 1:
            raise UserError(
                "ResidualTransformer needs a compressor with several symbols a position; this one has one; "
                "train one with --config configs/compressor/residual.yaml, or use the prior Autoregressive"
            )
        if layers < 1:
            raise UserError(f"layers {layers} is out of range; it must be at least 1")
        self.layout, self.condition, self.backbone, self.layers = layout, condition, backbone, layers
        width = backbone.width
        positions, within = replace(layout, depth=1), replace(layout, grids=((1, 1),))
        self.prefix = condition.embedding(width)
        # every depth has rows of its own: a symbol means something else there, if tables are not shared
        self.codes = nn.Embedding(layout.depth * layout.codebook_size, width)
        self.target = PositionEmbedding(positions, width)
        self.transformer = Transformer(positions, backbone)
        self.inner = Transformer(within, replace(backbone, depth=layers, cross_attention=False))
        self.head = nn.Linear(width, layout.codebook_size, bias=False)
        nn.init.normal_(self.codes.weight, std=0.02)
        nn.init.normal_(self.head.weight, std=0.02 / width**0.5)  # the loss starts at ln K

        self.prefix_length = backbone.prefix_length(condition.length)
        nowhere, order = torch.full((self.prefix_length,), positions.length), torch.arange(positions.length)
        self.register_buffer("positions", torch.cat([nowhere, order[:-1]]), persistent=False)
        self.register_buffer("targets", torch.cat([nowhere[:-1], order]), persistent=False)
        self.register_buffer("depths", torch.arange(layout.depth), persistent=False)

    def encode_condition(self, condition: Tensor) -> EncodedCondition:
        """Values of the condition, read once for all codes."""
        padding_mask = self.condition.padding_mask(condition)
        return self.transformer.encode_condition(self.prefix(condition), padding_mask)

    def logits(self, codes: Int[Tensor, "b n"], condition: Tensor) -> Float[Tensor, "b n K"]:
        """Logits of every code, each from the codes before it, in float32."""
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
        return rearrange(self.head(features).float(), "(b p) depth K -> b (p depth) K", b=len(codes))

    def draw(
        self, guidance: Guidance, options: SamplingOptions, seeds: Int[Tensor, " b"], known: Known
    ) -> Int[Tensor, "b n"]:
        """One symbol after the other; a known one is seen by those after it in the flat sequence alone."""
        device, depth, length = self.head.weight.device, self.layout.depth, self.layout.length
        numbers = rearrange(uniforms(seeds, length), "b n -> n b").to(device).contiguous()
        codes = torch.empty(length, len(seeds), dtype=torch.int64, device=device)
        encoded = self.encode_condition(guidance.values)
        inside = replace(encoded, key_values=())  # nothing is read across within a position
        tokens, mask = encoded.prefix, encoded.mask_padding(Causal())
        caches = self.transformer.caches(self.prefix_length + length // depth - 1)
        filled = 0
        for position in range(length // depth):
            now = slice(filled, filled + tokens.shape[1])
            filled = now.stop
            tokens = self.target(tokens, self.get_buffer("targets")[now])
            places = self.get_buffer("positions")[now]
            features = self.transformer.step(tokens, places, mask, caches, encoded)
            inner, within = features[:, -1:], self.inner.caches(depth)
            total = torch.zeros_like(inner)
            for number in range(depth):
                index = position * depth + number
                depths = self.get_buffer("depths")[number : number + 1]
                logits = self.inner.step(inner, depths, Causal(), within, inside, self.head)
                logits = guidance.steer(logits, index / max(1, length - 1))
                drawn = draw(logits, options, numbers[index])
                codes[index] = torch.where(known.mask[:, index], known.codes[:, index], drawn)
                rows = self.codes(guidance.rows(codes[index]) + number * self.layout.codebook_size)
                inner = total = total + rearrange(rows, "b width -> b 1 width")
            tokens = total
        return rearrange(codes, "n b -> b n").contiguous()

    def embed(self, codes: Int[Tensor, "b p depth"]) -> Float[Tensor, "b p depth width"]:
        """The vector of each symbol at its depth."""
        return self.codes(codes + self.get_buffer("depths") * self.layout.codebook_size)
