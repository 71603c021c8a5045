"""A transformer with key-value caches that continues the sequences of a batch."""

from jaxtyping import Float, Int
from torch import Tensor, nn

from genstack.transformer.encoded_condition import EncodedCondition
from genstack.transformer.masks import Causal
from genstack.transformer.positions import PositionEmbedding
from genstack.transformer.transformer import Transformer


class CachedTransformer:
    """A causal transformer that keeps keys and values, so that each call costs its own tokens alone.

    Args:
        transformer: the transformer.
        encoded: the condition, one row per sequence.
        target: embedding of the position that a token predicts.
        positions: position of each token's own code, shared by all sequences or one row for each.
        targets: position of the code that each token predicts, likewise.
    """

    def __init__(
        self,
        transformer: Transformer,
        encoded: EncodedCondition,
        target: PositionEmbedding,
        positions: Int[Tensor, "*b t"],
        targets: Int[Tensor, "*b t"],
    ):
        self.transformer, self.encoded, self.target = transformer, encoded, target
        self.positions, self.targets = positions, targets
        self.mask, self.caches = encoded.mask_padding(Causal()), transformer.caches(positions.shape[-1])
        self.tokens = 0

    def __call__(self, tokens: Float[Tensor, "b n width"], head: nn.Module | None = None) -> Tensor:
        """Features of the next tokens, b x n x width, or with `head` the logits of the last, b x K."""
        now = slice(self.tokens, self.tokens + tokens.shape[1])
        self.tokens = now.stop
        tokens = self.target(tokens, self.targets[..., now])
        return self.transformer.step(
            tokens, self.positions[..., now], self.mask, self.caches, self.encoded, head
        )
