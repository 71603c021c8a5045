"""Images as a short row of codes without a place (TiTok, Yu et al. 2024, arXiv:2406.07550, section 3.2)."""

from dataclasses import dataclass

import torch
from einops import rearrange, repeat
from jaxtyping import Float
from torch import Tensor, nn

from genstack.compressor.network import Decoder, Encoder, Network, check_fit
from genstack.compressor.networks.patch_pixels import PatchPixels, SeparatePatches
from genstack.compressor.networks.transformer import (
    FromPatches,
    Head,
    Places,
    Transformer,
    check_plan,
    patch_grid,
    small_table,
)
from genstack.errors import UserError


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
        decoder_patch: `patch` of the decoder; null: as the encoder's.
        decoder_width: `width` of the decoder, whose heads have as many channels; null: as the encoder's.
        decoder_depth: `depth` of the decoder; null: as the encoder's.
        image_size: height and width of the only images that are read: each patch then has a learned position,
            and transformers begin with a class token and a norm, as those of 1d-tokenizer. null: positions
            are sines, for images of any size.
        pixels: how tokens of patches become pixels: SeparatePatches, SmoothedPatches or SoftCodes.
        scrambled: read the latent tokens of the encoder again as if their two axes were swapped in memory, as
            the two-stage tokenizers of 1d-tokenizer do by mistake.
        double: the encoder writes twice `dim` channels, as KL autoencoders do: means and log-variances.
    """

    tokens: int = 128
    dim: int = 12
    patch: int = 16
    width: int = 512
    depth: int = 8
    heads: int = 8
    checkpoint: bool = False
    decoder_patch: int | None = None
    decoder_width: int | None = None
    decoder_depth: int | None = None
    image_size: tuple[int, int] | None = None
    pixels: PatchPixels = SeparatePatches()  # noqa: RUF009 - a frozen plan
    scrambled: bool = False
    double: bool = False

    def __post_init__(self) -> None:
        check_plan(
            tokens=self.tokens,
            dim=self.dim,
            patch=self.patch,
            width=self.width,
            depth=self.depth,
            heads=self.heads,
        )
        wide, heads = self.decoder_width or self.width, self.decoder_heads
        check_plan(patch=self.patch_out, width=wide, depth=self.decoder_depth or self.depth, heads=heads)
        if self.image_size is not None:
            self.grid(*self.image_size)

    @property
    def decoder_heads(self) -> int:
        """Attention heads of the decoder."""
        return (self.decoder_width or self.width) * self.heads // self.width

    @property
    def patch_out(self) -> int:
        """Side of the patches that the decoder writes."""
        return self.patch if self.decoder_patch is None else self.decoder_patch

    def encoder(self, channels: int) -> "TiTokEncoder":
        return TiTokEncoder(self, channels)

    def decoder(self, channels: int) -> "TiTokDecoder":
        return TiTokDecoder(self, channels)

    def grid(self, height: int, width: int) -> tuple[int, int]:
        if self.image_size not in (None, (height, width)):
            size = "x".join(map(str, self.image_size or ()))
            raise UserError(
                f"image size {height}x{width} does not fit positions that were learned for {size}; use {size}"
            )
        for patch in (self.patch, self.patch_out):
            patch_grid(height, width, patch)
        return 1, self.tokens

    def patches(self, patch: int) -> tuple[int, int] | None:
        """Rows and columns of patches with learned positions; None without them."""
        return None if self.image_size is None else patch_grid(*self.image_size, patch)


class Opening(nn.Module):
    """A class token before all others, and a norm of all (CLIP, arXiv:2103.00020)."""

    def __init__(self, width: int):
        super().__init__()
        self.summary = small_table(1, width)
        self.norm = nn.LayerNorm(width)

    def forward(self, tokens: Float[Tensor, "b n width"]) -> Float[Tensor, "b n+1 width"]:
        summary = repeat(self.summary.weight, "n width -> b n width", b=len(tokens))
        return self.norm(torch.cat([summary, tokens], dim=1))


class TiTokEncoder(Encoder):
    """Patches and learned tokens to a row of latents."""

    def __init__(self, plan: TiTok, channels: int):
        super().__init__()
        self.plan, self.channels, self.dim = plan, channels, plan.dim * (2 if plan.double else 1)
        self.patches = FromPatches(channels, plan.patch, plan.width, plan.patches(plan.patch))
        self.learned = small_table(plan.tokens, plan.width)
        self.opening = None if plan.image_size is None else Opening(plan.width)
        self.transformer = Transformer(plan.width, plan.depth, plan.heads, plan.checkpoint)
        head = Head if plan.image_size is None else nn.Linear
        self.head = head(plan.width, self.dim)

    def forward(self, images: Float[Tensor, "b c H W"]) -> Float[Tensor, "b d 1 n"]:
        self.plan.grid(*images.shape[-2:])
        patches = self.patches(images)
        learned = repeat(self.learned.weight, "n width -> b n width", b=len(images))
        tokens = torch.cat([patches, learned], dim=1)
        if self.opening is not None:
            tokens = self.opening(tokens)
        tokens = self.transformer(tokens)[:, -self.plan.tokens :]
        if self.plan.scrambled:
            memory = rearrange(tokens, "b n width -> b (n width)")
            tokens = rearrange(memory, "b (width n) -> b n width", n=self.plan.tokens)
        return rearrange(self.head(tokens), "b n d -> b d 1 n")


class TiTokDecoder(Decoder):
    """Blanks and a row of latents to patches."""

    def __init__(self, plan: TiTok, channels: int):
        super().__init__()
        width = plan.decoder_width or plan.width
        self.plan, self.channels, self.dim = plan, channels, plan.dim
        self.first = nn.Linear(plan.dim, width)
        self.order = small_table(plan.tokens, width)
        self.blank = small_table(1, width)
        self.places = Places(width, plan.patches(plan.patch_out))
        self.opening = None if plan.image_size is None else Opening(width)
        depth = plan.decoder_depth or plan.depth
        self.transformer = Transformer(width, depth, plan.decoder_heads, plan.checkpoint)
        self.pixels = plan.pixels.writer(channels, plan.patch_out, width)

    def forward(
        self, latents: Float[Tensor, "b d h w"], image_size: tuple[int, int]
    ) -> Float[Tensor, "b c H W"]:
        check_fit(self.plan, latents, image_size)
        rows, columns = patch_grid(*image_size, self.plan.patch_out)
        blanks = self.blank.weight + self.places(rows, columns, latents.device)
        tokens = self.first(rearrange(latents, "b d 1 n -> b n d")) + self.order.weight
        tokens = torch.cat([repeat(blanks, "n width -> b n width", b=len(latents)), tokens], dim=1)
        if self.opening is not None:
            tokens = self.opening(tokens)
        blanks_start = tokens.shape[1] - self.plan.tokens - rows * columns
        return self.pixels(self.transformer(tokens)[:, blanks_start : -self.plan.tokens], image_size)

    @property
    def last_layer(self) -> nn.Parameter:
        return self.pixels.last_layer
