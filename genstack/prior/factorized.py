"""Codes in parts of any sizes, predicted one after the other (Open-MAGVIT2, arXiv:2409.04410)."""

from dataclasses import dataclass, replace
from math import isqrt, prod

import torch
from einops import rearrange
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from genstack.errors import UserError
from genstack.layout import CodeLayout
from genstack.prior.logits import sample_from_logits
from genstack.prior.options import SamplingOptions
from genstack.prior.symbols import Distribution, Guide, Symbols
from genstack.transformer.backbone import Backbone
from genstack.transformer.head import LARGEST_TABLE, SCALE, ScaledEmbedding, check_table, linear_head
from genstack.transformer.masks import Causal
from genstack.transformer.transformer import Transformer

FEWEST = 2  # parts of a code


@dataclass(frozen=True)
class Factorized(Symbols):
    """A code in parts, predicted one after the other by a small transformer (Open-MAGVIT2, arXiv:2409.04410).

    Vectors and logits grow with the sum of the parts' sizes, not with the codebook. Parts may depend on
    each other. `nats` is exact.

    Args:
        parts: number of values of each part, the fastest first (for LFQ the first bits); their product is the
            codebook size. null: two parts, as equal as possible.
        layers: layers of the small transformer, which is else like the backbone.
    """

    parts: tuple[int, ...] | None = None
    layers: int = 2

    def __post_init__(self) -> None:
        if self.parts is not None and (len(self.parts) < FEWEST or min(self.parts) < FEWEST):
            raise UserError(f"parts must be two or more numbers of at least 2, got {list(self.parts)}")
        check_table(max(self.parts or (FEWEST,)))
        if self.layers < 1:
            raise UserError(f"layers must be at least 1, got {self.layers}")

    def sizes(self, codebook_size: int) -> tuple[int, ...]:
        """Number of values of each part.

        Raises:
            UserError: the codebook does not have such parts.
        """
        if self.parts is None:
            return halves(codebook_size)
        if prod(self.parts) != codebook_size:
            raise UserError(
                f"parts {list(self.parts)} have {prod(self.parts)} combinations, but the codebook has "
                f"{codebook_size} codes; use `parts: null` for two parts"
            )
        return self.parts

    def embedding(self, codebook_size: int, backbone: Backbone, tables: int = 1) -> nn.Embedding:
        return PartEmbedding(self.sizes(codebook_size), backbone.width, tables)

    def head(self, embedding: nn.Embedding, table: int = 0, tables: int = 1, bias: bool = False) -> nn.Module:
        return nn.Identity()

    def outputs(self, codebook_size: int, width: int) -> int:
        return width

    def distribution(self, codebook_size: int, backbone: Backbone) -> Distribution:
        return FactorizedDistribution(self.sizes(codebook_size), backbone, self.layers)


