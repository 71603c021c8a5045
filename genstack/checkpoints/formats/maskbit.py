"""MaskBit (Weber et al. 2024, arXiv:2409.16211): VQGAN+ without a codebook, and a BERT over its bits."""

from dataclasses import replace

import torch

from genstack.checkpoints.formats.blocks import bert_backbone, block
from genstack.checkpoints.formats.format import (
    Format,
    Provenance,
    Weight,
    Weights,
    check_codes,
    class_names,
    code_model,
    combine,
    constant,
    load_module,
    preprocessing,
    require_heads,
)
from genstack.checkpoints.formats.pyramid import Names, halves, sizes
from genstack.checkpoints.import_options import ImportOptions
from genstack.compressor import Autoencoder, Compressor, MaskGITNetwork
from genstack.compressor.quantizers import LFQ
from genstack.conditions import ClassLabels
from genstack.errors import UserError
from genstack.layout import CodeLayout
from genstack.model import Model
from genstack.prior.mask_schedule import MaskSchedule
from genstack.prior.masked import Masked
from genstack.prior.options import SamplingOptions
from genstack.prior.order import Confidence
from genstack.prior.symbols import BitTokens
from genstack.transformer.head import SCALE

#: Levels of the decoder are counted in the order of running.
NAMES = Names(up="up.{step}", block="res_blocks.{number}", middle="mid.res_blocks.{number}")
PLACES = "quantize.bits_to_indices"
#: From the layers of a block of the generator to ours, without queries, keys and values.
BERT = {
    "0.mha.out_proj": "attention.out",
    "0.norm": "attention_norm",
    "1.net.0": "feedforward.fc1",
    "1.net.2": "feedforward.fc2",
    "1.norm": "feedforward_norm",
}
STEPS = 64  # sampling steps of the published results
#: Noise of the order, guidance and the exponent of its schedule, by bits (configs/generator of MaskBit).
SAMPLING = {
    10: (10.5, 6.4, 2.5),
    12: (8.2, 7.1, 3.0),
    14: (7.8, 7.1, 3.0),
    16: (7.5, 6.5, 2.5),
    18: (8.5, 5.7, 2.5),
}
DEFAULT_BITS = 14


class MaskBitTokenizer(Format):
    """The tokenizer of 10 to 18 bits; pixels are in [0, 1], and codes are signs, the first the lowest bit."""

    what = "tokenizer of MaskBit"
    provenance = Provenance(
        files="maskbit_tokenizer_{10,12,14,16,18}bit.bin (hub: markweber/maskbit_tokenizer_*bit)",
        source="markweberdev/maskbit",
        licence="Apache 2.0",
        weights="Apache 2.0",
        checked="latents, codes, images",
    )
    required = (
        "encoder.down.0.res_blocks.0.conv1.weight",
        "encoder.mid.res_blocks.0.conv1.weight",
        "decoder.up.0.res_blocks.0.conv1.weight",
        PLACES,
    )
    excluded = ("quantize.embedding.weight",)
    ignored = (r"quantize\.(bits_to_indices|codebook)$",)

    def model(self, weights: Weights, options: ImportOptions) -> Model:
        found = sizes(weights, NAMES)
        places = weights.tensors[weights.prefix + PLACES].flatten().long()
        if not torch.equal(places, 2 ** torch.arange(found.dim)):
            raise UserError(f"{PLACES} must be the powers of two of {found.dim} bits")
        plan = MaskGITNetwork(
            found.dim,
            found.width,
            found.multipliers,
            found.blocks,
            downsampling="convolution" if "encoder.down.0.down_conv.weight" in weights else "average",
            unit=True,
            decoder_blocks=weights.count("decoder.up.0.res_blocks.{}.conv1.weight"),
        )
        made = load_module(
            lambda: Autoencoder(found.channels, plan, LFQ(plan.dim), projection=0), network(weights, plan)
        )
        return Model(made, preprocessing(made, options))


def network(weights: Weights, plan: MaskGITNetwork) -> dict[str, Weight]:
    """The weights of both halves under our names."""
    found = halves(weights, plan, NAMES)
    for step in range(len(plan.multipliers) - 1):
        found |= weights.layer(f"decoder.up.{step}.upsample_conv", f"decoder.upsamples.{step}.conv")
        if plan.downsampling == "convolution":
            found |= weights.layer(f"encoder.down.{step}.down_conv", f"encoder.downsamples.{step}.conv")
    return found


