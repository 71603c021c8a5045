"""Architectures, blocks and tables of tokens of transformers that several projects share."""

from collections.abc import Mapping
from dataclasses import dataclass, replace

from genstack.checkpoints.formats.format import Weight, Weights, concatenate
from genstack.errors import UserError
from genstack.transformer import Backbone

#: From the layers of a block of timm to ours (RAR, U-ViT).
TIMM = {
    "attn.qkv": "attention.qkv",
    "attn.proj": "attention.out",
    "mlp.fc1": "feedforward.fc1",
    "mlp.fc2": "feedforward.fc2",
}


def gpt_backbone(width: int, depth: int, heads: int, mlp_width: int) -> Backbone:
    """Architecture of GPT and ViT: layer norms, GELU, biases, learned positions, an untied head."""
    return Backbone(
        width=width,
        depth=depth,
        heads=heads,
        norm="layer",
        feedforward="gelu",
        ratio=mlp_width / width,
        positions="learned",
        qk_norm=False,
        bias=True,
        tied=False,
    )


def bert_backbone(width: int, depth: int, heads: int, mlp_width: int) -> Backbone:
    """Architecture of BERT: norms after each sub-layer, and a bias of the head."""
    gpt = gpt_backbone(width, depth, heads, mlp_width)
    return replace(gpt, epsilon=1e-12, head_bias=True, post_norm=True)


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
