"""RAR of 1d-tokenizer: an autoregressive transformer in any order (Yu et al. 2024, arXiv:2411.00776)."""

import torch

from genstack.checkpoints.formats.blocks import TIMM, TokenTable, block
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
)
from genstack.checkpoints.formats.modulation import LAYER, modulation
from genstack.checkpoints.import_options import ImportOptions
from genstack.conditions import ClassLabels
from genstack.errors import UserError
from genstack.layout import CodeLayout
from genstack.model import Model
from genstack.prior.options import SamplingOptions
from genstack.prior.random_order import RandomOrder
from genstack.transformer import Backbone

PREFIX = 2  # tokens before the codes: a register and the class
MORE_PLACES, MORE_STEPS = 1024, 100  # rows of tables that 1d-tokenizer does not use
#: Temperature, guidance and its exponent of the published sizes, by width (README_RAR.md of 1d-tokenizer).
SAMPLING = {768: (1.0, 16.0, 2.75), 1024: (1.02, 15.5, 2.5), 1280: (1.02, 6.9, 1.5), 1408: (1.02, 8.0, 1.2)}


class RAR(Format):
    """The class-conditional transformer, B to XXL, in a file without MaskGIT's VQGAN.

    Published sizes get a preset `rar` with the temperature and guidance of the published results.
    """

    what = "RAR transformer of 1d-tokenizer"
    provenance = Provenance(
        files="rar_{b,l,xl,xxl}.bin (hub: yucornetto/RAR)",
        source="bytedance/1d-tokenizer",
        licence="Apache 2.0",
        weights="Apache 2.0",
        checked="logits in two orders, greedy codes with guidance",
    )
    required = (
        "cls_token",
        "embeddings.weight",
        "target_aware_pos_embed",
        "timesteps_embeddings",
        "blocks.0.attn.q_norm.weight",
        "adaln_before_head.adaLN_modulation.1.weight",
    )
    options = ("resolution", "compressor")

    def model(self, weights: Weights, options: ImportOptions) -> Model:
        model = code_model(options, self.what, lambda layout: transformer(weights, layout))
        if sampling := SAMPLING.get(weights.dims("lm_head.weight", 2)[1]):
            model.save_preset("rar", sampling_options(*sampling))
        return model


def sampling_options(temperature: float, guidance: float, power: float) -> SamplingOptions:
    """Sampling options of 1d-tokenizer."""
    return SamplingOptions(
        temperature=temperature,
        guidance=guidance,
        guidance_schedule="cosine",
        guidance_power=power,
        guidance_peak="end",
    )


def transformer(weights: Weights, layout: CodeLayout) -> RandomOrder:
    """Load the transformer."""
    codes, width = weights.dims("lm_head.weight", 2)
    places = weights.dims("pos_embed", 3)[1] - MORE_PLACES
    weights.dims("embeddings.weight", 2)
    check_codes(layout, places, codes)
    backbone, table = plan(weights, width), TokenTable(weights.take("embeddings.weight"), codes)
    found = {
        **table.weights,
        **places_of(weights, layout.length),
        **weights.layer("lm_head", "head"),
        **modulation(weights, "adaln_before_head.adaLN_modulation.1", "transformer.norm", (0, 1)),
    }
    for number in range(backbone.depth):
        found |= layer(weights, f"blocks.{number}", f"transformer.layers.{number}", backbone)
    condition = ClassLabels(class_names(table.classes))
    return load_module(lambda: RandomOrder(layout, condition, backbone, anneal=(0.0, 0.0)), found)


def plan(weights: Weights, width: int) -> Backbone:
    """Architecture of the tensors."""
    head_width = weights.dims("blocks.0.attn.q_norm.weight", 1)[0]
    if not head_width or width % head_width:
        raise UserError(f"heads of {head_width} channels do not divide a width of {width}")
    return Backbone(
        width=width,
        depth=weights.count("blocks.{}.attn.qkv.weight"),
        heads=width // head_width,
        norm="layer",
        feedforward="gelu",
        ratio=weights.dims("blocks.0.mlp.fc1.weight", 2)[0] / width,
        positions="learned",
        qk_norm="layer",
        bias=True,
        adaln="own",
        adaln_steps=True,
        tied=False,
        epsilon=1e-6,
        registers=1,
        head_bias="lm_head.bias" in weights,
    )


def places_of(weights: Weights, length: int) -> dict[str, Weight]:
    """Tables of positions, targets and steps.

    Our tables have one row for all tokens without a position; it holds the row of their class token. The
    register contains the difference.
    """
    own, target, steps = (
        weights.take(name).map(lambda each: each[0])
        for name in ("pos_embed", "target_aware_pos_embed", "timesteps_embeddings")
    )
    first = combine(lambda token, rows: token[0] + rows[:1] - rows[1:2], weights.take("cls_token"), own)
    if min(own.shape[0], target.shape[0]) < length + PREFIX or steps.shape[0] < length + PREFIX:
        raise UserError(f"tables of positions and steps are shorter than {length + PREFIX} rows")
    nowhere = constant(torch.zeros(1, *target.shape[1:]))
    used = slice(PREFIX, length + PREFIX)
    return {
        "transformer.registers.weight": first,
        "transformer.position_embedding.parts.0.table.weight": concatenate(own[used], own[1:2]),
        "target.parts.0.table.weight": concatenate(target[used], nowhere),
        "transformer.steps.weight": steps[: length + PREFIX],
    }


def layer(weights: Weights, theirs: str, ours: str, backbone: Backbone) -> dict[str, Weight]:
    """Weights of a layer."""
    norms = (f"{theirs}.norm1", f"{theirs}.norm2")
    found = modulation(weights, f"{theirs}.adaLN_modulation.1", ours, LAYER, norms)
    found |= block(weights, theirs, ours, TIMM)
    for part, other in (("weight", "gain"), ("bias", "bias")):
        queries, keys = (
            weights.take(f"{theirs}.attn.{name}_norm.{part}").map(lambda each: each.repeat(backbone.heads))
            for name in ("q", "k")
        )
        found[f"{ours}.attention.norm.{other}"] = concatenate(queries, keys)
    return found
