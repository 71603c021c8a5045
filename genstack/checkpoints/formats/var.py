"""VAR (Tian et al. 2024, arXiv:2404.02905): the multi-scale tokenizer, and transformers over its codes."""

from dataclasses import replace
from math import isqrt

import torch

from genstack.checkpoints.formats.convolutional import Names, network, plan_of
from genstack.checkpoints.formats.format import (
    Format,
    Provenance,
    Weight,
    Weights,
    class_names,
    concatenate,
    constant,
    load_compressor,
    load_module,
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

#: Scales of the published tokenizer by their number, since its file only has the number.
PUBLISHED = {10: (1, 2, 3, 4, 5, 6, 8, 10, 13, 16)}
HITS = "quantize.ema_vocab_hit_SV"
SMOOTHERS = "quantize.quant_resi.qresi_ls.{}"


class VARTokenizer(Format):
    """The network of taming, with one layer for queries, keys and values, and multi-scale codes."""

    what = "multi-scale tokenizer of VAR"
    provenance = Provenance(
        files="vae_ch160v4096z32.pth (hub: FoundationVision/var)",
        source="FoundationVision/VAR",
        licence="MIT",
        weights="MIT",
        checked="codes and images of all scales, inputs of the transformer",
    )
    required = (
        "encoder.down.0.block.0.conv1.weight",
        "quant_conv.weight",
        "quantize.embedding.weight",
        "quantize.quant_resi.qresi_ls.0.weight",
        HITS,
    )
    ignored = (r"quantize\.ema_vocab_hit_SV$",)
    options = ("resolution", "scales")

    def model(self, weights: Weights, options: ImportOptions) -> Model:
        names, split = Names(), split_qkv(weights)
        plan, channels = plan_of(split, names)
        size, dim = weights.dims("quantize.embedding.weight", 2)
        count, _ = weights.dims(HITS, 2)
        scales = options.sides or PUBLISHED.get(count, ())
        if len(scales) != count:
            raise MissingOption(
                f"it has {count} scales, whose sides are not in the file; "
                f"give all {count} as --scales, such as --scales 1,2,3,4",
                "scales",
            )
        convolutions = weights.count(SMOOTHERS.format("{}") + ".weight")
        side = weights.dims("quant_conv.weight", 4)[-1]
        found = network(split, names, plan)
        found |= weights.layer("quant_conv", "to_quantizer") | weights.layer(
            "post_quant_conv", "from_quantizer"
        )
        found["quantizer.codebook.weight"] = weights.take("quantize.embedding.weight")
        for number in range(convolutions):
            found |= weights.layer(SMOOTHERS.format(number), f"quantizer.smoothers.{number}")
        made = load_module(
            lambda: Autoencoder(
                channels, plan, MultiScale(scales, size, dim, convolutions=convolutions), projection=side
            ),
            found,
        )
        usual = scales[-1] * plan.stride
        return Model(made, preprocessing(made, options, (usual, usual)))


class VARTransformer(Format):
    """The class-conditional transformer, in a file with the scales but without the tokenizer."""

    what = "transformer of VAR"
    provenance = Provenance(
        files="var_d{16,20,24,30,36}.pth (hub: FoundationVision/var)",
        source="FoundationVision/VAR",
        licence="MIT",
        weights="MIT",
        checked="logits, greedy codes with guidance, shared adaLN",
    )
    required = (
        "pos_start",
        "pos_1LC",
        "lvl_1L",
        "class_emb.weight",
        "word_embed.weight",
        "blocks.0.attn.scale_mul_1H11",
        "head_nm.ada_lin.1.weight",
    )
    ignored = (r"lvl_1L$", r"attn_bias_for_masking$")
    options = ("compressor",)

    def model(self, weights: Weights, options: ImportOptions) -> Model:
        before = load_compressor(options, self.what)
        if not isinstance(before.compressor, Autoencoder) or not isinstance(
            before.compressor.quantizer, MultiScale
        ):
            raise UserError(
                f"--compressor must be a tokenizer of VAR, got a {type(before.compressor).__name__}"
            )
        scales = scales_of(weights)
        made = with_scales(before.compressor, scales)
        stride = (
            before.preprocessing.height
            // made.network.grid(before.preprocessing.height, before.preprocessing.width)[0]
        )
        side = scales[-1] * stride
        prior = transformer(weights, made, made.code_layout(side, side))
        seen = replace(before.preprocessing, height=side, width=side)
        return Model(made, seen, prior.condition.names, prior)  # type: ignore[attr-defined]


def scales_of(weights: Weights) -> tuple[int, ...]:
    """Sides of the grids, from the table with the grid of each code."""
    weights.dims("lvl_1L", 2)
    levels = weights.tensors["lvl_1L"].flatten().long()
    counts = torch.unique_consecutive(levels, return_counts=True)[1].tolist()
    sides = tuple(isqrt(count) for count in counts)
    in_order = torch.repeat_interleave(torch.arange(len(counts)), torch.tensor(counts, dtype=torch.int64))
    if [side * side for side in sides] != counts or not torch.equal(levels, in_order):
        raise UserError(f"grids in lvl_1L must be squares in order, got {counts[:16]} codes")
    return sides


def with_scales(made: Autoencoder, scales: tuple[int, ...]) -> Autoencoder:
    """Change the scales of a tokenizer; its weights do not depend on them."""
    described = describe(made)
    described["quantizer"]["scales"] = list(scales)
    again = build(described)
    again.load_state_dict(made.state_dict())
    return again.eval().requires_grad_(False)


def transformer(weights: Weights, made: Autoencoder, layout: CodeLayout) -> NextScale:
    """Load the transformer."""
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
    found = position_embeddings(weights, width) | {"prefix.table.weight": weights.take("class_emb.weight")}
    found |= weights.layer("word_embed", "latent_embedding") | weights.layer("head", "head")
    found |= weights.layer("head_nm.ada_lin.1", "transformer.norm.modulation.linear")
    if shared:
        found |= weights.layer("shared_ada_lin.1", "transformer.shared.linear")
    for number in range(backbone.depth):
        found |= layer(weights, f"blocks.{number}", f"transformer.layers.{number}", shared)

    def prior() -> NextScale:
        built = NextScale(layout, ClassLabels(class_names(labels - 1)), backbone)
        built.attach(made)
        return built

    return load_module(prior, found)


def position_embeddings(weights: Weights, width: int) -> dict[str, Weight]:
    """Embeddings of grids and positions; ours end with one for tokens without a position."""
    start, table = weights.take("pos_start"), weights.take("pos_1LC")
    if (
        len(table.shape) != 3
        or table.shape[0] != 1
        or start.shape != (1, 1, width)
        or table.shape[2] != width
    ):
        raise UserError(f"pos_start {start.shape} and pos_1LC {table.shape} have incompatible shapes")

    unplaced = constant(torch.zeros(1, width))
    rows = table.map(lambda each: torch.cat([each[0, :1] + start.tensor[0], each[0, 1:]]))
    return {
        "transformer.position_embedding.parts.0.table.weight": concatenate(
            weights.take("lvl_embed.weight"), unplaced
        ),
        "transformer.position_embedding.parts.1.table.weight": concatenate(rows, unplaced),
    }


def layer(weights: Weights, theirs: str, ours: str, shared: bool) -> dict[str, Weight]:
    """Weights of a layer with adaLN."""
    biases = [weights.take(f"{theirs}.attn.{name}") for name in ("q_bias", "zero_k_bias", "v_bias")]
    scale = weights.take(f"{theirs}.attn.scale_mul_1H11")
    found = {
        f"{ours}.attention.qkv.weight": weights.take(f"{theirs}.attn.mat_qkv.weight"),
        f"{ours}.attention.qkv.bias": concatenate(*biases),
        f"{ours}.attention.norm.scale": scale.map(lambda each: each.reshape(*scale.shape[1:2])),
    }
    found |= weights.layer(f"{theirs}.attn.proj", f"{ours}.attention.out")
    found |= weights.layer(f"{theirs}.ffn.fc1", f"{ours}.feedforward.fc1")
    found |= weights.layer(f"{theirs}.ffn.fc2", f"{ours}.feedforward.fc2")
    if shared:
        offset = weights.take(f"{theirs}.ada_gss")
        return found | {f"{ours}.modulation.offset": offset.map(lambda each: each.reshape(*offset.shape[2:]))}
    return found | weights.layer(f"{theirs}.ada_lin.1", f"{ours}.modulation.linear")


def split_qkv(weights: Weights) -> Weights:
    """Split layers for queries, keys and values into three."""
    tensors = dict(weights.tensors)
    for name, tensor in weights.tensors.items():
        place, fused, part = name.partition(".qkv.")
        if not fused:
            continue
        if not tensor.dim() or len(tensor) % 3:
            raise UserError(f"{name} must have a multiple of 3 rows, got shape {tuple(tensor.shape)}")
        weights.taken.add(name)
        for letter, third in zip("qkv", tensor.tensor_split(3), strict=True):
            tensors[f"{place}.{letter}.{part}"] = third
    return Weights(tensors, weights.config, weights.prefix, weights.taken)
