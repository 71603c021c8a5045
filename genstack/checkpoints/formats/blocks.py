"""Blocks of transformers and tables of tokens, as several projects name and arrange them."""

from collections.abc import Mapping
from dataclasses import dataclass

from genstack.checkpoints.formats.format import Weight, Weights, concatenate
from genstack.errors import UserError

#: From the layers of a block of timm to ours (RAR, U-ViT).
TIMM = {
    "attn.qkv": "attention.qkv",
    "attn.proj": "attention.out",
    "mlp.fc1": "feedforward.fc1",
    "mlp.fc2": "feedforward.fc2",
}


def block(weights: Weights, theirs: str, ours: str, layers: Mapping[str, str]) -> dict[str, Weight]:
    """Use the layers of a block, each with its weight and any bias.

    Args:
        weights: weights of the file.
        theirs: name of their block.
        ours: name of ours.
        layers: from their names inside the block to ours.
    """
    found: dict[str, Weight] = {}
    for name, other in layers.items():
        found |= weights.layer(f"{theirs}.{name}", f"{ours}.{other}")
    return found


def swiglu(weights: Weights, theirs: str, ours: str) -> dict[str, Weight]:
    """Use the gated feed-forward network of Llama, w2(silu(w1 x) * w3 x), without biases."""
    gate, inner, out = (weights.take(f"{theirs}.{name}.weight") for name in ("w1", "w3", "w2"))
    return {f"{ours}.fc1.weight": concatenate(gate, inner), f"{ours}.fc2.weight": out}


@dataclass(frozen=True)
class TokenTable:
    """A table of vectors of codes, of the mask, of classes and of no class, in this order (1d-tokenizer).

    Args:
        table: the vectors.
        codes: number of codes.
    """

    table: Weight
    codes: int

    def __post_init__(self) -> None:
        if self.classes < 1:
            raise UserError(
                f"a table of {self.table.shape[0]} rows does not hold {self.codes} codes, a mask and classes"
            )

    @property
    def classes(self) -> int:
        """Number of classes."""
        return self.table.shape[0] - self.codes - 2

    @property
    def weights(self) -> dict[str, Weight]:
        """Vectors of classes and codes under our names."""
        return {
            "prefix.table.weight": self.table[self.codes + 1 :],
            "codes.weight": self.table[: self.codes],
        }

    @property
    def mask(self) -> Weight:
        """Vector of the mask."""
        return self.table.map(lambda each: each[self.codes])
