"""Images as a short row of codes without a place (TiTok, Yu et al. 2024, arXiv:2406.07550, section 3.2)."""

from dataclasses import dataclass

import torch
from einops import rearrange, repeat
from jaxtyping import Float
from torch import Tensor, nn

from genstack.compressor.network import Decoder, Encoder, Network, check_fit
from genstack.compressor.networks.transformer import (
    FromPatches,
    Head,
    ToPatches,
    Transformer,
    check_plan,
    patch_grid,
    places,
)


@dataclass(frozen=True)
class TiTok(Network):
    """Latents that each may stand for anything in the image, as many as wanted; the defaults are TiTok-S's.

    The encoder reads patches beside learned tokens and passes on what became of these; the decoder reads them
    beside a blank for each patch, and fills the blanks. An image has `tokens` latents whatever its size.

    Args:
        tokens: number of latents, in one row.
        dim: channels of the latents that the encoder writes and the decoder reads.
        patch: side of the square of pixels that is read and written as one.
        width: channels of a token, a multiple of 4 and of `heads`.
        depth: layers of the encoder, and of the decoder.
        heads: attention heads of each layer.
        checkpoint: forget activations in training, compute them again for gradients: less memory, more time.
    """

    tokens: int = 128
    dim: int = 12
    patch: int = 16
    width: int = 512
    depth: int = 8
    heads: int = 8
    checkpoint: bool = False

    def __post_init__(self) -> None:
        check_plan(
            tokens=self.tokens,
            dim=self.dim,
            patch=self.patch,
            width=self.width,
            depth=self.depth,
            heads=self.heads,
        )

    def encoder(self, channels: int) -> "TiTokEncoder":
        return TiTokEncoder(self, channels)

    def decoder(self, channels: int) -> "TiTokDecoder":
        return TiTokDecoder(self, channels)

    def grid(self, height: int, width: int) -> tuple[int, int]:
        patch_grid(height, width, self.patch)
        return 1, self.tokens


class TiTokEncoder(Encoder):
    """Patches and learned tokens to a row of latents."""

    def __init__(self, plan: TiTok, channels: int):
        super().__init__()
        self.plan, self.channels, self.dim = plan, channels, plan.dim
        self.patches = FromPatches(channels, plan.patch, plan.width)
        self.learned = small_table(plan.tokens, plan.width)
        self.transformer = Transformer(plan.width, plan.depth, plan.heads, plan.checkpoint)
        self.head = Head(plan.width, plan.dim)

    def forward(self, images: Float[Tensor, "b c H W"]) -> Float[Tensor, "b d 1 n"]:
        patches = self.patches(images)
        learned = repeat(self.learned.weight, "n width -> b n width", b=len(images))
        tokens = self.transformer(torch.cat([patches, learned], dim=1))
        latents = self.head(tokens[:, patches.shape[1] :])
        return rearrange(latents, "b n d -> b d 1 n")


class TiTokDecoder(Decoder):
    """Blanks and a row of latents to patches."""

    def __init__(self, plan: TiTok, channels: int):
        super().__init__()
        self.plan, self.channels, self.dim = plan, channels, plan.dim
        self.first = nn.Linear(plan.dim, plan.width)
        self.order = small_table(plan.tokens, plan.width)
        self.blank = small_table(1, plan.width)
        self.transformer = Transformer(plan.width, plan.depth, plan.heads, plan.checkpoint)
        self.pixels = ToPatches(channels, plan.patch, plan.width)

    def forward(
        self, latents: Float[Tensor, "b d h w"], image_size: tuple[int, int]
    ) -> Float[Tensor, "b c H W"]:
        check_fit(self.plan, latents, image_size)
        rows, columns = patch_grid(*image_size, self.plan.patch)
        blanks = self.blank.weight + places(rows, columns, self.plan.width, latents.device)
        tokens = self.first(rearrange(latents, "b d 1 n -> b n d")) + self.order.weight
        tokens = torch.cat([repeat(blanks, "n width -> b n width", b=len(latents)), tokens], dim=1)
        return self.pixels(self.transformer(tokens)[:, : rows * columns], image_size)

    @property
    def last_layer(self) -> nn.Parameter:
        return self.pixels.head.last.get_parameter("weight")


def small_table(count: int, width: int) -> nn.Embedding:
    """Learned tokens, in a table, so that they do not decay, and at first of length 1, as in TiTok.

    Longer ones drown what a token reads of the image: then its code says which token it is, for each image.
    """
    table = nn.Embedding(count, width)
    nn.init.normal_(table.weight, std=width**-0.5)
    return table
