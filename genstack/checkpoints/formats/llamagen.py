"""LlamaGen (Sun et al. 2024, arXiv:2406.06525): tokenizers, and transformers over their codes."""

from dataclasses import replace

import torch
from einops import rearrange

from genstack.checkpoints.foreign import File
from genstack.checkpoints.formats.blocks import swiglu
from genstack.checkpoints.formats.convolutional import Names, compressor
from genstack.checkpoints.formats.format import (
    Format,
    Provenance,
    Weight,
    Weights,
    class_names,
    load_compressor,
    load_module,
    preprocessing,
    require_heads,
)
from genstack.checkpoints.import_options import ImportOptions
from genstack.compressor import Compressor
from genstack.conditions import ClassLabels, Condition, EncodedCaptions
from genstack.conditions.text_encoder import download
from genstack.data.images import Preprocessing
from genstack.errors import UserError
from genstack.layout import CodeLayout
from genstack.model import Model
from genstack.prior import Autoregressive
from genstack.transformer import Backbone

NAMES = Names(
    down="encoder.conv_blocks.{level}",
    up="decoder.conv_blocks.{step}",
    block="res.{number}",
    middle=("mid.0", "mid.1", "mid.2"),
)
#: Tensors of both transformers.
TRANSFORMER = ("tok_embeddings.weight", "layers.0.attention.wqkv.weight", "output.weight")


class LlamaGenTokenizer(Format):
    """VQ-8 and VQ-16; training files hold EMA weights under `ema`."""

    what = "tokenizer of LlamaGen"
    provenance = Provenance(
        files="vq_ds{8,16}_c2i.pt (hub: FoundationVision/LlamaGen); vq_ds16_t2i.pt (hub: "
        "peizesun/llamagen_t2i); Janus-1.3B, Janus-Pro-{1B,7B} (hub: deepseek-ai)",
        source="FoundationVision/LlamaGen, deepseek-ai/Janus",
        licence="MIT",
        weights="LlamaGen: MIT; Janus: DeepSeek Model License 1.0 (its hub pages say MIT)",
        checked="latents, codes, images, EMA, shards",
    )
    required = (
        "encoder.conv_blocks.0.res.0.conv1.weight",
        "decoder.conv_blocks.0.res.0.conv1.weight",
        "quant_conv.weight",
        "quantize.embedding.weight",
    )
    ignored = (r"quantize\.codebook_used$",)
    options = ("resolution", "ema")

    def part(self, file: File, options: ImportOptions) -> str:
        if options.ema and not (isinstance(file.data, dict) and "ema" in file.data):
            raise UserError("the file has no EMA weights (ema); leave out --ema")
        return "ema" if options.ema else ""

    def model(self, weights: Weights, options: ImportOptions) -> Model:
        made = compressor(weights, NAMES, normalize=True)
        return Model(made, preprocessing(made, options))


class LlamaGenPrior(Format):
    """The class-conditional transformer, in a file without its tokenizer."""

    what = "class-conditional transformer of LlamaGen"
    provenance = Provenance(
        files="c2i_{B,L}_{256,384}.pt, c2i_{XL,XXL,3B}_384.pt (hub: FoundationVision/LlamaGen)",
        source="FoundationVision/LlamaGen",
        licence="MIT",
        weights="MIT",
        checked="logits, greedy codes with guidance",
    )
    required = ("cls_embedding.embedding_table.weight", *TRANSFORMER)
    options = ("resolution", "heads", "compressor")

    def model(self, weights: Weights, options: ImportOptions) -> Model:
        made, seen = tokenizer(weights, options, self.what)
        layout = made.code_layout(seen.height, seen.width)
        labels, _ = weights.dims("cls_embedding.embedding_table.weight", 2)
        return Model(made, seen, class_names(labels - 1), self.prior(weights, layout, options.heads))

    def prior(self, weights: Weights, layout: CodeLayout, heads: int) -> Autoregressive:
        """Load the transformer."""
        table = weights.take("cls_embedding.embedding_table.weight")
        condition = ClassLabels(class_names(table.shape[0] - 1))
        return transformer(weights, layout, condition, heads, {"prefix.table.weight": table})


class LlamaGenTextPrior(Format):
    """The text-conditional transformer, in a file without its tokenizer and text encoder.

    The published ones read states of FLAN-T5 XL for 120 tokens in lower case.
    """

    what = "text-conditional transformer of LlamaGen"
    provenance = Provenance(
        files="t2i_XL_stage{1_256,2_512}.pt (hub: peizesun/llamagen_t2i)",
        source="FoundationVision/LlamaGen",
        licence="MIT",
        weights="MIT",
        checked="conditions, logits, greedy codes with guidance",
    )
    required = ("cls_embedding.cap_proj.fc1.weight", "cls_embedding.uncond_embedding", *TRANSFORMER)
    options = ("resolution", "heads", "compressor", "text_encoder")

    def model(self, weights: Weights, options: ImportOptions) -> Model:
        made, seen = tokenizer(weights, options, self.what)
        layout = made.code_layout(seen.height, seen.width)
        prior = self.prior(weights, layout, options.heads, options.text_encoder)
        return Model(made, seen, prior=prior)

    def prior(self, weights: Weights, layout: CodeLayout, heads: int, encoder: str = "") -> Autoregressive:
        """Load the transformer."""
        length, dim = weights.dims("cls_embedding.uncond_embedding", 2)
        condition = EncodedCaptions(encoder, length, "bf16", lower=True, dim=dim)
        if encoder:
            condition = condition.with_encoder(download(encoder, condition.precision))
        found = {
            "prefix.fc1.weight": weights.take("cls_embedding.cap_proj.fc1.weight"),
            "prefix.fc2.weight": weights.take("cls_embedding.cap_proj.fc2.weight"),
            "prefix.null_states": weights.take("cls_embedding.uncond_embedding"),
        }
        return transformer(weights, layout, condition, heads, found)


