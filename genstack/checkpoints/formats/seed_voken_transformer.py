"""Transformers of SEED-Voken: IBQ's (arXiv:2412.02692) and Open-MAGVIT2's (arXiv:2409.04410)."""

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from math import prod

from genstack.checkpoints.formats.blocks import swiglu
from genstack.checkpoints.formats.convolutional import compressor
from genstack.checkpoints.formats.format import (
    TRAINING_TENSORS,
    Format,
    Provenance,
    Weight,
    Weights,
    check_codes,
    class_names,
    code_model,
    concatenate,
    load_module,
    preprocessing,
    require_heads,
)
from genstack.checkpoints.formats.llamagen import backbone_of, llama_block, rotary_qkv
from genstack.checkpoints.formats.modulation import modulation
from genstack.checkpoints.formats.seed_voken import tokenizer
from genstack.checkpoints.import_options import ImportOptions
from genstack.compressor import Compressor
from genstack.conditions import ClassLabels
from genstack.layout import CodeLayout
from genstack.model import Model
from genstack.prior import Autoregressive
from genstack.prior.factorized import Factorized
from genstack.transformer import Backbone
from genstack.transformer.head import SCALE

FIRST = "first_stage_model."


class IBQTransformer(Format):
    """LlamaGen's transformer with adaLN, class-conditional, with its tokenizer where the file has it."""

    what = "transformer of SEED-Voken (IBQ)"
    provenance = Provenance(
        files="AR_256_{B,L,XL,XXL}.ckpt (hub: TencentARC/IBQ-AR-{B,L,XL,XXL})",
        source="TencentARC/SEED-Voken",
        licence="Apache 2.0",
        weights="Apache 2.0",
        checked="logits, greedy codes with guidance",
    )
    required = (
        "transformer.tok_emb.weight",
        "transformer.class_emb.embedding_table.weight",
        "transformer.blocks.0.attention.wqkv.weight",
        "transformer.head_nm.rmsnorm.weight",
    )
    ignored = tuple(FIRST.replace(".", r"\.") + pattern for pattern in TRAINING_TENSORS)
    options = ("resolution", "heads", "compressor")

    def model(self, weights: Weights, options: ImportOptions) -> Model:
        return with_tokenizer(weights, options, self.what, partial(compressor, products=True), transformer)


class OpenMAGVIT2Transformer(Format):
    """LlamaGen's transformer, and a small one that predicts the two parts of a code, class-conditional."""

    what = "transformer of SEED-Voken (Open-MAGVIT2)"
    provenance = Provenance(
        files="AR_256_{B,L,XL}.ckpt (hub: TencentARC/Open-MAGVIT2-AR-{B,L,XL}-256-resolution)",
        source="TencentARC/SEED-Voken",
        licence="Apache 2.0",
        weights="Apache 2.0",
        checked="logits of both parts, greedy codes with guidance",
    )
    required = (
        "transformer.pre_emb.weight",
        "transformer.post_emb.weight",
        "transformer.class_emb.embedding_table.weight",
        "transformer.spatial_blocks.0.attention.wqkv.weight",
        "transformer.factorized_blocks.0.attention.wqkv.weight",
    )
    ignored = tuple(FIRST.replace(".", r"\.") + pattern for pattern in TRAINING_TENSORS)
    options = ("resolution", "heads", "compressor")

    def model(self, weights: Weights, options: ImportOptions) -> Model:
        return with_tokenizer(weights, options, self.what, tokenizer, factorized)


def with_tokenizer(
    weights: Weights,
    options: ImportOptions,
    what: str,
    first: Callable[[Weights], Compressor],
    second: Callable[[Weights, CodeLayout, int], Autoregressive],
) -> Model:
    """Load the transformer, and the tokenizer of the same file or of another.

    Args:
        weights: weights of the file.
        options: options of the import.
        what: kind of the file.
        first: loads the tokenizer.
        second: loads the transformer for a layout and a number of heads.
    """
    inside, heads = weights.inside("transformer."), require_heads(options.heads)
    if f"{FIRST}encoder.conv_out.weight" not in weights:
        return code_model(options, what, lambda layout: second(inside, layout, heads))
    made = first(weights.inside(FIRST))
    seen = preprocessing(made, options)
    built = second(inside, made.code_layout(seen.height, seen.width), heads)
    return Model(made, seen, built.condition.names, built)  # type: ignore[attr-defined]


