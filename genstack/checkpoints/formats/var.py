"""VAR: the multi-scale tokenizer, and transformers over its codes (Tian et al. 2024, arXiv:2404.02905)."""

from dataclasses import replace
from math import isqrt

import torch

from genstack.checkpoints.formats.convolutional import Names, network, plan_of
from genstack.checkpoints.formats.format import (
    Format,
    Weight,
    Weights,
    class_names,
    compressor_of,
    constant,
    filled,
    joined,
    preprocessing,
)
from genstack.checkpoints.import_options import ImportOptions, MissingOption
from genstack.compressor import Autoencoder
from genstack.compressor.quantizers import MultiScale
from genstack.conditions import ClassLabels
from genstack.description import build, describe
from genstack.errors import UserError
from genstack.layout import CodeLayout
from genstack.model import Model
from genstack.prior.next_scale import NextScale
from genstack.transformer import Backbone

#: The scales of the published tokenizer by their number, which is all that its file tells.
PUBLISHED = {10: (1, 2, 3, 4, 5, 6, 8, 10, 13, 16)}
HITS = "quantize.ema_vocab_hit_SV"
SMOOTHERS = "quantize.quant_resi.qresi_ls.{}"


class VARTokenizer(Format):
    """taming's network, with one layer for queries, keys and values, around grids of rising size."""

    what = "multi-scale tokenizer of VAR"
    marks = (
        "encoder.down.0.block.0.conv1.weight",
        "quant_conv.weight",
        "quantize.embedding.weight",
        "quantize.quant_resi.qresi_ls.0.weight",
        HITS,
    )
    beside = (r"quantize\.ema_vocab_hit_SV$",)
    asks = ("resolution", "scales")

    def model(self, weights: Weights, options: ImportOptions) -> Model:
        names, apart = Names(), separated(weights)
        plan, channels = plan_of(apart, names)
        size, dim = weights.dims("quantize.embedding.weight", 2)
        count, _ = weights.dims(HITS, 2)
        scales = options.sides or PUBLISHED.get(count, ())
        if len(scales) != count:
            raise MissingOption(
                f"it has {count} scales, whose sides are not in the tensors; "
                f"give all {count} by --scales, such as --scales 1,2,3,4",
                "scales",
            )
        convolutions = weights.count(SMOOTHERS.format("{}") + ".weight")
        side = weights.dims("quant_conv.weight", 4)[-1]
        found = network(apart, names, plan)
        found |= weights.both("quant_conv", "to_quantizer") | weights.both(
            "post_quant_conv", "from_quantizer"
        )
        found["quantizer.codebook.weight"] = weights.take("quantize.embedding.weight")
        for number in range(convolutions):
            found |= weights.both(SMOOTHERS.format(number), f"quantizer.smoothers.{number}")
        made = filled(
            lambda: Autoencoder(
                channels, plan, MultiScale(scales, size, dim, convolutions=convolutions), projection=side
            ),
            found,
        )
        usual = scales[-1] * plan.stride
        return Model(made, preprocessing(made, options, (usual, usual)))


class VARTransformer(Format):
    """The class-conditional transformer; its file does not hold the tokenizer, but says the scales."""

    what = "transformer of VAR"
    marks = (
        "pos_start",
        "pos_1LC",
        "lvl_1L",
        "class_emb.weight",
        "word_embed.weight",
        "blocks.0.attn.scale_mul_1H11",
        "head_nm.ada_lin.1.weight",
    )
    beside = (r"lvl_1L$", r"attn_bias_for_masking$")
    asks = ("compressor",)

    def model(self, weights: Weights, options: ImportOptions) -> Model:
        before = compressor_of(options, self.what)
        if not isinstance(before.compressor, Autoencoder) or not isinstance(
            before.compressor.quantizer, MultiScale
        ):
            raise UserError(f"its compressor is VAR's tokenizer, not a {type(before.compressor).__name__}")
        scales = scales_of(weights)
        made = rescaled(before.compressor, scales)
        stride = (
            before.preprocessing.height
            // made.network.grid(before.preprocessing.height, before.preprocessing.width)[0]
        )
        side = scales[-1] * stride
        prior = transformer(weights, made, made.code_layout(side, side))
        seen = replace(before.preprocessing, height=side, width=side)
        return Model(made, seen, prior.condition.names, prior)  # type: ignore[attr-defined]


def scales_of(weights: Weights) -> tuple[int, ...]:
    """The sides of the grids, from the table that says the grid of each code."""
    weights.dims("lvl_1L", 2)
    levels = weights.tensors["lvl_1L"].flatten().long()
    counts = torch.unique_consecutive(levels, return_counts=True)[1].tolist()
    sides = tuple(isqrt(count) for count in counts)
    in_order = torch.repeat_interleave(torch.arange(len(counts)), torch.tensor(counts, dtype=torch.int64))
    if [side * side for side in sides] != counts or not torch.equal(levels, in_order):
        raise UserError(f"lvl_1L has grids of {counts[:16]} codes, which are not squares in order")
    return sides