def tokenizer(weights: Weights, options: ImportOptions, what: str) -> tuple[Compressor, Preprocessing]:
    """Load the compressor of a transformer, with its preprocessing."""
    model = load_compressor(options, what)
    made, before = model.compressor, model.preprocessing
    height, width = options.size or (before.height, before.width)
    codebook_size, _ = weights.dims("tok_embeddings.weight", 2)
    if (found := made.code_layout(height, width).codebook_size) != codebook_size:
        raise UserError(f"the tokenizer has {found} codes, but the transformer has {codebook_size}")
    return made, Preprocessing(before.channels, height, width)


def transformer(
    weights: Weights, layout: CodeLayout, condition: Condition, heads: int, prefix: dict[str, Weight]
) -> Autoregressive:
    """Load a transformer.

    Args:
        weights: weights of the file.
        layout: layout of the codes.
        condition: condition of the prior.
        heads: attention heads; 0 if not given.
        prefix: weights of the condition's embedding.
    """
    _, width = weights.dims("tok_embeddings.weight", 2)
    layers = weights.count("layers.{}.attention.wqkv.weight")
    hidden, _ = weights.dims("layers.0.feed_forward.w1.weight", 2)
    heads = require_heads(heads)
    backbone = backbone_of(width, layers, heads, hidden, kv_heads_of(weights, width, heads))
    found = {f"transformer.{name}": weight for name, weight in blocks(weights, backbone).items()}
    found |= prefix | {
        "codes.weight": weights.take("tok_embeddings.weight"),
        "head.weight": weights.take("output.weight"),
    }
    return load_module(lambda: Autoregressive(layout, condition, backbone, neighbors=False), found)


def kv_heads_of(weights: Weights, width: int, heads: int) -> int | None:
    """Number of heads of keys and values; None for as many as of queries."""
    rows, _ = weights.dims("layers.0.attention.wqkv.weight", 2)
    return None if rows == 3 * width else (rows - width) * heads // (2 * width)


def backbone_of(width: int, depth: int, heads: int, hidden: int, kv_heads: int | None = None) -> Backbone:
    """Architecture of a transformer, with the ratio that gives the width of the MLP."""
    made = Backbone(
        width,
        depth,
        heads,
        positions="rotary",
        qk_norm=False,
        unplaced="zero",
        kv_heads=kv_heads,
        tied=False,
    )
    return with_mlp_width(made, hidden)


def with_mlp_width(backbone: Backbone, hidden: int) -> Backbone:
    """Set the ratio that gives the width of the MLP."""
    if backbone.mlp_width == hidden:
        return backbone
    ratio = 1.5 * (hidden + 0.5) / backbone.width  # rounding down gives `hidden`
    return replace(backbone, ratio=ratio, rounding=1)


def blocks(weights: Weights, backbone: Backbone) -> dict[str, Weight]:
    """Weights of the layers and of the last normalisation."""
    found = {"norm.weight": weights.take("norm.weight")}
    for number in range(backbone.depth):
        found |= llama_block(weights, f"layers.{number}", f"layers.{number}", backbone)
    return found


def llama_block(weights: Weights, theirs: str, ours: str, backbone: Backbone) -> dict[str, Weight]:
    """Weights of a layer."""
    return {
        f"{ours}.attention.qkv.weight": rotary_qkv(weights.take(f"{theirs}.attention.wqkv.weight"), backbone),
        f"{ours}.attention.out.weight": weights.take(f"{theirs}.attention.wo.weight"),
        f"{ours}.attention_norm.weight": weights.take(f"{theirs}.attention_norm.weight"),
        f"{ours}.feedforward_norm.weight": weights.take(f"{theirs}.ffn_norm.weight"),
        **swiglu(weights, f"{theirs}.feed_forward", f"{ours}.feedforward"),
    }


def rotary_qkv(weight: Weight, backbone: Backbone) -> Weight:
    """Reorder the weights of queries, keys and values.

    Their rotary embedding rotates pairs of neighbouring channels, ours pairs half a head apart.
    """
    keys = backbone.key_value_heads * backbone.head_width
    heads = torch.arange(backbone.width + keys).reshape(-1, backbone.head_width // 2, 2)
    turned = rearrange(heads, "heads plane side -> (heads side plane)")
    order = torch.cat([turned, len(turned) + torch.arange(keys)])
    if weight.shape != (len(order), backbone.width):
        raise UserError(f"{weight.name} must have shape {(len(order), backbone.width)}, got {weight.shape}")
    return weight[order]
