"""Transformers over image patches (ViT, Dosovitskiy et al. 2020, arXiv:2010.11929)."""

from dataclasses import dataclass
from math import ceil, lcm

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint as recompute

from genstack.compressor.network import Network, tiles
from genstack.dot_product_attention import dot_product_attention
from genstack.errors import UserError

#: Longest wavelength of the position embedding, in patches over 2 pi.
MAX_WAVELENGTH = 10_000.0


def check_config(**sizes: int) -> None:
    """Check the sizes of a transformer, with at least `width` and `heads`."""
    for name, size in sizes.items():
        if size < 1:
            raise UserError(f"{name} {size} is out of range; it must be at least 1")
    step = lcm(sizes["heads"], 4)
    if sizes["width"] % step:
        raise UserError(
            f"width {sizes['width']} must be a multiple of {step}, for {sizes['heads']} heads and positions "
            f"in quarters; use {ceil(sizes['width'] / step) * step} or change `heads`"
        )


@dataclass(frozen=True)
class PatchNetwork(Network):
    """Settings of transformers over patches.

    Args:
        dim: channels of the latents.
        patch: side of a patch in pixels.
        width: channels of a token; a multiple of 4 and of `heads`.
        depth: layers of the encoder and of the decoder.
        heads: attention heads of each layer.
        checkpoint: recompute activations in the backward pass (activation checkpointing), to save memory.
    """

    dim: int = 32
    patch: int = 8
    width: int = 512
    depth: int = 8
    heads: int = 8
    checkpoint: bool = False

    def __post_init__(self) -> None:
        check_config(dim=self.dim, patch=self.patch, width=self.width, depth=self.depth, heads=self.heads)


def patch_grid(height: int, width: int, patch: int) -> tuple[int, int]:
    """Return rows and columns of the patches of an image; other sizes are errors."""
    return tiles(height, width, patch, "patch", "another `patch`")


def sine_positions(rows: int, columns: int, width: int, device: torch.device) -> Float[Tensor, "n width"]:
    """Compute the position embedding of each patch: sines and cosines of row and column.

    It has no weights, so it applies to images of any size.
    """
    waves = MAX_WAVELENGTH ** -(torch.arange(width // 4, device=device) / (width // 4))
    row, column = (torch.arange(side, device=device)[:, None] * waves for side in (rows, columns))
    down, across = (torch.cat([angles.sin(), angles.cos()], dim=1) for angles in (row, column))
    return torch.cat([down.repeat_interleave(columns, dim=0), across.repeat(rows, 1)], dim=1)


class PositionEmbedding(nn.Module):
    """Position embedding of patches: sines and cosines, or learned for one grid.

    Args:
        width: channels of a token.
        grid: rows and columns of patches with learned positions; None for sines and cosines.
    """

    def __init__(self, width: int, grid: tuple[int, int] | None = None):
        super().__init__()
        self.width = width
        self.table = None if grid is None else learned_tokens(grid[0] * grid[1], width)

    def forward(self, rows: int, columns: int, device: torch.device) -> Float[Tensor, "n {self.width}"]:
        return sine_positions(rows, columns, self.width, device) if self.table is None else self.table.weight


class PatchEmbedding(nn.Module):
    """Embedding of patches as tokens, with positions."""

    def __init__(self, channels: int, patch: int, width: int, grid: tuple[int, int] | None = None):
        super().__init__()
        self.patch, self.width = patch, width
        self.linear = nn.Linear(channels * patch**2, width)
        self.positions = PositionEmbedding(width, grid)

    def forward(self, images: Float[Tensor, "b c H W"]) -> Float[Tensor, "b n {self.width}"]:
        height, width = images.shape[-2:]
        rows, columns = patch_grid(height, width, self.patch)
        patches = rearrange(images, "b c (h p) (w q) -> b (h w) (c p q)", h=rows, w=columns)
        return self.linear(patches) + self.positions(rows, columns, images.device)


class Head(nn.Module):
    """Two linear layers with a tanh between (ViT-VQGAN, section 3.1)."""

    def __init__(self, width: int, dim: int):
        super().__init__()
        self.first = nn.Linear(width, 2 * width)
        self.last = nn.Linear(2 * width, dim)

    def forward(self, tokens: Float[Tensor, "b n width"]) -> Float[Tensor, "b n dim"]:
        return self.last(self.first(tokens).tanh())


class Transformer(nn.Module):
    """Transformer layers without masks, and a final normalization.

    Initial weights keep the variance. Torch's default leaves a third of the variance, which weakens attention
    between tokens and delays learning of networks that gather images from all patches.

    Args:
        width: channels of a token.
        depth: number of layers.
        heads: attention heads of each layer.
        checkpoint: recompute activations in the backward pass (activation checkpointing).
    """

    def __init__(self, width: int, depth: int, heads: int, checkpoint: bool):
        super().__init__()
        self.checkpoint = checkpoint
        self.layers = nn.ModuleList(Layer(width, heads) for _ in range(depth))
        self.norm = nn.LayerNorm(width)
        for part in self.layers.modules():
            if isinstance(part, nn.Linear):
                nn.init.normal_(part.weight, std=part.in_features**-0.5)
                nn.init.zeros_(part.bias)

    def forward(self, tokens: Float[Tensor, "b n width"]) -> Float[Tensor, "b n width"]:
        for layer in self.layers:
            if self.checkpoint and self.training:
                tokens = recompute(layer, tokens, use_reentrant=False)
            else:
                tokens = layer(tokens)
        return self.norm(tokens)


class Layer(nn.Module):
    """Self-attention and an MLP, both with residual connections."""

    def __init__(self, width: int, heads: int):
        super().__init__()
        self.heads = heads
        self.attention_norm = nn.LayerNorm(width)
        self.qkv = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)
        self.feedforward_norm = nn.LayerNorm(width)
        self.feedforward = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))

    def forward(self, tokens: Float[Tensor, "b n width"]) -> Float[Tensor, "b n width"]:
        tokens = tokens + self.attention(self.attention_norm(tokens))
        return tokens + self.feedforward(self.feedforward_norm(tokens))

    def attention(self, tokens: Float[Tensor, "b n width"]) -> Float[Tensor, "b n width"]:
        """Compute self-attention over the tokens."""
        query, key, value = rearrange(
            self.qkv(tokens), "b n (three h d) -> three b h n d", three=3, h=self.heads
        )
        mixed = dot_product_attention(query, key, value)
        return self.out(rearrange(mixed, "b h n d -> b n (h d)"))


def learned_tokens(count: int, width: int) -> nn.Embedding:
    """Build learned tokens of initial length 1, as in TiTok; weight decay does not apply to embeddings.

    Longer tokens would dominate the image: codes would then depend on the token rather than on the image.
    """
    table = nn.Embedding(count, width)
    nn.init.normal_(table.weight, std=width**-0.5)
    return table
