"""A condition as a transformer reads it, made once for all passes over the same images."""

from collections.abc import Sequence
from dataclasses import dataclass

from jaxtyping import Bool, Float
from torch import Tensor

from genstack.transformer.cross_attention import KeyValuePair
from genstack.transformer.masks import Mask, hiding


@dataclass(frozen=True)
class EncodedCondition:
    """What a transformer makes of the tokens of a condition.

    Args:
        before: tokens that stand before the codes.
        steering: the condition as one vector.
        pairs: keys and values of each layer that reads it across.
        hidden: True for tokens before the codes that only fill up; None where all are seen.
    """

    before: Float[Tensor, "b before width"]
    steering: Float[Tensor, "b width"]
    pairs: Sequence[KeyValuePair] = ()
    hidden: Bool[Tensor, "b before"] | None = None

    def masked(self, mask: Mask) -> Mask:
        """A mask without the tokens before the codes that only fill up."""
        return hiding(mask, self.hidden)