def halves(codebook_size: int) -> tuple[int, int]:
    """Two factors of a number, as equal as possible, the smaller one first; each has a table."""
    fewest = max(FEWEST, -(-codebook_size // LARGEST_TABLE))
    sizes = range(isqrt(codebook_size), fewest - 1, -1)
    smaller = next((size for size in sizes if codebook_size % size == 0), None)
    if smaller is None:
        raise UserError(
            f"a codebook of {codebook_size} codes has no two parts of at most {LARGEST_TABLE} values; set "
            f"more `parts`, or use symbols Softmax or Bits"
        )
    return smaller, codebook_size // smaller


def split_parts(codes: Int[Tensor, "*n"], sizes: tuple[int, ...]) -> Int[Tensor, "*n part"]:
    """Split codes into parts, the fastest first."""
    parts = []
    for size in sizes:
        parts.append(codes % size)
        codes = codes // size
    return torch.stack(parts, dim=-1)


def join_parts(parts: Int[Tensor, "*n part"], sizes: tuple[int, ...]) -> Int[Tensor, "*n"]:
    """The inverse of `split_parts`."""
    place_values = [prod(sizes[:number]) for number in range(len(sizes))]
    return (parts * torch.tensor(place_values, device=parts.device)).sum(-1)


class PartEmbedding(ScaledEmbedding):
    """Vectors of codes as sums of vectors of their parts.

    Args:
        sizes: number of values of each part.
        width: channels of a vector.
        tables: number of independent tables; code c of table t has the index t * K + c, of K codes.
        scale: factor from what is stored to what is read.
    """

    def __init__(self, sizes: tuple[int, ...], width: int, tables: int = 1, scale: float = SCALE):
        super().__init__(tables * sum(sizes), width, scale)
        self.sizes, self.num_embeddings = sizes, tables * prod(sizes)
        nn.init.normal_(self.weight, std=0.02 / scale / len(sizes) ** 0.5)
        firsts = torch.tensor([sum(sizes[:number]) for number in range(len(sizes))])
        self.register_buffer("firsts", firsts, persistent=False)

    def forward(self, input: Int[Tensor, "*b"]) -> Float[Tensor, "*b width"]:
        table = input // prod(self.sizes) * sum(self.sizes)
        parts = split_parts(input % prod(self.sizes), self.sizes) + self.get_buffer("firsts")
        return super().forward(parts + table[..., None]).sum(-2)


class FactorizedDistribution(Distribution):
    """Distribution of the parts of a code, each given the features and the parts before it.

    Args:
        sizes: number of values of each part.
        backbone: configuration of the features' transformer.
        layers: layers of the transformer over parts.
    """

    def __init__(self, sizes: tuple[int, ...], backbone: Backbone, layers: int):
        super().__init__()
        self.sizes, self.numbers = sizes, len(sizes)
        inside = replace(
            backbone,
            depth=layers,
            cross_attention=False,
            registers=0,
            prefix=True,
            adaln="none",
            adaln_steps=False,
            skips=False,
            last="norm",
        )
        line = CodeLayout((1, len(sizes)), max(sizes), ((1, len(sizes) - 1),))
        #: Vectors of all parts but the last.
        self.codes = nn.ModuleList(ScaledEmbedding(size, backbone.width) for size in sizes[:-1])
        self.transformer = Transformer(line, inside, prefix_length=1)
        heads = (linear_head(backbone.width, size, backbone.head_bias) for size in sizes)
        self.heads = nn.ModuleList(heads)
        #: Features have no position, parts have theirs.
        positions = torch.cat([torch.tensor([line.length]), torch.arange(line.length)])
        self.register_buffer("positions", positions, persistent=False)

    def forward(
        self, features: Float[Tensor, "n width"], parts: Int[Tensor, "n known"]
    ) -> list[Float[Tensor, "n values"]]:
        """Logits of the known parts and of the next one, each given the previous parts, in float32."""
        vectors = [table(part) for table, part in zip(self.codes, parts.unbind(1), strict=False)]
        tokens = torch.stack([features, *vectors], dim=1)
        outputs = self.transformer(tokens, self.get_buffer("positions")[: tokens.shape[1]], Causal())
        pairs = zip(self.heads, outputs.unbind(1), strict=False)
        return [head(output).float() for head, output in pairs]

    def nats(
        self, outputs: Float[Tensor, "*n width"], codes: Int[Tensor, "*n"], smoothing: float = 0.0
    ) -> Float[Tensor, "*n"]:
        parts = split_parts(codes.flatten(), self.sizes)
        logits = self(outputs.flatten(0, -2), parts[:, :-1])
        pairs = zip(logits, parts.unbind(1), strict=True)
        costs = [
            cross_entropy(each, part, reduction="none", label_smoothing=smoothing) for each, part in pairs
        ]
        return torch.stack(costs).sum(0).view(codes.shape)

    def sample(
        self,
        outputs: Float[Tensor, "rows width"],
        guide: Guide,
        options: SamplingOptions,
        uniforms: Float[Tensor, "n numbers"],
    ) -> Int[Tensor, " n"]:
        uniforms = rearrange(uniforms.reshape(-1), "(n part) -> part n", part=self.numbers)
        copies = len(outputs) // uniforms.shape[1]
        parts = torch.empty(uniforms.shape[1], 0, dtype=torch.int64, device=outputs.device)
        for part_uniforms in uniforms:
            logits = self(outputs, parts.repeat(copies, 1))[-1]
            sampled = sample_from_logits(guide(logits), options, part_uniforms)
            parts = torch.cat([parts, rearrange(sampled, "n -> n 1")], dim=1)
        return join_parts(parts, self.sizes)

    def score(
        self,
        outputs: Float[Tensor, "rows width"],
        guide: Guide,
        codes: Int[Tensor, " n"],
        normalized: bool = True,
    ) -> Float[Tensor, " n"]:
        parts = split_parts(codes, self.sizes)
        logits = self(outputs, parts[:, :-1].repeat(len(outputs) // len(codes), 1))
        scores = torch.zeros(len(codes), device=outputs.device)
        for each, part in zip(map(guide, logits), parts.unbind(1), strict=True):
            values = each.log_softmax(dim=-1) if normalized else each
            scores = scores + values.gather(1, part[:, None])[:, 0]
        return scores
