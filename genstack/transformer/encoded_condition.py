"""A condition as the layers of a transformer read it, encoded once per sample."""

from collections.abc import Sequence
from dataclasses import dataclass

from jaxtyping import Bool, Float
from torch import Tensor

from genstack.transformer.cross_attention import KeyValuePair
from genstack.transformer.masks import Mask, mask_padding


@dataclass(frozen=True)
class EncodedCondition:
    """Prefix tokens, conditioning vector, and keys and values of a condition.

    Args:
        prefix: tokens before the codes.
        conditioning: the condition as one vector, for adaLN.
        key_values: keys and values of each layer, for cross-attention.
        padding_mask: True for prefix tokens that are padding; None without padding.
    """

    prefix: Float[Tensor, "b prefix width"]
    conditioning: Float[Tensor, "b width"]
    key_values: Sequence[KeyValuePair] = ()
    padding_mask: Bool[Tensor, "b prefix"] | None = None

    def mask_padding(self, mask: Mask) -> Mask:
        """Exclude the padding of the prefix from an attention mask."""
        return mask_padding(mask, self.padding_mask)
