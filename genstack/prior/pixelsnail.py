"""PixelSNAIL: causal convolutions and attention (Chen et al. 2017, arXiv:1712.09763)."""

from typing import cast

import torch
from einops import rearrange, repeat
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn.functional import dropout, elu, pad

from genstack.conditions.condition import Condition
from genstack.dot_product_attention import dot_product_attention
from genstack.errors import UserError
from genstack.layout import CodeLayout
from genstack.prior.pixelcnn import gate
from genstack.prior.sequential import DecodingState, Sequential
from genstack.prior.symbols import Categorical
from genstack.transformer.head import check_table
from genstack.transformer.transformer import mean_pool


class PixelSNAIL(Sequential):
    """Blocks of causal convolutions for nearby codes, each followed by attention to all earlier codes.

    The prior of VQ-VAE-2's grids. Sampling has no cache: it reads all rows so far again for each code. On
    large grids `Autoregressive` is far faster.

    Args:
        layout: layout of the codes; set from the compressor.
        condition: condition of the prior; set from the data. It modulates every gate as one vector.
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
                f"PixelSNAIL needs a compressor with one grid of several rows and one symbol per position, "
                f"got grids {layout.grids} and {layout.depth}; use VectorQuantizer, or the "
                f"prior Autoregressive"
            )
        if min(width, blocks, layers, heads) < 1 or width % heads or not 0 <= dropout < 1:
            raise UserError(
                f"width must be a multiple of heads, blocks and layers at least 1, dropout at least 0 and "
                f"below 1; got width {width}, heads {heads}, blocks {blocks}, layers {layers}, dropout "
                f"{dropout}"
            )
        self.layout, self.condition = layout, condition
        self.width, self.blocks, self.layers = width, blocks, layers
        self.heads, self.dropout = heads, dropout
        self.prefix = condition.embedding(width)
        # Codes have unit variance; the condition's embedding starts small, and gates would learn it late.
        self.condition_norm = nn.RMSNorm(width, eps=1e-6)
        check_table(layout.codebook_size)
        self.codes = nn.Embedding(layout.codebook_size, width)
        self.above = nn.Conv2d(width, width, (2, 3))
        self.left = nn.Conv2d(width, width, (1, 2))
        self.parts = nn.ModuleList(Block(width, layers, heads, dropout) for _ in range(blocks))
        self.distribution = Categorical()
        self.head = nn.Linear(width, layout.codebook_size)
        nn.init.normal_(self.codes.weight, std=1.0)
        nn.init.normal_(self.head.weight, std=0.02 / width**0.5)  # the loss starts at ln K
        nn.init.zeros_(self.head.bias)
        self.register_buffer("coordinates", coordinates(*layout.grids[0]), persistent=False)

    def logits(self, codes: Int[Tensor, "b n"], condition: Tensor) -> Float[Tensor, "b n K"]:
        """Logits of every code given the codes before it, in float32; any number of first rows will do."""
        embedded = rearrange(self.codes(codes), "b (h w) c -> b c h w", w=self.layout.grids[0][1])
        return self.forward(embedded, self.condition_norm(mean_pool(self.prefix(condition))))

    def forward(
        self, embedded: Float[Tensor, "b c h w"], conditioning: Float[Tensor, "b c"]
    ) -> Float[Tensor, "b n K"]:
        """Logits from embedded codes."""
        # Rows above and codes to the left, shifted by one: from here on a position may see itself.
        above = self.above(pad(embedded, (1, 1, 2, 0))[:, :, :-1])
        left = self.left(pad(embedded, (2, 0, 0, 0))[..., :-1])
        features = above + left
        coordinates = self.get_buffer("coordinates")[:, : embedded.shape[2]]
        coordinates = repeat(coordinates, "c h w -> b c h w", b=len(embedded)).type_as(features)
        for part in self.parts:
            features = cast(Block, part)(features, embedded, coordinates, conditioning)
        return self.head(rearrange(elu(features), "b c h w -> b (h w) c")).float()

    def decoding_state(self, condition: Tensor) -> "PixelSNAILState":
        return PixelSNAILState(self, condition)


class PixelSNAILState(DecodingState):
    """Decode by computing all rows so far again for each code."""

    def __init__(self, prior: PixelSNAIL, condition: Tensor):
        self.prior, self.condition = prior, condition
        self.distribution = prior.distribution

    def next_logits(self, codes: Int[Tensor, "n b"], index: int) -> Float[Tensor, "b K"]:
        width = self.prior.layout.grids[0][1]
        rows = rearrange(codes[: (index // width + 1) * width], "n b -> b n")
        return self.prior.logits(rows, self.condition)[:, index]


class Block(nn.Module):
    """Gated residual layers, then attention over their features, then both combined (figure 2)."""

    def __init__(self, width: int, layers: int, heads: int, dropout: float):
        super().__init__()
        self.heads = heads
        self.layers = nn.ModuleList(Layer(width, dropout) for _ in range(layers))
        self.q = nn.Conv2d(width + 2, width, 1)
        self.kv = nn.Conv2d(2 * width + 2, 2 * width, 1)
        self.attention_out = nn.Conv2d(width, width, 1)
        self.out = nn.Conv2d(2 * width, width, 1)

    def forward(
        self,
        features: Float[Tensor, "b c h w"],
        embedded: Float[Tensor, "b c h w"],
        coordinates: Float[Tensor, "b two=2 h w"],
        conditioning: Float[Tensor, "b c"],
    ) -> Float[Tensor, "b c h w"]:
        local = features
        for layer in self.layers:
            local = layer(local, conditioning)
        queries = self.q(torch.cat([local, coordinates], dim=1))
        keys, values = self.kv(torch.cat([local, coordinates, embedded], dim=1)).chunk(2, dim=1)
        queries, keys, values = (
            rearrange(each, "b (heads d) h w -> b heads (h w) d", heads=self.heads)
            for each in (queries, keys, values)
        )
        # Keys hold the code of their own position, so they are shifted by one, behind a zero.
        keys, values = (pad(each, (0, 0, 1, -1)) for each in (keys, values))
        attended = dot_product_attention(queries, keys, values, causal=True)
        attended = rearrange(attended, "b heads (h w) d -> b (heads d) h w", h=features.shape[2])
        return features + self.out(elu(torch.cat([local, self.attention_out(attended)], dim=1)))


class Layer(nn.Module):
    """A gated residual layer that sees the position itself and positions above and to the left."""

    def __init__(self, width: int, dropout: float):
        super().__init__()
        self.dropout = dropout
        self.conv1 = nn.Conv2d(width, width, 2)
        self.conv2 = nn.Conv2d(width, 2 * width, 2)
        self.condition = nn.Linear(width, 2 * width)

    def forward(
        self, features: Float[Tensor, "b c h w"], conditioning: Float[Tensor, "b c"]
    ) -> Float[Tensor, "b c h w"]:
        hidden = elu(self.conv1(pad(elu(features), (1, 0, 1, 0))))
        hidden = dropout(hidden, self.dropout, self.training)
        return features + gate(self.conv2(pad(hidden, (1, 0, 1, 0))), self.condition(conditioning))


def coordinates(height: int, width: int) -> Float[Tensor, "two=2 {height} {width}"]:
    """Row and column of every position, from -1 to 1, for attention."""
    rows, columns = torch.linspace(-1, 1, height), torch.linspace(-1, 1, width)
    return torch.stack(torch.meshgrid(rows, columns, indexing="ij"))
