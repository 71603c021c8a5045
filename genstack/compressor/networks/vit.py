"""The transformer autoencoder of ViT-VQGAN (Yu et al. 2021, arXiv:2110.04627, section 3.1)."""

from dataclasses import dataclass

from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn

from genstack.compressor.network import Decoder, Encoder, Network, check_fit
from genstack.compressor.networks.patch_pixels import ToPatches
from genstack.compressor.networks.transformer import (
    FromPatches,
    Head,
    Transformer,
    check_plan,
    patch_grid,
    places,
)


@dataclass(frozen=True)
class ViT(Network):
    """A transformer over patches, one latent for each patch; the defaults are ViT-VQGAN's small one.

    It reads images of any size that its patches tile, not only of the size that it was trained on. Few
    channels and unit vectors belong to it: `dim` as the quantizer's, with `projection: 0`, is the paper's.

    Args:
        dim: channels of the latents that the encoder writes and the decoder reads.
        patch: side of the square of pixels that one latent stands for.
        width: channels of a token, a multiple of 4 and of `heads`.
        depth: layers of the encoder, and of the decoder.
        heads: attention heads of each layer.
        checkpoint: forget activations in training, compute them again for gradients: less memory, more time.
    """

    dim: int = 32
    patch: int = 8
    width: int = 512
    depth: int = 8
    heads: int = 8
    checkpoint: bool = False

    def __post_init__(self) -> None:
        check_plan(dim=self.dim, patch=self.patch, width=self.width, depth=self.depth, heads=self.heads)

    def encoder(self, channels: int) -> "ViTEncoder":
        return ViTEncoder(self, channels)

    def decoder(self, channels: int) -> "ViTDecoder":
        return ViTDecoder(self, channels)

    def grid(self, height: int, width: int) -> tuple[int, int]:
        return patch_grid(height, width, self.patch)


class ViTEncoder(Encoder):
    """Patches to latents."""

    def __init__(self, plan: ViT, channels: int):
        super().__init__()
        self.plan, self.channels, self.dim = plan, channels, plan.dim
        self.patches = FromPatches(channels, plan.patch, plan.width)
        self.transformer = Transformer(plan.width, plan.depth, plan.heads, plan.checkpoint)
        self.head = Head(plan.width, plan.dim)

    def forward(self, images: Float[Tensor, "b c H W"]) -> Float[Tensor, "b d h w"]:
        rows, _ = self.plan.grid(*images.shape[-2:])
        latents = self.head(self.transformer(self.patches(images)))
        return rearrange(latents, "b (h w) d -> b d h w", h=rows)


class ViTDecoder(Decoder):
    """Latents to patches."""

    def __init__(self, plan: ViT, channels: int):
        super().__init__()
        self.plan, self.channels, self.dim = plan, channels, plan.dim
        self.first = nn.Linear(plan.dim, plan.width)
        self.transformer = Transformer(plan.width, plan.depth, plan.heads, plan.checkpoint)
        self.pixels = ToPatches(channels, plan.patch, plan.width)

    def forward(
        self, latents: Float[Tensor, "b d h w"], image_size: tuple[int, int]
    ) -> Float[Tensor, "b c H W"]:
        check_fit(self.plan, latents, image_size)
        tokens = self.first(rearrange(latents, "b d h w -> b (h w) d"))
        rows, columns = latents.shape[-2:]
        tokens = tokens + places(rows, columns, self.plan.width, latents.device)
        return self.pixels(self.transformer(tokens), image_size)

    @property
    def last_layer(self) -> nn.Parameter:
        return self.pixels.last_layer
