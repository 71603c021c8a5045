"""Transformers of taming-transformers (Esser et al. 2021, arXiv:2012.09841), with their compressors."""

from math import isqrt, prod

import torch
from einops import rearrange

from genstack.checkpoints.formats.blocks import gpt_backbone
from genstack.checkpoints.formats.convolutional import compressor
from genstack.checkpoints.formats.format import (
    DEFAULT_SIZE,
    Format,
    Provenance,
    Weight,
    Weights,
    class_names,
    concatenate,
    constant,
    load_module,
    require_heads,
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

#: Tensors of every transformer, and of those with a condition image.
TRANSFORMER = (
    "transformer.tok_emb.weight",
    "transformer.pos_emb",
    "first_stage_model.encoder.conv_in.weight",
)
OTHER = "cond_stage_model.encoder.conv_in.weight"
#: Tensors that are not weights.
IGNORED = (
    r"transformer\.blocks\.\d+\.attn\.mask$",
    r"(first|cond)_stage_model\.(loss\.|model_ema\.|colorize$)",
    r"permuter\.",
)


class TamingTransformer(Format):
    """Net2NetTransformer: minGPT over the codes of the compressor in the same file.

    Condition and codes share one embedding table there, and have their own tables here. Logits of the shared
    vocabulary that are not codes are dropped.
    """

    what = "transformer of taming-transformers (unconditional or of classes)"
    provenance = Provenance(
        files="cin_transformer, faceshq, ffhq, celebahq (links in its README)",
        source="CompVis/taming-transformers",
        licence="MIT",
        weights="not stated",
        checked="logits, greedy codes",
    )
    required = TRANSFORMER
    excluded = (OTHER,)
    ignored = IGNORED
    options = ("resolution", "heads", "classes")

    def model(self, weights: Weights, options: ImportOptions) -> Model:
        made = first_stage(weights)
        size = options.size or infer_size(weights, made, None)
        return Model(
            made,
            Preprocessing(made.channels, *size),
            class_names(options.classes or 0),
            self.prior(weights.inside("transformer."), made, size, options),
        )

    def prior(
        self, weights: Weights, made: Autoencoder, size: tuple[int, int], options: ImportOptions
    ) -> Autoregressive:
        """Load the transformer."""
        layout = made.code_layout(*size)
        vocabulary, _ = weights.dims("tok_emb.weight", 2)
        _, places, _ = weights.dims("pos_emb", 3)
        if options.classes is None:
            raise MissingOption(
                "the number of classes is not in the file; give --classes N, or --classes 0 without classes",
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
        found = {"prefix.table.weight": label_rows(table, labels, null=bool(options.classes))}
        return transformer(weights, layout, condition, options.heads, found)


class TamingTransformerOfImages(Format):
    """Net2NetTransformer with a condition image, which a second compressor in the file encodes.

    The codes of the condition image come first and share the embedding table. It was trained without dropping
    conditions.
    """

    what = "transformer of taming-transformers, of another image (depth, segmentation)"
    provenance = Provenance(
        files="drin_depth, sflckr, coco and ade20k with segmentation (links in its README)",
        source="CompVis/taming-transformers",
        licence="MIT",
        weights="not stated",
        checked="codes of the condition, logits, greedy codes",
    )
    required = (*TRANSFORMER, OTHER)
    ignored = IGNORED
    options = ("resolution", "heads")

    def model(self, weights: Weights, options: ImportOptions) -> Model:
        made, other = first_stage(weights), vq_or_gumbel(weights.inside("cond_stage_model."))
        size = options.size or infer_size(weights, made, other)
        other.code_layout(*size)
        prior = self.prior(weights.inside("transformer."), made, other, size, options.heads)
        return Model(made, Preprocessing(made.channels, *size), prior=prior)

    def prior(
        self, weights: Weights, made: Autoencoder, other: Autoencoder, size: tuple[int, int], heads: int
    ) -> Autoregressive:
        """Load the transformer."""
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
        table, where = weights.take("tok_emb.weight"), as_rows(weights.take("pos_emb"))
        found = {
            "prefix.table.weight": table[: layout.codebook_size if shared else before.codebook_size],
            "prefix.position_embedding.weight": where[: before.length],
            "prefix.null": constant(torch.zeros(width)),
        }
        condition = condition.with_compressor(other, digest(other.state_dict()))
        return transformer(weights, layout, condition, heads, found, before.length)


def first_stage(weights: Weights) -> Autoencoder:
    """Load the compressor in the file of a transformer."""
    if any(name.startswith("permuter.") for name in weights.tensors):
        check_order(weights)
    return vq_or_gumbel(weights.inside("first_stage_model."))


def vq_or_gumbel(weights: Weights) -> Autoencoder:
    """Load a compressor with a codebook or with Gumbel-softmax codes."""
    return gumbel(weights) if "quantize.embed.weight" in weights else compressor(weights)


def infer_size(weights: Weights, made: Autoencoder, other: Autoencoder | None) -> tuple[int, int]:
    """Infer the size of square images from the number of positions.

    Args:
        weights: weights of the file.
        made: compressor of the predicted codes.
        other: compressor of the condition image; None without.
    """
    rows = weights.dims("transformer.pos_emb", 3)[1]
    down, across = made.network.grid(*DEFAULT_SIZE)
    codes = down * across if other is None else down * across + prod(other.network.grid(*DEFAULT_SIZE))
    side = isqrt(rows * DEFAULT_SIZE[0] * DEFAULT_SIZE[1] // codes)
    if side * side * codes != rows * DEFAULT_SIZE[0] * DEFAULT_SIZE[1]:
        raise MissingOption(
            f"the transformer has {rows} positions, which no square image fills; give the size of the images "
            "as --resolution",
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
    """Load a minGPT.

    Args:
        weights: weights of the transformer.
        layout: layout of the codes.
        condition: condition of the prior.
        heads: attention heads; 0 if not given.
        prefix: weights of the condition's embedding.
        before: number of codes of a condition image; 0 for a condition of one token.
    """
    _, width = weights.dims("tok_emb.weight", 2)
    layers = weights.count("blocks.{}.ln1.weight")
    hidden, _ = weights.dims("blocks.0.mlp.0.weight", 2)
    backbone = gpt_backbone(width, layers, require_heads(heads), hidden)
    places = as_rows(weights.take("pos_emb"))
    found = {f"transformer.{name}": weight for name, weight in blocks(weights, layers).items()}
    found |= prefix | {
        "codes.weight": weights.take("tok_emb.weight")[: layout.codebook_size],
        "head.weight": weights.take("head.weight")[: layout.codebook_size],
        "transformer.position_embedding.parts.0.table.weight": (
            positions_after(places, before, layout.length) if before else positions(places, layout.length)
        ),
    }
    return load_module(lambda: Autoregressive(layout, condition, backbone, neighbors=False), found)


def check_order(weights: Weights) -> None:
    """Check that codes are in raster order."""
    order = weights.tensors.get("permuter.forward_shuffle_idx")
    if order is not None and not torch.equal(order, torch.arange(order.shape[0])):
        raise UserError("codes are permuted (permuter.*); only raster order is supported")


def blocks(weights: Weights, layers: int) -> dict[str, Weight]:
    """Weights of the layers of minGPT and of the last normalisation."""
    found = weights.layer("ln_f", "norm")
    for layer in range(layers):
        theirs, ours = f"blocks.{layer}", f"layers.{layer}"
        found |= weights.layer(f"{theirs}.ln1", f"{ours}.attention_norm")
        found |= weights.layer(f"{theirs}.ln2", f"{ours}.feedforward_norm")
        for part in ("weight", "bias"):
            read = [weights.take(f"{theirs}.attn.{name}.{part}") for name in ("query", "key", "value")]
            found[f"{ours}.attention.qkv.{part}"] = concatenate(*read)
        found |= weights.layer(f"{theirs}.attn.proj", f"{ours}.attention.out")
        found |= weights.layer(f"{theirs}.mlp.0", f"{ours}.feedforward.fc1")
        found |= weights.layer(f"{theirs}.mlp.2", f"{ours}.feedforward.fc2")
    return found


def label_rows(table: Weight, labels: int, null: bool) -> Weight:
    """Embeddings of labels, the first rows of the shared table; the null row is zero."""
    rows = table[:labels]
    return concatenate(rows, constant(torch.zeros(1, rows.shape[1]))) if null else rows


def as_rows(table: Weight) -> Weight:
    """Reshape position embeddings to rows."""
    return table.map(lambda each: rearrange(each, "1 n d -> n d"))


def positions(table: Weight, length: int) -> Weight:
    """Position embeddings: theirs begin with the condition, ours end with it.

    The last code is never an input, so its row may be missing and is then zero.
    """
    return pad_rows(table, length + 1)[torch.arange(length + 1).roll(-1)]


def positions_after(table: Weight, before: int, length: int) -> Weight:
    """Position embeddings of codes that follow a condition image, whose positions have their own table.

    Our last row, which is added to all positions of the condition, is zero.
    """
    codes = pad_rows(table, before + length)[before : before + length]
    return concatenate(codes, constant(torch.zeros(1, table.shape[1])))


def pad_rows(table: Weight, length: int) -> Weight:
    """Take the first rows of a table, padded with zeros."""
    missing = constant(torch.zeros(max(0, length - table.shape[0]), table.shape[1]))
    return concatenate(table, missing)[:length]
