"""The transformers of taming-transformers (Esser et al. 2021, arXiv:2012.09841), with their compressors."""

from math import isqrt, prod

import torch
from einops import rearrange

from genstack.checkpoints.formats.convolutional import compressor
from genstack.checkpoints.formats.format import (
    USUAL,
    Format,
    Weight,
    Weights,
    class_names,
    constant,
    filled,
    given_heads,
    joined,
)
from genstack.checkpoints.formats.taming import gumbel
from genstack.checkpoints.import_options import ImportOptions, MissingOption
from genstack.compressor import Autoencoder
from genstack.conditions import ClassLabels, Condition, ImageCodes, Unconditional
from genstack.data.images import Preprocessing
from genstack.errors import UserError
from genstack.layout import CodeLayout
from genstack.model import Model
from genstack.pretrained import digest
from genstack.prior import Autoregressive
from genstack.transformer import Backbone

#: What every transformer has, and what those have beside it that read another image.
TRANSFORMER = (
    "transformer.tok_emb.weight",
    "transformer.pos_emb",
    "first_stage_model.encoder.conv_in.weight",
)
OTHER = "cond_stage_model.encoder.conv_in.weight"
#: What is no weight of a transformer or of its compressors.
BESIDE = (
    r"transformer\.blocks\.\d+\.attn\.mask$",
    r"(first|cond)_stage_model\.(loss\.|model_ema\.|colorize$)",
    r"permuter\.",
)


class TamingTransformer(Format):
    """Net2NetTransformer: minGPT over the codes of the compressor in the same file.

    Condition and codes share one table of embeddings there, of which ours takes the rows of each. Logits are
    of the whole vocabulary there, of the codebook here: what is no code cannot be decoded.
    """

    what = "transformer of taming-transformers (unconditional or of classes)"
    marks = TRANSFORMER
    unlike = (OTHER,)
    beside = BESIDE
    asks = ("resolution", "heads", "classes")

    def model(self, weights: Weights, options: ImportOptions) -> Model:
        made = first_stage(weights)
        size = options.size or guess(weights, made, None)
        return Model(
            made,
            Preprocessing(made.channels, *size),
            class_names(options.classes or 0),
            self.prior(weights.inside("transformer."), made, size, options),
        )

    def prior(
        self, weights: Weights, made: Autoencoder, size: tuple[int, int], options: ImportOptions
    ) -> Autoregressive:
        """The transformer under our names."""
        layout = made.code_layout(*size)
        vocabulary, _ = weights.dims("tok_emb.weight", 2)
        _, places, _ = weights.dims("pos_emb", 3)
        if options.classes is None:
            raise MissingOption(
                "the condition is not in the tensors; give --classes N, or --classes 0 without classes",
                "classes",
            )
        condition: Condition = Unconditional()
        if options.classes:
            condition = ClassLabels(class_names(options.classes), dropout=0.0)
        labels = max(1, options.classes)
        if places < layout.length or vocabulary < max(layout.codebook_size, labels):
            raise MissingOption(
                f"{layout.length} codes of {layout.codebook_size} and {labels} labels do not fit its "
                f"{places} positions and {vocabulary} embeddings; "
                "change --resolution or --classes",
                "resolution",
                "classes",
            )
        table = weights.take("tok_emb.weight")
        found = {"prefix.table.weight": started(table, labels, null=bool(options.classes))}
        return transformer(weights, layout, condition, options.heads, found)


class TamingTransformerOfImages(Format):
    """Net2NetTransformer steered by another image, whose codes a second compressor in the file makes.

    Its codes stand before those to predict, in the same vocabulary and table of embeddings. No image was
    ever dropped in training.
    """

    what = "transformer of taming-transformers, of another image (depth, segmentation)"
    marks = (*TRANSFORMER, OTHER)
    beside = BESIDE
    asks = ("resolution", "heads")

    def model(self, weights: Weights, options: ImportOptions) -> Model:
        made, other = first_stage(weights), of_either_kind(weights.inside("cond_stage_model."))
        size = options.size or guess(weights, made, other)
        other.code_layout(*size)
        prior = self.prior(weights.inside("transformer."), made, other, size, options.heads)
        return Model(made, Preprocessing(made.channels, *size), prior=prior)

    def prior(
        self, weights: Weights, made: Autoencoder, other: Autoencoder, size: tuple[int, int], heads: int
    ) -> Autoregressive:
        """The transformer under our names."""
        layout, before = made.code_layout(*size), other.code_layout(*size)
        vocabulary, width = weights.dims("tok_emb.weight", 2)
        _, places, _ = weights.dims("pos_emb", 3)
        tokens = before.length + layout.length
        if places < tokens - 1 or vocabulary < max(layout.codebook_size, before.codebook_size):
            raise MissingOption(
                f"{tokens} codes of {layout.codebook_size} and {before.codebook_size} do not fit its "
                f"{places} positions and {vocabulary} embeddings; change --resolution",
                "resolution",
            )
        shared = before.codebook_size <= layout.codebook_size
        condition = ImageCodes(table="shared" if shared else "own", dropout=0.0, size=size)
        table, where = weights.take("tok_emb.weight"), unfolded(weights.take("pos_emb"))
        found = {
            "prefix.table.weight": table[: layout.codebook_size if shared else before.codebook_size],
            "prefix.position_embedding.weight": where[: before.length],
            "prefix.null": constant(torch.zeros(width)),
        }
        condition = condition.with_compressor(other, digest(other.state_dict()))
        return transformer(weights, layout, condition, heads, found, before.length)


