"""LlamaGen (Sun et al. 2024, arXiv:2406.06525): tokenizers of unit vectors, transformers over their codes."""

import torch
from einops import rearrange

from genstack.checkpoints.formats.convolutional import Names
from genstack.checkpoints.formats.format import (
    FLAGS,
    Format,
    Options,
    Weight,
    Weights,
    asked,
    filled,
    joined,
)
from genstack.checkpoints.formats.taming import class_names, compressor, preprocessing
from genstack.checkpoints.strangers import File
from genstack.data.images import Preprocessing
from genstack.errors import UserError
from genstack.layout import CodeLayout
from genstack.model import Model
from genstack.prior import Autoregressive, Backbone, ClassLabels

NAMES = Names(
    down="encoder.conv_blocks.{level}",
    up="decoder.conv_blocks.{step}",
    block="res.{number}",
    middle=("mid.0", "mid.1", "mid.2"),
)


class LlamaGenTokenizer(Format):
    """VQ-8 and VQ-16; training files hold averaged weights under `ema`."""

    what = "tokenizer of LlamaGen"
    marks = (
        "encoder.conv_blocks.0.res.0.conv1.weight",
        "decoder.conv_blocks.0.res.0.conv1.weight",
        "quant_conv.weight",
        "quantize.embedding.weight",
    )
    beside = (r"quantize\.codebook_used$",)
    asks = ("size", "averaged")

    def part(self, file: File, options: Options) -> str:
        if options.averaged and not (isinstance(file.data, dict) and "ema" in file.data):
            raise UserError(f"the file has no averaged weights (ema); leave {FLAGS['averaged']} out")
        return "ema" if options.averaged else ""

    def model(self, weights: Weights, options: Options) -> Model:
        made = compressor(weights, NAMES, normalize=True)
        return Model(made, preprocessing(made, options))


class LlamaGenPrior(Format):
    """The class-conditional transformer; its file does not hold the tokenizer."""

    what = "class-conditional transformer of LlamaGen"
    marks = (
        "cls_embedding.embedding_table.weight",
        "tok_embeddings.weight",
        "layers.0.attention.wqkv.weight",
        "output.weight",
    )
    asks = ("size", "heads", "compressor")

    def model(self, weights: Weights, options: Options) -> Model:
        codebook_size, _ = weights.dims("tok_embeddings.weight", 2)
        if options.compressor is None:
            raise UserError(
                f"a {self.what} does not hold its tokenizer; name it: genstack import FILE "
                f"{FLAGS['compressor']} TOKENIZER {FLAGS['heads']} N --out RUN"
            )
        made, before = options.compressor.compressor, options.compressor.preprocessing
        size = options.size or (before.height, before.width)
        layout = made.layout(*size)
        if layout.codebook_size != codebook_size:
            raise UserError(
                f"the tokenizer has {layout.codebook_size} codes, and this transformer reads {codebook_size}"
            )
        prior = self.prior(weights, layout, options.heads)
        return Model(made, Preprocessing(before.channels, *size), prior.condition.names, prior)  # type: ignore[attr-defined]

    def prior(self, weights: Weights, layout: CodeLayout, heads: int) -> Autoregressive:
        """The transformer under our names."""
        labels, width = weights.dims("cls_embedding.embedding_table.weight", 2)
        layers = weights.count("layers.{}.attention.wqkv.weight")
        hidden, _ = weights.dims("layers.0.feed_forward.w1.weight", 2)
        backbone = plan(width, layers, asked(heads, FLAGS["heads"], "the number of attention heads"), hidden)
        found = {f"transformer.{name}": weight for name, weight in blocks(weights, backbone).items()}
        found |= {
            "prefix.table.weight": weights.take("cls_embedding.embedding_table.weight"),
            "codes.weight": weights.take("tok_embeddings.weight"),
            "head.weight": weights.take("output.weight"),
        }
        condition = ClassLabels(class_names(labels - 1))
        return filled(lambda: Autoregressive(layout, condition, backbone), found)


def plan(width: int, depth: int, heads: int, hidden: int) -> Backbone:
    """LlamaGen's transformer; where its hidden width is not the usual one, the ratio that gives it."""
    made = Backbone(width, depth, heads, qk_norm=False, unplaced="zero")
    if made.hidden == hidden:
        return made
    ratio = 1.5 * (hidden + 0.5) / width  # a half, so that rounding down gives `hidden`
    return Backbone(width, depth, heads, qk_norm=False, unplaced="zero", ratio=ratio, rounding=1)


def blocks(weights: Weights, backbone: Backbone) -> dict[str, Weight]:
    """The layers, and the last normalisation.

    Theirs turn neighbouring channels of queries and keys together, ours channels half a head apart: a matter
    of their order, which no product of queries and keys depends on.
    """
    width, half = backbone.width, backbone.head_width // 2
    heads = torch.arange(2 * width).reshape(2 * backbone.heads, half, 2)
    turned = rearrange(heads, "heads plane side -> (heads side plane)")
    order = torch.cat([turned, torch.arange(2 * width, 3 * width)])
    found = {"norm.weight": weights.take("norm.weight")}
    for layer in range(backbone.depth):
        place = f"layers.{layer}"
        read = weights.take(f"{place}.attention.wqkv.weight")
        if read.shape != (3 * width, width):
            raise UserError(f"{read.of} has shape {read.shape}; heads that share keys are not supported")
        gate, inner = (weights.take(f"{place}.feed_forward.{name}.weight") for name in ("w1", "w3"))
        found |= {
            f"{place}.attention.read.weight": read.ordered(order),
            f"{place}.attention.write.weight": weights.take(f"{place}.attention.wo.weight"),
            f"{place}.attention_norm.weight": weights.take(f"{place}.attention_norm.weight"),
            f"{place}.feedforward_norm.weight": weights.take(f"{place}.ffn_norm.weight"),
            f"{place}.feedforward.read.weight": joined(gate, inner),
            f"{place}.feedforward.write.weight": weights.take(f"{place}.feed_forward.w2.weight"),
        }
    return found