def factorized(weights: Weights, layout: CodeLayout, heads: int) -> Autoregressive:
    """The transformer of Open-MAGVIT2 under our names."""
    tables = [weights.take(f"{name}_emb.weight") for name in ("pre", "post")]
    _, width = weights.dims("pre_emb.weight", 2)
    parts = tuple(weights.dims(f"{name}_emb.weight", 2)[0] for name in ("pre", "post"))
    check_codes(layout, layout.length, prod(parts))
    depth, layers = (
        weights.count(f"{name}_blocks.{{}}.attention.wqkv.weight") for name in ("spatial", "factorized")
    )
    hidden, _ = weights.dims("spatial_blocks.0.feed_forward.w1.weight", 2)
    backbone = replace(backbone_of(width, depth, heads, hidden), last="none")
    classes = weights.dims("class_emb.embedding_table.weight", 2)[0] - 1
    vectors = concatenate(*tables).map(lambda each: each / SCALE)
    found = {
        "prefix.table.weight": weights.take("class_emb.embedding_table.weight"),
        "codes.weight": vectors,
        "distribution.codes.0.weight": vectors[: parts[0]],
        "distribution.transformer.norm.weight": weights.take("norm.weight"),
    }
    for part in range(len(parts)):
        found[f"distribution.heads.{part}.weight"] = weights.take(f"head.{part}.weight")
    for number in range(depth):
        found |= llama_block(weights, f"spatial_blocks.{number}", f"transformer.layers.{number}", backbone)
    for number in range(layers):
        ours = f"distribution.transformer.layers.{number}"
        found |= llama_block(weights, f"factorized_blocks.{number}", ours, backbone)
    condition, symbols = ClassLabels(class_names(classes)), Factorized(parts, layers)
    return load_module(
        lambda: Autoregressive(layout, condition, backbone, neighbors=False, symbols=symbols), found
    )


def transformer(weights: Weights, layout: CodeLayout, heads: int) -> Autoregressive:
    """The transformer of IBQ under our names; positions are not in its tensors."""
    codes, width = weights.dims("tok_emb.weight", 2)
    check_codes(layout, layout.length, codes)
    depth = weights.count("blocks.{}.attention.wqkv.weight")
    hidden, _ = weights.dims("blocks.0.feed_forward.w1.weight", 2)
    backbone = replace(backbone_of(width, depth, heads, hidden), adaln="own", epsilon=1e-5)
    labels = weights.take("class_emb.embedding_table.weight")
    found = {
        "prefix.table.weight": labels,
        "codes.weight": weights.take("tok_emb.weight"),
        "head.weight": weights.take("head.weight"),
        **modulation(weights, "head_nm.ada_lin.1", "transformer.norm", (0, 1), ("head_nm.rmsnorm",)),
    }
    for number in range(depth):
        found |= layer(weights, f"blocks.{number}", f"transformer.layers.{number}", backbone)
    condition = ClassLabels(class_names(labels.shape[0] - 1))
    return load_module(lambda: Autoregressive(layout, condition, backbone, neighbors=False), found)


def layer(weights: Weights, theirs: str, ours: str, backbone: Backbone) -> dict[str, Weight]:
    """A layer; the order of its modulation vectors is ours."""
    norms = (f"{theirs}.attention_norm", f"{theirs}.ffn_norm")
    return modulation(weights, f"{theirs}.ada_lin.1", ours, tuple(range(6)), norms) | {
        f"{ours}.attention.qkv.weight": rotary_qkv(weights.take(f"{theirs}.attention.wqkv.weight"), backbone),
        f"{ours}.attention.out.weight": weights.take(f"{theirs}.attention.wo.weight"),
        **swiglu(weights, f"{theirs}.feed_forward", f"{ours}.feedforward"),
    }
