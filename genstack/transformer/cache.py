"""Key-value cache, by which the transformer computes each new token alone."""

from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor


@dataclass
class Cache:
    """Keys and values of one layer, in memory that is allocated once.

    Args:
        capacity: most tokens it can hold.
        length: tokens it holds.
        keys: memory for at least `capacity` tokens; None while empty.
        values: likewise.
    """

    capacity: int
    length: int = 0
    keys: Float[Tensor, "b h room d"] | None = None
    values: Float[Tensor, "b h room d"] | None = None

    def append(
        self, keys: Float[Tensor, "b h n d"], values: Float[Tensor, "b h n d"]
    ) -> tuple[Float[Tensor, "b h k d"], Float[Tensor, "b h k d"]]:
        """Append keys and values; return the keys and values of all tokens so far."""
        if self.keys is None or self.values is None:
            batch, heads, _, width = keys.shape
            # One spare token: torch.compile treats a slice that is the whole memory as a special case.
            self.keys = keys.new_empty(batch, heads, self.capacity + 1, width)
            self.values = values.new_empty(batch, heads, self.capacity + 1, width)
        added = keys.shape[2]
        assert self.length + added <= self.capacity, f"a cache for {self.capacity} tokens is full"
        self.keys.narrow(2, self.length, added).copy_(keys)
        self.values.narrow(2, self.length, added).copy_(values)
        self.length += added
        return self.keys.narrow(2, 0, self.length), self.values.narrow(2, 0, self.length)
