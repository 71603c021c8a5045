"""Halton-MaskGIT (Besnier et al. 2025, arXiv:2503.17076): masked transformers over LlamaGen's codes."""

from math import isqrt

import torch

from genstack.checkpoints.formats.blocks import swiglu
from genstack.checkpoints.formats.format import (
    Format,
    Provenance,
    Weight,
    Weights,
    class_names,
    code_model,
    concatenate,
    constant,
    load_module,
    require_heads,
)
from genstack.checkpoints.formats.llamagen import with_mlp_width
from genstack.checkpoints.formats.modulation import LAYER, modulation
from genstack.checkpoints.import_options import ImportOptions
from genstack.conditions import ClassLabels
from genstack.errors import UserError
from genstack.layout import CodeLayout
from genstack.model import Model
from genstack.prior.mask_schedule import MaskSchedule
from genstack.prior.masked import Masked
from genstack.prior.order import Halton
from genstack.transformer import Backbone
from genstack.transformer.head import SCALE

STEPS = 32  # sampling steps of the project's example


class HaltonMaskGIT(Format):
    """The class-conditional transformer, in a file without LlamaGen's tokenizer."""

    what = "transformer of Halton-MaskGIT"
    provenance = Provenance(
        files="ImageNet_256_{tiny,small,base}.pth, ImageNet_384_{small,base,large}.pth (hub: "
        "llvictorll/Halton-MaskGIT)",
        source="valeoai/Halton-MaskGIT",
        licence="MIT",
        weights="MIT",
        checked="logits, order, greedy codes",
    )
    required = (
        "cls_emb.weight",
        "tok_emb.weight",
        "pos_emb.weight",
        "transformer.layers.0.attn.wq.weight",
        "last_norm.norm_final.weight",
        "head.bias",
    )
    options = ("resolution", "heads", "compressor")

    def model(self, weights: Weights, options: ImportOptions) -> Model:
        return code_model(
            options, self.what, lambda layout: transformer(weights, layout, require_heads(options.heads))
        )


def transformer(weights: Weights, layout: CodeLayout, heads: int) -> Masked:
    """Load the transformer."""
    rows, width = weights.dims("tok_emb.weight", 2)
    places, _ = weights.dims("pos_emb.weight", 2)
    side = isqrt(places)
    if side**2 != places or layout.grids != ((side, side),) or layout.codebook_size != rows - 1:
        raise UserError(
            f"it reads {side}x{side} codes of {rows - 1}; its compressor, LlamaGen's tokenizer, makes "
            f"{layout.representation} on {layout.grids[-1]}; choose another --compressor or --resolution"
        )
    backbone = plan(weights, width, heads)
    table = weights.take("tok_emb.weight")
    if not torch.equal(weights.take("head.weight").tensor, table.tensor):
        raise UserError("head.weight and tok_emb.weight differ; only tied weights are supported")
    labels = weights.take("cls_emb.weight")
    nowhere = constant(torch.zeros(1, width))
    found = {
        "prefix.table.weight": labels,
        "codes.weight": table.map(lambda each: each / SCALE),
        "head.bias": weights.take("head.bias"),
        "transformer.position_embedding.parts.0.table.weight": concatenate(
            weights.take("pos_emb.weight"), nowhere
        ),
        **modulation(weights, "last_norm.mlp.1", "transformer.norm", (1, 0), ("last_norm.norm_final",)),
    }
    if backbone.registers:
        found["transformer.registers.weight"] = weights.take("reg_tokens.weight")
    for number in range(backbone.depth):
        found |= layer(weights, f"transformer.layers.{number}")
    found = {f"network.{name}": weight for name, weight in found.items()}
    condition = ClassLabels(class_names(labels.shape[0] - 1))

    def prior() -> Masked:
        return Masked(
            layout,
            condition,
            backbone,
            schedule=MaskSchedule("arccos", STEPS, rounded="kept"),
            order=Halton(),
            predict_mask=True,
        )

    return load_module(prior, found)


def plan(weights: Weights, width: int, heads: int) -> Backbone:
    """Architecture of the tensors; heads may be narrower than the width divided by their number."""
    channels, _ = weights.dims("transformer.layers.0.attn.wq.weight", 2)
    if channels % heads:
        raise UserError(f"queries of {channels} channels are not a multiple of {heads} heads")
    backbone = Backbone(
        width=width,
        depth=weights.count("transformer.layers.{}.attn.wq.weight"),
        heads=heads,
        head_dim=None if channels == width else channels // heads,
        positions="learned",
        qk_norm="width",
        adaln="own",
        epsilon=1e-5,
        registers=weights.dims("reg_tokens.weight", 2)[0] if "reg_tokens.weight" in weights else 0,
        prefix=False,
        head_bias=True,
    )
    return with_mlp_width(backbone, weights.dims("transformer.layers.0.ff.w1.weight", 2)[0])


def layer(weights: Weights, place: str) -> dict[str, Weight]:
    """Weights of a layer, which has the same name in both."""
    found = modulation(weights, f"{place}.mlp.1", place, LAYER, (f"{place}.ln1", f"{place}.ln2"))
    take = {name: weights.take(f"{place}.{name}.weight") for name in PARTS}
    return found | {
        f"{place}.attention.qkv.weight": concatenate(take["attn.wq"], take["attn.wk"], take["attn.wv"]),
        f"{place}.attention.out.weight": take["attn.wo"],
        **swiglu(weights, f"{place}.ff", f"{place}.feedforward"),
    }


PARTS = ("attn.wq", "attn.wk", "attn.wv", "attn.wo")