def first_stage(weights: Weights) -> Autoencoder:
    """The compressor in the file of a transformer; its codes lie row by row."""
    if any(name.startswith("permuter.") for name in weights.tensors):
        check_order(weights)
    return of_either_kind(weights.inside("first_stage_model."))


def of_either_kind(weights: Weights) -> Autoencoder:
    """A compressor with a codebook, or with Gumbel-softmax codes."""
    return gumbel(weights) if "quantize.embed.weight" in weights else compressor(weights)


def guess(weights: Weights, made: Autoencoder, other: Autoencoder | None) -> tuple[int, int]:
    """The size of square images whose codes fill the table of positions, if there is one.

    Args:
        weights: of the file.
        made: the compressor whose codes are predicted.
        other: that of the condition images, whose codes stand before them; None without.
    """
    rows = weights.dims("transformer.pos_emb", 3)[1]
    down, across = made.network.grid(*USUAL)
    codes = down * across if other is None else down * across + prod(other.network.grid(*USUAL))
    side = isqrt(rows * USUAL[0] * USUAL[1] // codes)
    if side * side * codes != rows * USUAL[0] * USUAL[1]:
        raise MissingOption(
            f"the transformer has {rows} positions, which is not a square of codes; "
            "give the size of the images by --resolution",
            "resolution",
        )
    return side, side


def transformer(
    weights: Weights,
    layout: CodeLayout,
    condition: Condition,
    heads: int,
    prefix: dict[str, Weight],
    before: int = 0,
) -> Autoregressive:
    """A minGPT under our names.

    Args:
        weights: of the transformer.
        layout: of its codes.
        condition: what steers it.
        heads: attention heads of a layer; 0 if not given.
        prefix: the weights of the condition's embedding.
        before: codes of the condition, whose places stand in `prefix`; 0 for one token without.
    """
    _, width = weights.dims("tok_emb.weight", 2)
    layers = weights.count("blocks.{}.ln1.weight")
    hidden, _ = weights.dims("blocks.0.mlp.0.weight", 2)
    backbone = Backbone(
        width=width,
        depth=layers,
        heads=given_heads(heads),
        norm="layer",
        feedforward="gelu",
        ratio=hidden / width,
        positions="learned",
        qk_norm=False,
        bias=True,
        tied=False,
    )
    places = unfolded(weights.take("pos_emb"))
    found = {f"transformer.{name}": weight for name, weight in blocks(weights, layers).items()}
    found |= prefix | {
        "codes.weight": weights.take("tok_emb.weight")[: layout.codebook_size],
        "head.weight": weights.take("head.weight")[: layout.codebook_size],
        "transformer.position_embedding.parts.0.table.weight": (
            behind(places, before, layout.length) if before else positions(places, layout.length)
        ),
    }
    return filled(lambda: Autoregressive(layout, condition, backbone, neighbors=False), found)


def check_order(weights: Weights) -> None:
    """Refuse codes in another order than row by row."""
    order = weights.tensors.get("permuter.forward_shuffle_idx")
    if order is not None and not torch.equal(order, torch.arange(order.shape[0])):
        raise UserError("its codes are permuted (permuter.*), and only the order row by row is supported")


def blocks(weights: Weights, layers: int) -> dict[str, Weight]:
    """The layers of minGPT, and the last normalisation."""
    found = weights.both("ln_f", "norm")
    for layer in range(layers):
        theirs, ours = f"blocks.{layer}", f"layers.{layer}"
        found |= weights.both(f"{theirs}.ln1", f"{ours}.attention_norm")
        found |= weights.both(f"{theirs}.ln2", f"{ours}.feedforward_norm")
        for part in ("weight", "bias"):
            read = [weights.take(f"{theirs}.attn.{name}.{part}") for name in ("query", "key", "value")]
            found[f"{ours}.attention.qkv.{part}"] = joined(*read)
        found |= weights.both(f"{theirs}.attn.proj", f"{ours}.attention.out")
        found |= weights.both(f"{theirs}.mlp.0", f"{ours}.feedforward.fc1")
        found |= weights.both(f"{theirs}.mlp.2", f"{ours}.feedforward.fc2")
    return found


def started(table: Weight, labels: int, null: bool) -> Weight:
    """The embeddings of labels, the first of the shared table; no label was ever dropped in training."""
    rows = table[:labels]
    return joined(rows, constant(torch.zeros(1, rows.shape[1]))) if null else rows


def unfolded(table: Weight) -> Weight:
    """The vectors of places as rows."""
    return table.map(lambda each: rearrange(each, "1 n d -> n d"))


def positions(table: Weight, length: int) -> Weight:
    """The vectors of places: theirs begin with the condition, ours end with it.

    The last code is never read, so that a table of `length` rows is complete; its row is zero then.
    """
    return filled_up(table, length + 1)[torch.arange(length + 1).roll(-1)]


def behind(table: Weight, before: int, length: int) -> Weight:
    """The vectors of places of codes that stand behind so many of a condition, which have their own.

    Ours adds the last row to all of the condition's: zero.
    """
    codes = filled_up(table, before + length)[before : before + length]
    return joined(codes, constant(torch.zeros(1, table.shape[1])))


def filled_up(table: Weight, length: int) -> Weight:
    """The first rows of a table, with zeros where it has fewer."""
    missing = constant(torch.zeros(max(0, length - table.shape[0]), table.shape[1]))
    return joined(table, missing)[:length]
