"""Keys and values of the tokens so far, so that a new token costs one pass of itself alone."""

from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor


@dataclass
class Cache:
    """The keys and values of one layer, in memory taken once: for the first tokens, in their dtype and place.

    Args:
        length: the most tokens it will hold.
        filled: how many it holds.
        keys: memory for more than `length`; None as long as it holds none.
        values: likewise.
    """

    length: int
    filled: int = 0
    keys: Float[Tensor, "b h room d"] | None = None
    values: Float[Tensor, "b h room d"] | None = None

    def append(
        self, keys: Float[Tensor, "b h n d"], values: Float[Tensor, "b h n d"]
    ) -> tuple[Float[Tensor, "b h k d"], Float[Tensor, "b h k d"]]:
        """The keys and values of all tokens so far, with these at the end."""
        if self.keys is None or self.values is None:
            batch, heads, _, width = keys.shape
            # One more than is filled: all of a memory is a case of its own to torch.compile.
            self.keys = keys.new_empty(batch, heads, self.length + 1, width)
            self.values = values.new_empty(batch, heads, self.length + 1, width)
        added = keys.shape[2]
        assert self.filled + added <= self.length, f"a cache for {self.length} tokens is full"
        self.keys.narrow(2, self.filled, added).copy_(keys)
        self.values.narrow(2, self.filled, added).copy_(values)
        self.filled += added
        return self.keys.narrow(2, 0, self.filled), self.values.narrow(2, 0, self.filled)
