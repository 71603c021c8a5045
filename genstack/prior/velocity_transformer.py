"""A transformer that predicts velocities of patches of latents (DiT, arXiv:2212.09748; SiT, 2401.08740).

Time and condition modulate every layer (adaLN). A condition of several tokens also precedes the patches, or
is read by cross-attention.
"""

import math
from dataclasses import replace

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import silu

from genstack.conditions.condition import Condition
from genstack.errors import UserError
from genstack.layout import LatentLayout
from genstack.transformer.backbone import Backbone
from genstack.transformer.encoded_condition import EncodedCondition
from genstack.transformer.masks import Full
from genstack.transformer.transformer import Transformer

FREQUENCIES = 256  # sines and cosines of a time


class VelocityTransformer(nn.Module):
    """Velocity of noisy latents from their time and the condition.

    Args:
        layout: layout of the latents.
        condition: condition of the prior.
        backbone: configuration of the transformer, with adaLN.
        patch: side of the square patches that are one token.
    """

    def __init__(self, layout: LatentLayout, condition: Condition, backbone: Backbone, patch: int):
        super().__init__()
        if backbone.adaln == "none":
            raise UserError(
                "velocities need adaLN, which reads the time; set backbone.adaln to own or shared"
            )
        self.layout, self.condition, self.backbone, self.patch = layout, condition, backbone, patch
        patches = layout.patches(patch)
        self.prefix = condition.embedding(backbone.width)
        self.time = TimeEmbedding(backbone.width)
        self.embed = nn.Linear(patches.dim, backbone.width)
        # A condition of one token is read by adaLN alone.
        length = backbone.prefix_length(condition.length)
        self.prefix_length = length if length > 1 else 0
        self.transformer = Transformer(patches, backbone, self.prefix_length)
        self.head = nn.Linear(backbone.width, patches.dim)
        nn.init.normal_(self.head.weight, std=0.02)
        nn.init.zeros_(self.head.bias)
        no_position = torch.full((self.prefix_length,), patches.length)
        positions = torch.cat([no_position, torch.arange(patches.length)])
        self.register_buffer("positions", positions, persistent=False)

    def encode_condition(self, condition: Tensor) -> EncodedCondition:
        """Encode values of the condition, once for all passes over the same images."""
        mask = self.condition.padding_mask(condition)
        encoded = self.transformer.encode_condition(self.prefix(condition), mask)
        mask = None if encoded.padding_mask is None else encoded.padding_mask[:, : self.prefix_length]
        return replace(encoded, prefix=encoded.prefix[:, : self.prefix_length], padding_mask=mask)

    def forward(
        self, latents: Float[Tensor, "b d h w"], times: Float[Tensor, " b"], encoded: EncodedCondition
    ) -> Float[Tensor, "b d h w"]:
        """Velocities in float32.

        Args:
            latents: standardized latents on their way from noise to data.
            times: from 0 (noise) to 1 (data).
            encoded: the condition.
        """
        patches = rearrange(latents, "b d (h p) (w q) -> b (h w) (d p q)", p=self.patch, q=self.patch)
        features = self.transformer(
            torch.cat([encoded.prefix, self.embed(patches)], dim=1),
            self.get_buffer("positions"),
            encoded.mask_padding(Full()),
            conditioning=encoded.conditioning + self.time(times),
            key_values=encoded.key_values,
        )
        return rearrange(
            self.head(features[:, self.prefix_length :]).float(),
            "b (h w) (d p q) -> b d (h p) (w q)",
            h=latents.shape[2] // self.patch,
            p=self.patch,
            q=self.patch,
        )


class TimeEmbedding(nn.Module):
    """A vector for each time in [0, 1]: sines and cosines, and a small network."""

    def __init__(self, width: int):
        super().__init__()
        self.fc1, self.fc2 = nn.Linear(FREQUENCIES, width), nn.Linear(width, width)
        for layer in (self.fc1, self.fc2):
            nn.init.normal_(layer.weight, std=0.02)
            nn.init.zeros_(layer.bias)

    def forward(self, times: Float[Tensor, " b"]) -> Float[Tensor, "b width"]:
        half = FREQUENCIES // 2
        frequencies = torch.exp(-math.log(10_000) / half * torch.arange(half, device=times.device))
        angles = 1000 * rearrange(times.float(), "b -> b 1") * frequencies
        return self.fc2(silu(self.fc1(torch.cat([angles.cos(), angles.sin()], dim=1))))