class MaskBitGenerator(Format):
    """The class-conditional transformer, whose tokens are bits, in a file without its tokenizer.

    Published sizes sample in 64 steps; the preset `maskbit` has the guidance of the published results.
    """

    what = "generator of MaskBit"
    provenance = Provenance(
        files="maskbit_generator_{10,12,14,16,18}bit.bin (hub: markweber/maskbit_generator_*bit)",
        source="markweberdev/maskbit",
        licence="Apache 2.0",
        weights="model cards not found; those of the tokenizers: Apache 2.0",
        checked="logits with single groups masked, greedy codes with guidance",
    )
    required = (
        "class_emb.weight",
        "pos_emb",
        "bits_to_indices",
        "transformer.layers.0.0.mha.in_proj_weight",
        "last_layer.0.weight",
        "prediction_layer.weight",
    )
    ignored = (r"bits_to_indices$",)
    options = ("resolution", "heads", "compressor")

    def model(self, weights: Weights, options: ImportOptions) -> Model:
        if "norm_after_transformer.weight" in weights:
            raise UserError("use_prenorm of MaskBit is not supported; no published generator has it")
        name = "input_proj" if "input_proj.weight" in weights else "token_emb"
        bits, depth = weights.dims(f"{name}.weight", 2)[1], weights.dims("bits_to_indices", 1)[0]
        if not depth or bits % depth:
            raise UserError(f"{bits} bits cannot be split into groups of {depth}")
        groups, heads = bits // depth, require_heads(options.heads)
        noise, guidance, power = SAMPLING.get(bits, SAMPLING[DEFAULT_BITS])
        model = code_model(
            options,
            self.what,
            lambda layout: generator(weights, name, layout, heads, Confidence(noise)),
            lambda compressor: with_depth(compressor, groups),
        )
        model.save_preset("maskbit", sampling_options(guidance, power))
        return model


def sampling_options(guidance: float, power: float) -> SamplingOptions:
    """Sampling options of MaskBit: c + s (c - u) with a scale that rises by a cosine."""
    return SamplingOptions(
        guidance=guidance + 1, guidance_schedule="cosine", guidance_power=power, guidance_peak="end"
    )


def with_depth(compressor: Compressor, depth: int) -> Compressor:
    """Read the codes of a compressor as `depth` symbols per position."""
    if not isinstance(compressor, Autoencoder) or not isinstance(compressor.quantizer, LFQ):
        raise UserError("the generator reads bits; give MaskBit's tokenizer as --compressor")
    bits = compressor.quantizer.bits
    if bits % depth:
        raise UserError(f"the tokenizer has {bits} bits, which cannot be split into {depth} groups")
    made = Autoencoder(
        compressor.channels, compressor.network, LFQ(bits, depth), compressor.projection, compressor.output
    )
    made.load_state_dict(compressor.state_dict())
    return made.eval().requires_grad_(False)


def generator(weights: Weights, name: str, layout: CodeLayout, heads: int, order: Confidence) -> Masked:
    """Load the transformer; `name` is the name of the layer that reads bits."""
    places, outputs = weights.dims("pos_emb", 3)[1] - 1, weights.dims("prediction_layer.weight", 2)[0]
    check_codes(layout, places * layout.depth, outputs // layout.depth)
    bert = bert_backbone(
        weights.dims(f"{name}.weight", 2)[0],
        weights.count("transformer.layers.{}.0.mha.in_proj_weight"),
        heads,
        weights.dims("transformer.layers.0.1.net.0.weight", 2)[0],
    )
    found = embeddings(weights, name, layout.depth) | bit_heads(weights, layout)
    for number in range(bert.depth):
        found |= generator_layer(weights, f"transformer.layers.{number}")
    condition = ClassLabels(class_names(weights.dims("class_emb.weight", 2)[0] - 1))
    return load_module(
        lambda: Masked(
            layout,
            condition,
            replace(bert, last="mlp"),
            schedule=MaskSchedule("arccos", STEPS),
            order=order,
            symbols=BitTokens(),
            joint=True,
        ),
        {f"network.{name}": weight for name, weight in found.items()},
    )


def embeddings(weights: Weights, name: str, groups: int) -> dict[str, Weight]:
    """Weights before the layers; `name` is the name of the layer that reads bits."""
    width, _ = weights.dims(f"{name}.weight", 2)
    return {
        "prefix.table.weight": weights.take("class_emb.weight"),
        "codes.weight": weights.take(f"{name}.weight").map(lambda each: each.T / SCALE),
        "mask_token": constant(torch.zeros(groups, width)),
        # The bias of the layer that reads bits is added to every token but the class, which is the last.
        "transformer.position_embedding.parts.0.table.weight": combine(
            lambda rows, bias: torch.cat([rows[0, :-1] + bias, rows[0, -1:]]),
            weights.take("pos_emb"),
            weights.take(f"{name}.bias"),
        ),
        **weights.layer("first_layer.0", "transformer.first_norm"),
    }


def bit_heads(weights: Weights, layout: CodeLayout) -> dict[str, Weight]:
    """Weights after the layers, with a head for each group of bits."""
    found = weights.layer("last_layer.0", "transformer.norm.1")
    found |= weights.layer("last_layer.2", "transformer.norm.3")
    for part, rows in weights.layer("prediction_layer", "").items():
        for group in range(layout.depth):
            chosen = slice(group * layout.codebook_size, (group + 1) * layout.codebook_size)
            found[f"head.heads.{group}{part}"] = rows[chosen]
    return found


def generator_layer(weights: Weights, place: str) -> dict[str, Weight]:
    """Weights of a layer of the BERT, which has the same place in both."""
    found = {
        f"{place}.attention.qkv.{part}": weights.take(f"{place}.0.mha.in_proj_{part}")
        for part in ("weight", "bias")
    }
    return found | block(weights, place, place, BERT)
