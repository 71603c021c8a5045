"""RAR of 1d-tokenizer: an autoregressive transformer in any order (Yu et al. 2024, arXiv:2411.00776)."""

import torch
from torch import Tensor

from genstack.checkpoints.formats.format import (
    Format,
    Weight,
    Weights,
    class_names,
    combined,
    compressor_of,
    constant,
    filled,
    joined,
)
from genstack.checkpoints.import_options import ImportOptions
from genstack.conditions import ClassLabels
from genstack.data.images import Preprocessing
from genstack.errors import UserError
from genstack.layout import CodeLayout
from genstack.model import Model
from genstack.prior.options import SamplingOptions
from genstack.prior.random_order import RandomOrder
from genstack.transformer import Backbone

PREFIX = 2  # tokens before the codes: a register and the class
MORE_PLACES, MORE_STEPS = 1024, 100  # rows of tables that upstream makes and never uses
#: Temperature, guidance and its exponent of the published sizes, by their width (README_RAR.md of upstream).
SAMPLING = {768: (1.0, 16.0, 2.75), 1024: (1.02, 15.5, 2.5), 1280: (1.02, 6.9, 1.5), 1408: (1.02, 8.0, 1.2)}
#: The order of their modulation vectors of a layer, in that of ours: gates, scales, shifts.
MODULATION = (2, 5, 1, 4, 0, 3)


class RAR(Format):
    """The class-conditional transformer, B to XXL; its file does not hold MaskGIT's VQGAN.

    Published sizes get a preset `rar` with the temperature and guidance of their published numbers.
    """

    what = "RAR transformer of 1d-tokenizer"
    marks = (
        "cls_token",
        "embeddings.weight",
        "target_aware_pos_embed",
        "timesteps_embeddings",
        "blocks.0.attn.q_norm.weight",
        "adaln_before_head.adaLN_modulation.1.weight",
    )
    asks = ("resolution", "compressor")

    def model(self, weights: Weights, options: ImportOptions) -> Model:
        before = compressor_of(options, self.what)
        seen = before.preprocessing
        height, width = options.size or (seen.height, seen.width)
        layout = before.compressor.code_layout(height, width)
        prior = transformer(weights, layout)
        seen = Preprocessing(seen.channels, height, width)
        model = Model(before.compressor, seen, prior.condition.names, prior)  # type: ignore[attr-defined]
        if sampling := SAMPLING.get(prior.backbone.width):
            model.save_preset("rar", sampling_options(*sampling))
        return model


def sampling_options(temperature: float, guidance: float, power: float) -> SamplingOptions:
    """The sampling of 1d-tokenizer."""
    return SamplingOptions(
        temperature=temperature,
        guidance=guidance,
        guidance_schedule="cosine",
        guidance_power=power,
        guidance_peak="end",
    )


def transformer(weights: Weights, layout: CodeLayout) -> RandomOrder:
    """The transformer under our names."""
    codes, width = weights.dims("lm_head.weight", 2)
    rows = weights.dims("embeddings.weight", 2)[0]
    places = weights.dims("pos_embed", 3)[1] - MORE_PLACES
    classes = rows - codes - 2  # beside the mask, which is never used, and the null class
    if classes < 1:
        raise UserError(f"a table of {rows} rows does not hold {codes} codes, a mask and classes")
    if (layout.codebook_size, layout.length) != (codes, places):
        raise UserError(
            f"it reads {places} codes of {codes}, and the compressor makes {layout.length} of "
            f"{layout.codebook_size}; name the file of MaskGIT's VQGAN by --compressor, and their image size "
            f"by --resolution"
        )
    backbone = plan(weights, width)
    table = weights.take("embeddings.weight")
    found = {
        "prefix.table.weight": table[codes + 1 :],
        "codes.weight": table[:codes],
        **places_of(weights, layout.length),
        **weights.both("lm_head", "head"),
        **modulation(weights, "adaln_before_head.adaLN_modulation.1", "transformer.norm", (0, 1)),
    }
    for number in range(backbone.depth):
        found |= layer(weights, f"blocks.{number}", f"transformer.layers.{number}", backbone)
    condition = ClassLabels(class_names(classes))
    return filled(lambda: RandomOrder(layout, condition, backbone, anneal=(0.0, 0.0)), found)


