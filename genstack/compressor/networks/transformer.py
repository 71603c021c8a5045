"""Transformers over the patches of an image (ViT, Dosovitskiy et al. 2020, arXiv:2010.11929)."""

from math import ceil, lcm

import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint as recompute

from genstack.compressor.network import tiles
from genstack.errors import UserError

#: The longest wave of the positions, in patches over 2 pi.
SLOWEST = 10_000.0


def check_plan(**sizes: int) -> None:
    """Refuse sizes of a transformer that cannot be; `sizes` has at least `width` and `heads`."""
    for name, size in sizes.items():
        if size < 1:
            raise UserError(f"{name} {size} is too small; use 1 or more")
    step = lcm(sizes["heads"], 4)
    if sizes["width"] % step:
        raise UserError(
            f"width {sizes['width']} is not a multiple of {step} (positions take quarters, attention "
            f"{sizes['heads']} heads); use {ceil(sizes['width'] / step) * step} or change `heads`"
        )


def patch_grid(height: int, width: int, patch: int) -> tuple[int, int]:
    """Rows and columns of the patches of an image.

    Raises:
        UserError: the patches do not tile the image; the message names the nearest size that they do.
    """
    return tiles(height, width, patch, "patch", "another `patch`")


def places(rows: int, columns: int, width: int, device: torch.device) -> Float[Tensor, "n width"]:
    """Position embedding of each patch: sines and cosines of its row and column, in patches.

    Nothing is learned, so that there is a place for every patch of an image of any size.
    """
    waves = SLOWEST ** -(torch.arange(width // 4, device=device) / (width // 4))
    row, column = (torch.arange(side, device=device)[:, None] * waves for side in (rows, columns))
    down, across = (torch.cat([angles.sin(), angles.cos()], dim=1) for angles in (row, column))
    return torch.cat([down.repeat_interleave(columns, dim=0), across.repeat(rows, 1)], dim=1)


class Places(nn.Module):
    """Position embedding of each patch: sines and cosines, or learned for one grid.

    Args:
        width: channels of a token.
        grid: rows and columns of patches with a learned position each; None for sines and cosines.
    """

    def __init__(self, width: int, grid: tuple[int, int] | None = None):
        super().__init__()
        self.width = width
        self.table = None if grid is None else small_table(grid[0] * grid[1], width)

    def forward(self, rows: int, columns: int, device: torch.device) -> Float[Tensor, "n {self.width}"]:
        return places(rows, columns, self.width, device) if self.table is None else self.table.weight


class FromPatches(nn.Module):
    """Images to one token for each patch, which knows its place."""

    def __init__(self, channels: int, patch: int, width: int, grid: tuple[int, int] | None = None):
        super().__init__()
        self.patch, self.width = patch, width
        self.linear = nn.Linear(channels * patch**2, width)
        self.places = Places(width, grid)

    def forward(self, images: Float[Tensor, "b c H W"]) -> Float[Tensor, "b n {self.width}"]:
        height, width = images.shape[-2:]
        rows, columns = patch_grid(height, width, self.patch)
        patches = rearrange(images, "b c (h p) (w q) -> b (h w) (c p q)", h=rows, w=columns)
        return self.linear(patches) + self.places(rows, columns, images.device)


class Head(nn.Module):
    """Two linear layers with a tanh between (ViT-VQGAN, section 3.1)."""

    def __init__(self, width: int, dim: int):
        super().__init__()
        self.first = nn.Linear(width, 2 * width)
        self.last = nn.Linear(2 * width, dim)

    def forward(self, tokens: Float[Tensor, "b n width"]) -> Float[Tensor, "b n dim"]:
        return self.last(self.first(tokens).tanh())


class Transformer(nn.Module):
    """Layers in which all tokens see all tokens, and a normalization after the last.

    Weights begin so that a layer keeps the variance of what it reads: with torch's own, a third of that, what
    tokens tell each other is faint, and a network that has to gather images from all patches learns later.

    Args:
        width: channels of a token.
        depth: number of layers.
        heads: attention heads of each layer.
        checkpoint: forget activations in training and compute them again for gradients.
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
    """Attention, then two linear layers on each token, both added to what they read."""

    def __init__(self, width: int, heads: int):
        super().__init__()
        self.heads = heads
        self.attention_norm = nn.LayerNorm(width)
        self.read = nn.Linear(width, 3 * width)
        self.write = nn.Linear(width, width)
        self.feedforward_norm = nn.LayerNorm(width)
        self.feedforward = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))

    def forward(self, tokens: Float[Tensor, "b n width"]) -> Float[Tensor, "b n width"]:
        tokens = tokens + self.attention(self.attention_norm(tokens))
        return tokens + self.feedforward(self.feedforward_norm(tokens))

    def attention(self, tokens: Float[Tensor, "b n width"]) -> Float[Tensor, "b n width"]:
        """Self-attention over the tokens."""
        query, key, value = rearrange(
            self.read(tokens), "b n (three h d) -> three b h n d", three=3, h=self.heads
        )
        mixed = F.scaled_dot_product_attention(query, key, value)
        return self.write(rearrange(mixed, "b h n d -> b n (h d)"))


def small_table(count: int, width: int) -> nn.Embedding:
    """Learned tokens, in a table, so that they do not decay, and at first of length 1, as in TiTok.

    Longer ones drown what a token reads of the image: then its code says which token it is, for each image.
    """
    table = nn.Embedding(count, width)
    nn.init.normal_(table.weight, std=width**-0.5)
    return table
