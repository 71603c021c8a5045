"""A transformer over positions of which some are masked, given a condition."""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from genstack.conditions.condition import Condition
from genstack.layout import Layout
from genstack.transformer.backbone import Backbone
from genstack.transformer.encoded_condition import EncodedCondition
from genstack.transformer.masks import Full
from genstack.transformer.positions import IndexEmbedding
from genstack.transformer.transformer import Transformer


class MaskedNetwork(nn.Module):
    """Features of all positions, each of which sees all others; the base of networks over codes and latents.

    Args:
        layout: layout of the positions, one token each.
        condition: condition of the prior.
        backbone: configuration of the transformer.
    """

    def __init__(self, layout: Layout, condition: Condition, backbone: Backbone):
        super().__init__()
        self.condition, self.backbone = condition, backbone
        self.prefix = condition.embedding(backbone.width)
        # Mask tokens are alike; rotary embeddings alone would not tell them apart.
        self.position_embedding = (
            IndexEmbedding(torch.arange(layout.length), layout.length, backbone.width)
            if backbone.positions == "rotary"
            else None
        )
        self.prefix_length = backbone.prefix_length(condition.length)
        self.transformer = Transformer(layout, backbone, self.prefix_length)
        no_position = torch.full((self.prefix_length,), layout.length)
        positions = torch.cat([no_position, torch.arange(layout.length)])
        self.register_buffer("positions", positions, persistent=False)

    def encode_condition(self, condition: Tensor) -> EncodedCondition:
        """Encode values of the condition, once for all passes over the same images."""
        padding_mask = self.condition.padding_mask(condition)
        return self.transformer.encode_condition(self.prefix(condition), padding_mask)

    def features(
        self, inputs: Float[Tensor, "b n width"], encoded: EncodedCondition
    ) -> Float[Tensor, "b n width"]:
        """Features of all positions, from one vector each; masked positions have the mask's vector."""
        positions = self.get_buffer("positions")
        tokens = torch.cat([encoded.prefix, inputs], dim=1)
        if self.position_embedding is not None:
            tokens = tokens + self.position_embedding(positions)
        features = self.transformer(
            tokens,
            positions,
            encoded.mask_padding(Full()),
            conditioning=encoded.conditioning,
            key_values=encoded.key_values,
        )
        return features[:, self.prefix_length :]
