"""Causal convolutions and attention in turn (PixelSNAIL, Chen et al. 2017, arXiv:1712.09763)."""

from typing import cast

import torch
from einops import rearrange, repeat
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn.functional import dropout, elu, pad, scaled_dot_product_attention

from genstack.conditions.condition import Condition
from genstack.errors import UserError
from genstack.layout import CodeLayout
from genstack.prior.exact import Exact
from genstack.prior.guidance import Guidance
from genstack.prior.options import SamplingOptions
from genstack.prior.pixelcnn import gated
from genstack.prior.prior import Known
from genstack.prior.sampling import draw, uniforms
from genstack.transformer.transformer import mean_pool


class PixelSNAIL(Exact):
    """Blocks of causal convolutions for what is near, each followed by attention to all codes before.

    The prior of VQ-VAE-2's grids. Drawing has no cache: it computes the rows so far again for each code, half
    of the grid on average, so that many codes take long; `Autoregressive` is far faster there.

    Args:
        layout: where the codes lie; set from the compressor.
        condition: what steers the prior; set from the data. It enters every gate as one vector.
        width: channels, a multiple of `heads`.
        blocks: number of blocks, each with one attention.
        layers: gated residual layers of each block.
        heads: attention heads of each block.
        dropout: share of channels dropped within each layer, in training.
    """

    def __init__(
        self,
        layout: CodeLayout,
        condition: Condition,
        width: int = 192,
        blocks: int = 4,
        layers: int = 4,
        heads: int = 8,
        dropout: float = 0.1,
    ):
        super().__init__()
        if len(layout.grids) > 1 or layout.depth > 1 or layout.grids[0][0] == 1:
            raise UserError(
                f"PixelSNAIL needs a compressor with one grid of several rows and one symbol a position, not "
                f"{layout.grids} with {layout.depth}; train one with --config "
                f"configs/compressor/vqgan.yaml, or use the prior Autoregressive"
            )
        if min(width, blocks, layers, heads) < 1 or width % heads or not 0 <= dropout < 1:
            raise UserError(
                f"width {width} must be a multiple of heads {heads}, blocks {blocks} and layers {layers} at "
                f"least 1, dropout {dropout} at least 0 and below 1; change what is not so"
            )
        self.layout, self.condition = layout, condition
        self.width, self.blocks, self.layers = width, blocks, layers
        self.heads, self.dropout = heads, dropout
        self.prefix = condition.embedding(width)
        # Codes are vectors of unit size; a condition's are small at first, and gates would learn it late.
        self.steered = nn.RMSNorm(width, eps=1e-6)
        self.codes = nn.Embedding(layout.codebook_size, width)
        self.above = nn.Conv2d(width, width, (2, 3))
        self.left = nn.Conv2d(width, width, (1, 2))
        self.parts = nn.ModuleList(Block(width, layers, heads, dropout) for _ in range(blocks))
        self.head = nn.Linear(width, layout.codebook_size)
        nn.init.normal_(self.codes.weight, std=1.0)
        nn.init.normal_(self.head.weight, std=0.02 / width**0.5)  # the loss starts at ln K
        nn.init.zeros_(self.head.bias)
        self.register_buffer("background", background(*layout.grids[0]), persistent=False)

    def logits(self, codes: Int[Tensor, "b n"], condition: Tensor) -> Float[Tensor, "b n K"]:
        """Logits of the codes of as many rows as are given, each from those before it, in float32."""
        read = rearrange(self.codes(codes), "b (h w) c -> b c h w", w=self.layout.grids[0][1])
        return self.written(read, self.steered(mean_pool(self.prefix(condition))))

    def written(
        self, read: Float[Tensor, "b c h w"], steered: Float[Tensor, "b c"]
    ) -> Float[Tensor, "b n K"]:
        """Logits from the vectors of codes."""
        # Rows above and codes to the left, all moved by one: from here on a place may see itself.
        above = self.above(pad(read, (1, 1, 2, 0))[:, :, :-1])
        left = self.left(pad(read, (2, 0, 0, 0))[..., :-1])
        features = above + left
        places = repeat(
            self.get_buffer("background")[:, : read.shape[2]], "c h w -> b c h w", b=len(read)
        ).type_as(features)
        for part in self.parts:
            features = cast(Block, part)(features, read, places, steered)
        return self.head(rearrange(elu(features), "b c h w -> b (h w) c")).float()

    def draw(
        self, guidance: Guidance, options: SamplingOptions, seeds: Int[Tensor, " b"], known: Known
    ) -> Int[Tensor, "b n"]:
        """One code after the other; a known code is seen by those after it in the flat sequence alone."""
        (_, width), length = self.layout.grids[0], self.layout.length
        numbers = rearrange(uniforms(seeds, length), "b n -> n b").to(known.codes.device).contiguous()
        codes = torch.zeros_like(known.codes)
        for index in range(length):
            rows = codes[:, : (index // width + 1) * width]
            logits = self.logits(guidance.rows(rows), guidance.values)[:, index]
            logits = guidance.steer(logits, index / max(1, length - 1))
            drawn = draw(logits, options, numbers[index])
            codes[:, index] = torch.where(known.mask[:, index], known.codes[:, index], drawn)
        return codes


class Block(nn.Module):
    """Gated residual layers, then attention over what they wrote, then both together (figure 2)."""

    def __init__(self, width: int, layers: int, heads: int, dropout: float):
        super().__init__()
        self.heads = heads
        self.near = nn.ModuleList(Layer(width, dropout) for _ in range(layers))
        self.ask = nn.Conv2d(width + 2, width, 1)
        self.answer = nn.Conv2d(2 * width + 2, 2 * width, 1)
        self.far = nn.Conv2d(width, width, 1)
        self.join = nn.Conv2d(2 * width, width, 1)

    def forward(
        self,
        features: Float[Tensor, "b c h w"],
        read: Float[Tensor, "b c h w"],
        places: Float[Tensor, "b two=2 h w"],
        steered: Float[Tensor, "b c"],
    ) -> Float[Tensor, "b c h w"]:
        near = features
        for layer in self.near:
            near = layer(near, steered)
        queries = self.ask(torch.cat([near, places], dim=1))
        keys, values = self.answer(torch.cat([near, places, read], dim=1)).chunk(2, dim=1)
        queries, keys, values = (
            rearrange(each, "b (heads d) h w -> b heads (h w) d", heads=self.heads)
            for each in (queries, keys, values)
        )
        # Keys hold the code of their own place, so they move on by one; a zero stands before the first.
        keys, values = (pad(each, (0, 0, 1, -1)) for each in (keys, values))
        found = scaled_dot_product_attention(queries, keys, values, is_causal=True)
        far = rearrange(found, "b heads (h w) d -> b (heads d) h w", h=features.shape[2])
        return features + self.join(elu(torch.cat([near, self.far(far)], dim=1)))


class Layer(nn.Module):
    """A gated residual layer, whose convolutions see the place itself, those above and those to the left."""

    def __init__(self, width: int, dropout: float):
        super().__init__()
        self.dropout = dropout
        self.first = nn.Conv2d(width, width, 2)
        self.second = nn.Conv2d(width, 2 * width, 2)
        self.steer = nn.Linear(width, 2 * width)

    def forward(
        self, features: Float[Tensor, "b c h w"], steered: Float[Tensor, "b c"]
    ) -> Float[Tensor, "b c h w"]:
        hidden = elu(self.first(pad(elu(features), (1, 0, 1, 0))))
        hidden = dropout(hidden, self.dropout, self.training)
        return features + gated(self.second(pad(hidden, (1, 0, 1, 0))), self.steer(steered))


def background(height: int, width: int) -> Float[Tensor, "two=2 {height} {width}"]:
    """Row and column of every place, from -1 to 1, so that attention knows them."""
    rows, columns = torch.linspace(-1, 1, height), torch.linspace(-1, 1, width)
    return torch.stack(torch.meshgrid(rows, columns, indexing="ij"))
