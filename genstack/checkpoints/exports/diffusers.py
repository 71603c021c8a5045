"""Folders of diffusers: `VQModel`, or `AutoencoderKL` without codes."""

import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from genstack.atomic import atomic_path
from genstack.checkpoints.exports.export import Export
from genstack.checkpoints.formats.convolutional import layers
from genstack.checkpoints.formats.diffusers import NAMES
from genstack.compressor import Autoencoder, Convolutional
from genstack.compressor.gaussian import Gaussian
from genstack.compressor.output import Pixels
from genstack.compressor.quantizers import VectorQuantizer
from genstack.errors import UserError
from genstack.hub import DIFFUSERS
from genstack.model import Model

OLDEST = "0.32.0"  # the oldest version that reads these folders
ALTERNATIVES = "use --to safetensors, onnx or torch-export, which support any compressor"


class Diffusers(Export):
    """The compressor alone, since diffusers has no class for our priors."""

    name = "diffusers"
    what = "config.json and diffusion_pytorch_model.safetensors: the compressor, for VQModel or AutoencoderKL"

    def write(self, model: Model, folder: Path, batch: int) -> None:
        if model.prior is not None:
            raise UserError(
                "diffusers has no class for a prior; export the compressor's own run, or use --to safetensors"
            )
        compressor = check_compressor(model.compressor)
        height, width = model.preprocessing.height, model.preprocessing.width
        config = settings(compressor) | {"sample_size": height if height == width else [height, width]}
        with atomic_path(folder / DIFFUSERS[0]) as path:
            save_file(tensors(compressor), path, metadata={"format": "pt"})
        with atomic_path(folder / "config.json") as path:
            path.write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")

    def use(self, model: Model, place: str, batch: int) -> str:
        kind = class_name(model.compressor)
        return "\n".join(
            [
                f"from diffusers import {kind}",
                "",
                f'compressor = {kind}.from_pretrained("{place.removeprefix("hf:")}")',
                "images = compressor(images).sample  # in [-1, 1], b c H W",
            ]
        )


def class_name(compressor: nn.Module) -> str:
    """Equivalent class of diffusers."""
    gaussian = isinstance(compressor, Autoencoder) and isinstance(compressor.quantizer, Gaussian)
    return "AutoencoderKL" if gaussian else "VQModel"


def check_compressor(compressor: nn.Module) -> Autoencoder:
    """Check that diffusers has a class that computes the same as a compressor."""
    parts = {
        "compressor": (compressor, Autoencoder),
        "network": (getattr(compressor, "network", None), Convolutional),
        "quantizer": (getattr(compressor, "quantizer", None), VectorQuantizer | Gaussian),
        "output": (getattr(compressor, "output", None), Pixels),
    }
    for name, (part, kind) in parts.items():
        if not isinstance(part, kind):
            names = str(getattr(kind, "__name__", "VectorQuantizer or Gaussian"))
            raise UserError(
                f"diffusers supports only {names} as {name}, got {type(part).__name__}; {ALTERNATIVES}"
            )
    assert isinstance(compressor, Autoencoder)
    config = compressor.network
    assert isinstance(config, Convolutional)
    dim = compressor.quantizer.dim
    possible = {
        f"a projection of 1 x 1, not {compressor.projection} x {compressor.projection}": (
            compressor.projection <= 1
        ),
        f"a first level of `width` {config.width} channels, not {config.widths[0]}": (
            config.widths[0] == config.width
        ),
        f"one number of normalisation groups, not {group_counts(compressor)}": (
            len(group_counts(compressor)) == 1
        ),
    }
    if isinstance(compressor.quantizer, Gaussian):
        possible["a network with `double: true`"] = config.double
        possible[f"as many channels of network and Gaussian, not {config.dim} and {dim}"] = config.dim == dim
    if lacking := [name for name, met in possible.items() if not met]:
        raise UserError(f"diffusers supports only {lacking[0]}; {ALTERNATIVES}")
    return compressor


def group_counts(compressor: nn.Module) -> list[int]:
    """Distinct numbers of normalisation groups."""
    return sorted({part.num_groups for part in compressor.modules() if isinstance(part, nn.GroupNorm)})


def settings(compressor: Autoencoder) -> dict[str, Any]:
    """Contents of `config.json` for a compressor that diffusers can represent."""
    config, quantizer = compressor.network, compressor.quantizer
    assert isinstance(config, Convolutional)
    attention = [level in config.attention for level in range(len(config.multipliers))]
    both: dict[str, Any] = {
        "_class_name": class_name(compressor),
        "_diffusers_version": OLDEST,
        "act_fn": "silu",
        "block_out_channels": list(config.widths),
        "down_block_types": [
            "AttnDownEncoderBlock2D" if here else "DownEncoderBlock2D" for here in attention
        ],
        "up_block_types": [
            "AttnUpDecoderBlock2D" if here else "UpDecoderBlock2D" for here in attention[::-1]
        ],
        "in_channels": compressor.channels,
        "out_channels": compressor.channels,
        "latent_channels": config.dim,
        "layers_per_block": config.blocks,
        "mid_block_add_attention": config.middle_attention,
        "norm_num_groups": group_counts(compressor)[0],
    }
    if isinstance(quantizer, Gaussian):
        scale = {"scaling_factor": quantizer.scale or 1.0, "shift_factor": quantizer.shift}
        return both | scale | {"force_upcast": False}
    assert isinstance(quantizer, VectorQuantizer)
    return both | {
        "lookup_from_codebook": False,
        "norm_type": "group",
        "num_vq_embeddings": quantizer.codebook_size,
        "vq_embed_dim": quantizer.dim,
    }


@torch.no_grad()
def tensors(compressor: Autoencoder) -> dict[str, Tensor]:
    """Weights of a compressor under the names of diffusers."""
    config, state = compressor.network, compressor.state_dict()
    assert isinstance(config, Convolutional)
    named = layers(NAMES, config) | {"to_quantizer": "quant_conv", "from_quantizer": "post_quant_conv"}
    if compressor.projection == 0:
        for name, dim in (("to_quantizer", compressor.encoder.dim), ("from_quantizer", config.dim)):
            state |= {f"{name}.weight": torch.eye(dim)[:, :, None, None], f"{name}.bias": torch.zeros(dim)}
    found = {}
    for ours, theirs in named.items():
        matrix = ".attention" in ours and not ours.endswith(".norm")
        for part in ("weight", "bias"):
            if (value := state.get(f"{ours}.{part}")) is not None:
                found[f"{theirs}.{part}"] = value.flatten(1) if matrix and part == "weight" else value
    if isinstance(compressor.quantizer, VectorQuantizer):
        # VQModel does not normalize latents, but the nearest unit-length row is the same
        rows = compressor.quantizer.codebook.rows
        found["quantize.embedding.weight"] = compressor.quantizer.rescale(rows)
    return {name: value.float().cpu().contiguous().clone() for name, value in found.items()}
