"""TiTok of 1d-tokenizer, with one stage or two (Yu et al. 2024, arXiv:2406.07550)."""

from collections.abc import Callable, Mapping
from math import isqrt
from typing import Any

import torch
from einops import rearrange
from torch import Tensor

from genstack.checkpoints.formats.format import (
    Format,
    Provenance,
    Weight,
    Weights,
    combine,
    load_module,
    preprocessing,
)
from genstack.checkpoints.formats.maskgit import decoder_network
from genstack.checkpoints.formats.pyramid import decoder_sizes, under
from genstack.checkpoints.import_options import ImportOptions
from genstack.compressor import Autoencoder, Bottleneck, Gaussian, MaskGITNetwork, TiTok
from genstack.compressor.networks.patch_pixels import PatchPixels, SmoothedPatches, SoftCodes
from genstack.compressor.quantizers import VectorQuantizer
from genstack.errors import UserError
from genstack.model import Model

HEAD = 64  # channels per head in all published sizes
#: Names of the parts of a layer, from theirs to ours.
LAYER = {
    "ln_1": "attention_norm",
    "attn.out_proj": "out",
    "ln_2": "feedforward_norm",
    "mlp.c_fc": "feedforward.0",
    "mlp.c_proj": "feedforward.2",
}


class TiTokTokenizer(Format):
    """1-D tokenizers (a row of codes, or of normal distributions) for images of one size.

    Two-stage tokenizers contain the codebook and decoder of MaskGIT's VQGAN. By default, their latents are
    normalized and scrambled, and latents of one-stage tokenizers are neither. In `config.json`, `use_l2_norm`
    sets the first and `is_legacy` (default true) the second.
    """

    what = "TiTok tokenizer of 1d-tokenizer"
    provenance = Provenance(
        files="tokenizer_titok_{l32,b64,s128}.bin (hub: fun-research/TiTok); "
        "tokenizer_titok_*_{vq8k,vae_c16}_imagenet (hub: yucornetto)",
        source="bytedance/1d-tokenizer",
        licence="Apache 2.0",
        weights="Apache 2.0",
        checked="latents, codes, images, distributions",
    )
    required = (
        "latent_tokens",
        "encoder.latent_token_positional_embedding",
        "encoder.patch_embed.weight",
        "decoder.latent_token_positional_embedding",
        "decoder.mask_token",
        "decoder.ffn.0.weight",
    )
    excluded = ("decoder.text_guidance_proj.weight",)
    options = ()

    def model(self, weights: Weights, options: ImportOptions) -> Model:
        settings = settings_in(weights.config, "vq_model")
        two = "pixel_quantize.embedding.weight" in weights
        if not two and "decoder.ffn.2.weight" in weights:
            raise UserError("a TiTok tokenizer of the first stage makes no images; give that of the second")
        pixels, found = soft_codes(weights) if two else smoothed_patches(weights)
        plan = plan_of(weights, pixels, scrambled=bool(settings.get("is_legacy", two or bool(settings))))
        quantizer, rows = bottleneck(weights, plan.dim, normalize=bool(settings.get("use_l2_norm", two)))
        learned = ("latent_tokens", "encoder.latent_token_positional_embedding")
        found["encoder.latent_tokens.weight"] = combine(torch.add, *map(weights.take, learned))
        found |= rows | under("encoder", encoder(weights.inside("encoder."), plan))
        found |= under("decoder", decoder(weights.inside("decoder."), plan.decoder_depth or plan.depth))
        channels = weights.dims("encoder.patch_embed.weight", 4)[1]
        made = load_module(lambda: Autoencoder(channels, plan, quantizer(), projection=0), found)
        return Model(made, preprocessing(made, options, plan.image_size or (0, 0)))


def settings_in(config: Mapping[str, Any], part: str) -> Mapping[str, Any]:
    """Settings of a part of the model in the configuration of 1d-tokenizer; empty without one."""
    for name in ("model", part):
        config = config.get(name, {})
        if not isinstance(config, dict):
            raise UserError(f"{name} in config.json must be an object")
    return config


def plan_of(weights: Weights, pixels: PatchPixels, scrambled: bool) -> TiTok:
    """Architecture of the tensors; the grid of patches is square."""
    width, _, patch, _ = weights.dims("encoder.patch_embed.weight", 4)
    places, _ = weights.dims("encoder.positional_embedding", 2)
    places_out, wide = weights.dims("decoder.positional_embedding", 2)
    side, side_out = (isqrt(max(0, rows - 1)) for rows in (places, places_out))
    if not side_out or (side**2 + 1, side_out**2 + 1) != (places, places_out):
        raise UserError(f"{places - 1} and {places_out - 1} patches are not square grids")
    if side * patch % side_out:
        raise UserError(f"images of {side * patch} pixels do not consist of {side_out} patches per side")
    for name, size in (("encoder", width), ("decoder", wide)):
        if size % HEAD:
            raise UserError(f"the {name} has {size} channels, which is not a multiple of {HEAD} per head")
    return TiTok(
        tokens=weights.dims("latent_tokens", 2)[0],
        dim=weights.dims("decoder.decoder_embed.weight", 2)[1],
        patch=patch,
        width=width,
        depth=weights.count("encoder.transformer.{}.ln_1.weight"),
        heads=width // HEAD,
        decoder_patch=side * patch // side_out,
        decoder_width=wide,
        decoder_depth=weights.count("decoder.transformer.{}.ln_1.weight"),
        image_size=(side * patch, side * patch),
        pixels=pixels,
        scrambled=scrambled,
        double="quantize.embedding.weight" not in weights,
    )