def plan(weights: Weights, width: int) -> Backbone:
    """The plan that the tensors follow."""
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

    Ours have one row for all tokens without a position, which is that of their class token. The register
    makes up for the difference.
    """
    own, target, steps = (
        weights.take(name).map(lambda each: each[0])
        for name in ("pos_embed", "target_aware_pos_embed", "timesteps_embeddings")
    )
    first = combined(lambda token, rows: token[0] + rows[:1] - rows[1:2], weights.take("cls_token"), own)
    if min(own.shape[0], target.shape[0]) < length + PREFIX or steps.shape[0] < length + PREFIX:
        raise UserError(f"tables of positions and steps are shorter than {length + PREFIX} rows")
    nowhere = constant(torch.zeros(1, *target.shape[1:]))
    used = slice(PREFIX, length + PREFIX)
    return {
        "transformer.registers.weight": first,
        "transformer.position_embedding.parts.0.table.weight": joined(own[used], own[1:2]),
        "target.parts.0.table.weight": joined(target[used], nowhere),
        "transformer.steps.weight": steps[: length + PREFIX],
    }


def layer(weights: Weights, theirs: str, ours: str, backbone: Backbone) -> dict[str, Weight]:
    """A layer; the weights of its norms become part of its modulation, which is linear in them."""
    norms = [weights.both(f"{theirs}.norm{number}", "") for number in (1, 2)]
    found = modulation(weights, f"{theirs}.adaLN_modulation.1", ours, MODULATION, norms)
    for name, other in {
        "attn.qkv": "attention.qkv",
        "attn.proj": "attention.out",
        "mlp.fc1": "feedforward.fc1",
        "mlp.fc2": "feedforward.fc2",
    }.items():
        found |= weights.both(f"{theirs}.{name}", f"{ours}.{other}")
    for part, other in (("weight", "gain"), ("bias", "bias")):
        queries, keys = (
            weights.take(f"{theirs}.attn.{name}_norm.{part}").map(lambda each: each.repeat(backbone.heads))
            for name in ("q", "k")
        )
        found[f"{ours}.attention.norm.{other}"] = joined(queries, keys)
    return found


def modulation(
    weights: Weights,
    theirs: str,
    ours: str,
    order: tuple[int, ...],
    norms: list[dict[str, Weight]] | None = None,
) -> dict[str, Weight]:
    """The layer that makes modulation vectors.

    Args:
        weights: of the file.
        theirs: its name.
        ours: name of the module of ours that has it.
        order: which of their vectors is each of ours.
        norms: weights g and biases b of the norms that it scales and shifts. Since (g x + b)(1 + s) + t is
            x (1 + s') + t' with s' = g (1 + s) - 1 and t' = b (1 + s) + t, none of them remains.
    """
    found = {}
    for part in ("weight", "bias"):
        source = weights.take(f"{theirs}.{part}")
        if not source.shape or source.shape[0] % len(order):
            raise UserError(f"{source.name} has shape {source.shape}, which is not {len(order)} vectors")
        vectors = source.map(lambda each: torch.stack([each.chunk(len(order))[number] for number in order]))
        if norms:
            gains_biases = [norm[name] for name in (".weight", ".bias") for norm in norms]
            one = 1.0 if part == "bias" else 0.0
            vectors = combined(
                lambda rows, *given, one=one: absorbed(rows, given, one), vectors, *gains_biases
            )
        found[f"{ours}.modulation.linear.{part}"] = vectors.map(lambda each: each.flatten(0, 1))
    return found


def absorbed(rows: Tensor, norms: tuple[Tensor, ...], one: float) -> Tensor:
    """Absorb two norms into rows that make gates, scales and shifts; `one` is 1 for biases, 0 for weights."""
    gains, biases = (torch.stack(norms[part : part + 2]) for part in (0, 2))
    if rows.dim() == 3:
        gains, biases = gains[..., None], biases[..., None]
    gates, scales, shifts = rows.chunk(3)
    return torch.cat([gates, gains * (one + scales) - one, biases * (one + scales) + shifts])
