"""Masked transformers of 1d-tokenizer over TiTok's codes (Yu et al. 2024, arXiv:2406.07550)."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import torch

from genstack.checkpoints.formats.blocks import TIMM, TokenTable, bert_backbone, block, gpt_backbone
from genstack.checkpoints.formats.format import (
    Format,
    Provenance,
    Weight,
    Weights,
    check_codes,
    class_names,
    code_model,
    combine,
    concatenate,
    constant,
    load_module,
    require_heads,
)
from genstack.checkpoints.formats.titok import settings_in
from genstack.checkpoints.import_options import ImportOptions
from genstack.conditions import ClassLabels
from genstack.errors import UserError
from genstack.layout import CodeLayout
from genstack.model import Model
from genstack.prior.mask_schedule import MaskSchedule
from genstack.prior.masked import Masked
from genstack.prior.options import SamplingOptions
from genstack.prior.order import Confidence
from genstack.transformer import Backbone

#: From the layers of a block of transformers' BERT to ours, without queries, keys and values.
BERT = {
    "attention.output.dense": "attention.out",
    "attention.output.LayerNorm": "attention_norm",
    "intermediate.dense": "feedforward.fc1",
    "output.dense": "feedforward.fc2",
    "output.LayerNorm": "feedforward_norm",
}
#: Defaults of 1d-tokenizer: noise, guidance, its schedule, the exponent of power-cosine, and steps.
SAMPLING = {
    "randomize_temperature": 4.5,
    "guidance_scale": 3.0,
    "guidance_decay": "constant",
    "guidance_scale_pow": 3.0,
    "num_steps": 8,
}


class TiTokViT(Format):
    """The generator of L-32 and B-64, a BERT, in a file without its tokenizer.

    Sampling settings in `config.json` become the preset `titok`.
    """

    what = "TiTok generator of 1d-tokenizer (ViT)"
    provenance = Provenance(
        files="generator_titok_{l32,b64}.bin (hub: fun-research/TiTok); generator_titok_{l32,b64}_imagenet "
        "(hub: yucornetto)",
        source="bytedance/1d-tokenizer",
        licence="Apache 2.0",
        weights="Apache 2.0",
        checked="logits, greedy codes of all schedules of guidance",
    )
    required = (
        "model.embeddings.word_embeddings.weight",
        "model.embeddings.token_type_embeddings.weight",
        "model.encoder.layer.0.attention.self.query.weight",
        "model.lm_head.weight",
    )
    ignored = (r"model\.embeddings\.position_ids$",)
    options = ("heads", "compressor")

    def model(self, weights: Weights, options: ImportOptions) -> Model:
        return generator(weights.inside("model."), weights.config, options, self.what, vit)


class TiTokUViT(Format):
    """The generator of S-128, a U-ViT, in a file without its tokenizer.

    Sampling settings in `config.json` become the preset `titok`.
    """

    what = "TiTok generator of 1d-tokenizer (UViT)"
    provenance = Provenance(
        files="generator_titok_s128.bin (hub: fun-research/TiTok); generator_titok_s128_imagenet (hub: "
        "yucornetto)",
        source="bytedance/1d-tokenizer",
        licence="Apache 2.0",
        weights="Apache 2.0",
        checked="logits, greedy codes of all schedules of guidance",
    )
    required = (
        "embeddings.weight",
        "pos_embed",
        "mid_block.attn.qkv.weight",
        "out_blocks.0.skip_linear.weight",
        "lm_head.weight",
    )
    options = ("heads", "compressor")

    def model(self, weights: Weights, options: ImportOptions) -> Model:
        return generator(weights, weights.config, options, self.what, uvit)


#: From weights and heads to the backbone, tables of codes and positions, and the other weights.
Reader = Callable[[Weights, int], tuple[Backbone, Weight, Weight, dict[str, Weight]]]


def generator(
    weights: Weights, config: Mapping[str, Any], options: ImportOptions, what: str, read: Reader
) -> Model:
    """Load the tokenizer and the transformer; `config` may hold the number of heads and sampling settings."""
    settings = settings_in(config, "generator")
    heads = options.heads or settings.get("num_attention_heads", 0)
    if not isinstance(heads, int) or heads < 0:
        raise UserError(f"num_attention_heads in config.json must be a number, got {str(heads)[:40]}")
    order = Confidence(float(settings.get("randomize_temperature", 4.5)), score="logit")
    parts = read(weights, require_heads(heads))
    model = code_model(options, what, lambda layout: transformer(weights, layout, order, *parts))
    if "guidance_scale" in settings:
        model.save_preset("titok", sampling_options(settings))
    return model


def sampling_options(settings: Mapping[str, Any]) -> SamplingOptions:
    """Sampling options of 1d-tokenizer: c + s (c - u), or u + s (c - u) with the schedule power-cosine."""
    noise, scale, decay, power, steps = ({**SAMPLING, **settings}[name] for name in SAMPLING)
    schedules = {"constant": "constant", "linear": "linear", "power-cosine": "cosine"}
    if decay not in schedules:
        raise UserError(f"guidance_decay must be one of {', '.join(schedules)}, got {str(decay)[:40]!r}")
    return SamplingOptions(
        temperature=float(noise),
        temperature_schedule="linear",
        guidance=float(scale) + (decay != "power-cosine"),
        guidance_schedule=schedules[decay],  # type: ignore[arg-type]
        guidance_power=float(power) if decay == "power-cosine" else 1.0,
        guidance_peak="end",
        steps=int(steps),
    )


def transformer(
    weights: Weights,
    layout: CodeLayout,
    order: Confidence,
    backbone: Backbone,
    table: Weight,
    places: Weight,
    found: dict[str, Weight],
) -> Masked:
    """Load the transformer, with the mask schedule of 1d-tokenizer.

    `table` holds the embeddings of codes, mask, classes and null class. `places` holds the embeddings of the
    positions of class and codes. `found` holds the weights of the transformer.
    """
    codes, _ = weights.dims("lm_head.weight", 2)
    check_codes(layout, places.shape[0] - 1, codes)
    tokens = TokenTable(table, codes)
    found |= {"position_embedding.parts.0.table.weight": concatenate(places[1:], places[:1])}
    found = {f"transformer.{name}": weight for name, weight in found.items()}
    found |= weights.layer("lm_head", "head") | tokens.weights | {"mask_token": tokens.mask}
    found = {f"network.{name}": weight for name, weight in found.items()}
    condition = ClassLabels(class_names(tokens.classes))
    return load_module(lambda: Masked(layout, condition, backbone, MaskSchedule("arccos"), order), found)


def vit(weights: Weights, heads: int) -> tuple[Backbone, Weight, Weight, dict[str, Weight]]:
    """Weights of the BERT; the embedding of the first token type is added to the position embeddings."""
    _, width = weights.dims("embeddings.word_embeddings.weight", 2)
    backbone = bert_backbone(
        width,
        weights.count("encoder.layer.{}.attention.self.query.weight"),
        heads,
        weights.dims("encoder.layer.0.intermediate.dense.weight", 2)[0],
    )
    found = weights.layer("embeddings.LayerNorm", "first_norm")
    for number in range(backbone.depth):
        theirs, ours = f"encoder.layer.{number}", f"layers.{number}"
        for part in ("weight", "bias"):
            names = (f"{theirs}.attention.self.{name}.{part}" for name in ("query", "key", "value"))
            found[f"{ours}.attention.qkv.{part}"] = concatenate(*map(weights.take, names))
        found |= block(weights, theirs, ours, BERT)
    rows, kinds = (
        weights.take(f"embeddings.{name}_embeddings.weight") for name in ("position", "token_type")
    )
    places = combine(lambda each, kind: each + kind[:1], rows, kinds)
    return backbone, weights.take("embeddings.word_embeddings.weight"), places, found


def uvit(weights: Weights, heads: int) -> tuple[Backbone, Weight, Weight, dict[str, Weight]]:
    """Weights of the U-ViT, whose second half of layers has skip connections from the first."""
    _, width = weights.dims("embeddings.weight", 2)
    half = weights.count("in_blocks.{}.attn.qkv.weight")
    hidden, _ = weights.dims("mid_block.mlp.fc1.weight", 2)
    backbone = replace(gpt_backbone(width, 2 * half + 1, heads, hidden), head_bias=True, skips=True)
    found = weights.layer("norm", "norm")
    blocks = [f"in_blocks.{number}" for number in range(half)] + ["mid_block"]
    for number, theirs in enumerate([*blocks, *(f"out_blocks.{number}" for number in range(half))]):
        norms = {"norm1": "attention_norm", "norm2": "feedforward_norm"}
        found |= block(weights, theirs, f"layers.{number}", TIMM | norms)
        bias = f"layers.{number}.attention.qkv.bias"
        found.setdefault(bias, constant(torch.zeros(3 * width)))  # theirs have none
    for number in range(half):
        found |= weights.layer(f"out_blocks.{number}.skip_linear", f"skips.{number}")
    places = weights.take("pos_embed").map(lambda each: each[0])
    return backbone, weights.take("embeddings.weight"), places, found
