"""DALL-E's discrete VAE as the package dall_e publishes it (Ramesh et al. 2021, arXiv:2102.12092)."""

from collections.abc import Mapping
from typing import Any

import torch
from torch.nn.functional import pad

from genstack.checkpoints.formats.format import (
    Format,
    Provenance,
    Weight,
    Weights,
    constant,
    load_module,
    preprocessing,
)
from genstack.checkpoints.import_options import ImportOptions
from genstack.compressor import DVAE, Autoencoder
from genstack.compressor.output import LocationAndScale
from genstack.compressor.quantizers import Gumbel
from genstack.errors import UserError
from genstack.model import Model

INPUT, OUTPUT = "blocks.input", "blocks.output.conv"


class DallE(Format):
    """A folder with `encoder.pkl` and `decoder.pkl`, as pickled modules or as state dicts."""

    what = "discrete VAE of DALL-E, a folder with encoder.pkl and decoder.pkl"
    provenance = Provenance(
        files="encoder.pkl, decoder.pkl (https://cdn.openai.com/dall-e/)",
        source="openai/DALL-E",
        licence="modified MIT",
        weights="modified MIT",
        checked="logits, codes, statistics of pixels, images",
    )
    required = (
        "encoder.blocks.input.w",
        "encoder.blocks.output.conv.w",
        "decoder.blocks.input.w",
        "decoder.blocks.output.conv.w",
    )

    def fits(self, names: Mapping[str, Any]) -> bool:
        return super().fits(names) or f"{INPUT}.w" in names  # one half, for a better message

    def model(self, weights: Weights, options: ImportOptions) -> Model:
        if f"{INPUT}.w" in weights:
            raise UserError(
                "one half of DALL-E's discrete VAE; put both into a folder, as encoder.pkl and decoder.pkl, "
                "and give the folder"
            )
        encoder, decoder = weights.inside("encoder."), weights.inside("decoder.")
        plan, channels = plan_of(encoder, decoder)
        logits, rows = encoder.take(f"{OUTPUT}.w"), decoder.take(f"{INPUT}.w")
        codebook_size, entrance = logits.shape[0], plan.entrance
        if len(logits.shape) != 4 or rows.shape != (entrance, codebook_size, 1, 1) or entrance > plan.dim:
            raise UserError(
                f"{logits.name} {logits.shape} and {rows.name} {rows.shape} have incompatible shapes"
            )

        found = blocks(encoder, plan, "encoder") | blocks(decoder, plan, "decoder")
        found |= layer(encoder, INPUT, "encoder.first") | layer(decoder, OUTPUT, "decoder.last")
        # The decoder's first convolution reads one-hot codes, so its columns are rows of our codebook, padded
        # with zeros that our first convolution drops.
        found |= {
            "quantizer.logits.weight": logits.map(lambda each: each.reshape(codebook_size, logits.shape[1])),
            "quantizer.logits.bias": encoder.take(f"{OUTPUT}.b"),
            "quantizer.rows": rows.map(lambda each: pad(each.flatten(1).T, (0, plan.dim - entrance))),
            "decoder.first.weight": constant(torch.eye(entrance, plan.dim)[:, :, None, None]),
            "decoder.first.bias": decoder.take(f"{INPUT}.b"),
        }
        made = load_module(
            lambda: Autoencoder(
                channels,
                plan,
                Gumbel(codebook_size, plan.dim, sharpness=None),
                projection=0,
                output=LocationAndScale(),
            ),
            found,
        )
        return Model(made, preprocessing(made, options))


def plan_of(encoder: Weights, decoder: Weights) -> tuple[DVAE, int]:
    """Architecture of encoder and decoder, and the number of channels of the images."""
    width, channels, *_ = encoder.dims(f"{INPUT}.w", 4)
    groups = count_from_one(encoder, "blocks.group_{}.block_1.res_path.conv_4.w")
    widths = [
        encoder.dims(f"blocks.group_{group}.block_1.res_path.conv_4.w", 4)[0]
        for group in range(1, groups + 1)
    ]
    if not width or any(each % width for each in widths):
        raise UserError(f"channels of all levels must be multiples of {width}, got {widths}")
    plan = DVAE(
        width=width,
        multipliers=tuple(each // width for each in widths),
        blocks=count_from_one(encoder, "blocks.group_1.block_{}.res_path.conv_4.w"),
        entrance=decoder.dims(f"{INPUT}.w", 4)[0],
    )
    return plan, channels


def count_from_one(weights: Weights, name: str) -> int:
    """Count names that exist when `{}` is replaced by 1, 2, 3 and so on."""
    number = 0
    while name.format(number + 1) in weights:
        number += 1
    return number


def blocks(weights: Weights, plan: DVAE, half: str) -> dict[str, Weight]:
    """Levels of encoder or decoder under our names."""
    found: dict[str, Weight] = {}
    for level in range(len(plan.multipliers)):
        for number in range(plan.blocks):
            theirs, ours = f"blocks.group_{level + 1}.block_{number + 1}", f"{half}.levels.{level}.{number}"
            for place in range(4):
                conv = f"{theirs}.res_path.conv_{place + 1}"
                found |= layer(weights, conv, f"{ours}.convolutions.{place}")
            if f"{theirs}.id_path.w" in weights:
                found |= layer(weights, f"{theirs}.id_path", f"{ours}.shortcut")
    return found


def layer(weights: Weights, theirs: str, ours: str) -> dict[str, Weight]:
    """A convolution, whose weight and bias are called w and b."""
    return {f"{ours}.weight": weights.take(f"{theirs}.w"), f"{ours}.bias": weights.take(f"{theirs}.b")}