def bottleneck(
    weights: Weights, dim: int, normalize: bool
) -> tuple[Callable[[], Bottleneck], dict[str, Weight]]:
    """A function that builds the bottleneck, and its weights."""
    if "quantize.embedding.weight" not in weights:
        return lambda: Gaussian(dim), {}
    rows = weights.take("quantize.embedding.weight")
    size = weights.dims("quantize.embedding.weight", 2)[0]
    return lambda: VectorQuantizer(size, dim, normalize=normalize), {"quantizer.codebook.weight": rows}


def encoder(weights: Weights, plan: TiTok) -> dict[str, Weight]:
    """Weights of the encoder except its learned tokens; converted from pixels in [0, 1] to [-1, 1]."""
    kernel, bias = weights.take("patch_embed.weight"), weights.take("patch_embed.bias")
    found = {
        "patches.linear.weight": kernel.map(lambda each: each.flatten(1) / 2),
        "patches.linear.bias": combine(lambda one, other: one.flatten(1).sum(1) / 2 + other, kernel, bias),
        "patches.positions.table.weight": weights.take("positional_embedding")[1:],
        "head.weight": weights.take("conv_out.weight").map(lambda each: each.flatten(1)),
        "head.bias": weights.take("conv_out.bias"),
    }
    return found | trunk(weights, plan.depth)


def decoder(weights: Weights, depth: int) -> dict[str, Weight]:
    """Weights of the decoder except its output layers."""
    found = {
        "latent_positions.weight": weights.take("latent_token_positional_embedding"),
        "mask_token.weight": weights.take("mask_token").map(lambda each: each[0]),
        "positions.table.weight": weights.take("positional_embedding")[1:],
    }
    return found | weights.layer("decoder_embed", "first") | trunk(weights, depth)


def trunk(weights: Weights, depth: int) -> dict[str, Weight]:
    """Weights of the class token and the layers."""
    summary = (weights.take("class_embedding"), weights.take("positional_embedding")[:1])
    found = {"class_token.token.weight": combine(torch.add, *summary)}
    found |= weights.layer("ln_pre", "class_token.norm") | weights.layer("ln_post", "transformer.norm")
    for number in range(depth):
        theirs, ours = f"transformer.{number}", f"transformer.layers.{number}"
        for part in ("weight", "bias"):
            found[f"{ours}.qkv.{part}"] = weights.take(f"{theirs}.attn.in_proj_{part}")
        for name, other in LAYER.items():
            found |= weights.layer(f"{theirs}.{name}", f"{ours}.{other}")
    return found


def smoothed_patches(weights: Weights) -> tuple[PatchPixels, dict[str, Weight]]:
    """Output layers with one stage; converted from pixels in [0, 1] with colours innermost."""
    channels = weights.dims("decoder.conv_out.weight", 4)[0]
    last = weights.layer("decoder.conv_out", "decoder.pixels.last")
    found = {
        name: weight.map(lambda each: 2 * each if each.dim() > 1 else 2 * each - 1)
        for name, weight in last.items()
    }
    for name, weight in weights.layer("decoder.ffn.0", "decoder.pixels.linear").items():
        found[name] = weight.map(lambda each: by_colour(each, channels))
    return SmoothedPatches(), found


def by_colour(rows: Tensor, channels: int) -> Tensor:
    """Sort the rows of an output layer by colour, row and column of a patch."""
    side = isqrt(len(rows) // channels)
    if side * side * channels != len(rows):
        raise UserError(f"{len(rows)} channels are not square patches of {channels} colours")
    rows = rows.flatten(1) if rows.dim() > 1 else rows
    return rearrange(rows, "(p q c) ... -> (c p q) ...", p=side, q=side)


def soft_codes(weights: Weights) -> tuple[PatchPixels, dict[str, Weight]]:
    """Output layers with two stages: codes of MaskGIT's VQGAN, its codebook and its decoder."""
    inside = weights.inside("pixel_decoder.")
    sizes = decoder_sizes(inside)
    network = MaskGITNetwork(sizes.dim, sizes.width, sizes.multipliers, sizes.blocks, unit=True)
    count, _ = weights.dims("pixel_quantize.embedding.weight", 2)
    found = under("decoder.pixels.decoder", decoder_network(inside, network))
    found |= weights.layer("pixel_quantize.embedding", "decoder.pixels.rows")
    for theirs, ours in (("decoder.ffn.0", "first"), ("decoder.ffn.2", "last")):
        for name, weight in weights.layer(theirs, f"decoder.pixels.head.{ours}").items():
            found[name] = weight.map(lambda each: each.flatten(1) if each.dim() > 1 else each)
    return SoftCodes(network, count), found