def rescaled(made: Autoencoder, scales: tuple[int, ...]) -> Autoencoder:
    """The same tokenizer with grids of other sides, on which no weight depends."""
    described = describe(made)
    described["quantizer"]["scales"] = list(scales)
    again = build(described)
    again.load_state_dict(made.state_dict())
    return again.eval().requires_grad_(False)


def transformer(weights: Weights, made: Autoencoder, layout: CodeLayout) -> NextScale:
    """The transformer under our names."""
    labels, width = weights.dims("class_emb.weight", 2)
    hidden, _ = weights.dims("blocks.0.ffn.fc1.weight", 2)
    shared = "shared_ada_lin.1.weight" in weights
    backbone = Backbone(
        width=width,
        depth=weights.count("blocks.{}.attn.mat_qkv.weight"),
        heads=weights.dims("blocks.0.attn.scale_mul_1H11", 4)[1],
        norm="layer",
        feedforward="gelu_tanh",
        ratio=hidden / width,
        positions="learned",
        qk_norm="unit",
        dropout=0.0,
        bias=True,
        adaln="shared" if shared else "own",
    )
    found = places(weights, width) | {"prefix.table.weight": weights.take("class_emb.weight")}
    found |= weights.both("word_embed", "latent_embedding") | weights.both("head", "head")
    found |= weights.both("head_nm.ada_lin.1", "transformer.norm.modulation.linear")
    if shared:
        found |= weights.both("shared_ada_lin.1", "transformer.shared.linear")
    for number in range(backbone.depth):
        found |= layer(weights, f"blocks.{number}", f"transformer.layers.{number}", shared)

    def prior() -> NextScale:
        built = NextScale(layout, ClassLabels(class_names(labels - 1)), backbone)
        built.attach(made)
        return built

    return filled(prior, found)


def places(weights: Weights, width: int) -> dict[str, Weight]:
    """The vectors of grids and of places; ours end with one for tokens without a place, which none is."""
    start, table = weights.take("pos_start"), weights.take("pos_1LC")
    if (
        len(table.shape) != 3
        or table.shape[0] != 1
        or start.shape != (1, 1, width)
        or table.shape[2] != width
    ):
        raise UserError(f"pos_start and pos_1LC have shapes {start.shape} and {table.shape}")

    nowhere = constant(torch.zeros(1, width))
    rows = table.map(lambda each: torch.cat([each[0, :1] + start.tensor[0], each[0, 1:]]))
    return {
        "transformer.position_embedding.parts.0.table.weight": joined(
            weights.take("lvl_embed.weight"), nowhere
        ),
        "transformer.position_embedding.parts.1.table.weight": joined(rows, nowhere),
    }


def layer(weights: Weights, theirs: str, ours: str, shared: bool) -> dict[str, Weight]:
    """A layer, whose norms the class steers."""
    biases = [weights.take(f"{theirs}.attn.{name}") for name in ("q_bias", "zero_k_bias", "v_bias")]
    scale = weights.take(f"{theirs}.attn.scale_mul_1H11")
    found = {
        f"{ours}.attention.qkv.weight": weights.take(f"{theirs}.attn.mat_qkv.weight"),
        f"{ours}.attention.qkv.bias": joined(*biases),
        f"{ours}.attention.norm.scale": scale.map(lambda each: each.reshape(*scale.shape[1:2])),
    }
    found |= weights.both(f"{theirs}.attn.proj", f"{ours}.attention.out")
    found |= weights.both(f"{theirs}.ffn.fc1", f"{ours}.feedforward.fc1")
    found |= weights.both(f"{theirs}.ffn.fc2", f"{ours}.feedforward.fc2")
    if shared:
        offset = weights.take(f"{theirs}.ada_gss")
        return found | {f"{ours}.modulation.offset": offset.map(lambda each: each.reshape(*offset.shape[2:]))}
    return found | weights.both(f"{theirs}.ada_lin.1", f"{ours}.modulation.linear")


def separated(weights: Weights) -> Weights:
    """The same weights with queries, keys and values as three layers."""
    tensors = dict(weights.tensors)
    for name, tensor in weights.tensors.items():
        place, fused, part = name.partition(".qkv.")
        if not fused:
            continue
        if not tensor.dim() or len(tensor) % 3:
            raise UserError(f"{name} has shape {tuple(tensor.shape)}, which is not three layers in one")
        weights.taken.add(name)
        for letter, third in zip("qkv", tensor.tensor_split(3), strict=True):
            tensors[f"{place}.{letter}.{part}"] = third
    return Weights(tensors, weights.config, weights.prefix, weights.taken)
