"""IBQ's transformer of SEED-Voken (Shi et al. 2024, arXiv:2412.02692): LlamaGen's with adaLN."""

from dataclasses import replace

from genstack.checkpoints.formats.convolutional import compressor
from genstack.checkpoints.formats.format import (
    TRAINING_TENSORS,
    Format,
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
from genstack.checkpoints.formats.llamagen import backbone_of, rotary_qkv
from genstack.checkpoints.formats.modulation import modulation
from genstack.checkpoints.import_options import ImportOptions
from genstack.conditions import ClassLabels
from genstack.layout import CodeLayout
from genstack.model import Model
from genstack.prior import Autoregressive
from genstack.transformer import Backbone

FIRST = "first_stage_model."


class IBQTransformer(Format):
    """The class-conditional transformer, with its tokenizer where the file has it."""

    what = "transformer of SEED-Voken (IBQ)"
    required = (
        "transformer.tok_emb.weight",
        "transformer.class_emb.embedding_table.weight",
        "transformer.blocks.0.attention.wqkv.weight",
        "transformer.head_nm.rmsnorm.weight",
    )
    ignored = tuple(FIRST.replace(".", r"\.") + pattern for pattern in TRAINING_TENSORS)
    options = ("resolution", "heads", "compressor")

    def model(self, weights: Weights, options: ImportOptions) -> Model:
        inside, heads = weights.inside("transformer."), require_heads(options.heads)
        if f"{FIRST}quantize.embedding.weight" not in weights:
            return code_model(options, self.what, lambda layout: transformer(inside, layout, heads))
        made = compressor(weights.inside(FIRST), products=True)
        seen = preprocessing(made, options)
        prior = transformer(inside, made.code_layout(seen.height, seen.width), heads)
        return Model(made, seen, prior.condition.names, prior)  # type: ignore[attr-defined]


def transformer(weights: Weights, layout: CodeLayout, heads: int) -> Autoregressive:
    """The transformer under our names; positions are not in its tensors."""
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
    take = {name: weights.take(f"{theirs}.feed_forward.{name}.weight") for name in ("w1", "w2", "w3")}
    return modulation(weights, f"{theirs}.ada_lin.1", ours, tuple(range(6)), norms) | {
        f"{ours}.attention.qkv.weight": rotary_qkv(weights.take(f"{theirs}.attention.wqkv.weight"), backbone),
        f"{ours}.attention.out.weight": weights.take(f"{theirs}.attention.wo.weight"),
        f"{ours}.feedforward.fc1.weight": concatenate(take["w1"], take["w3"]),
        f"{ours}.feedforward.fc2.weight": take["w2"],
    }
