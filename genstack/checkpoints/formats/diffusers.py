"""diffusers: folders of `VQModel` (also of aMUSEd) and `AutoencoderKL`, with both namings of attention."""

from dataclasses import replace

from genstack.checkpoints.formats.convolutional import Names, compressor, gaussian
from genstack.checkpoints.formats.format import Format, Provenance, Weights, preprocessing
from genstack.checkpoints.import_options import ImportOptions
from genstack.errors import UserError
from genstack.model import Model

NAMES = Names(
    down="encoder.down_blocks.{level}",
    up="decoder.up_blocks.{step}",
    block="resnets.{number}",
    attention="attentions.{number}",
    downsample="downsamplers.0.conv",
    upsample="upsamplers.0.conv",
    middle=("mid_block.resnets.0", "mid_block.attentions.0", "mid_block.resnets.1"),
    norm="conv_norm_out",
    shortcut="conv_shortcut",
    parts={"norm": "group_norm", "query": "to_q", "key": "to_k", "value": "to_v", "out": "to_out.0"},
)
DEFAULT_SCALE = 0.18215  # `scaling_factor` of an AutoencoderKL whose config.json has none
OLD = replace(
    NAMES,
    parts={"norm": "group_norm", "query": "query", "key": "key", "value": "value", "out": "proj_attn"},
)


class DiffusersVQ(Format):
    """VQModel; normalisation groups come from `config.json`, everything else from the tensors."""

    what = "VQModel of diffusers"
    provenance = Provenance(
        files="folders with config.json, such as vqvae/ of pipelines (hub: amused/amused-{256,512})",
        source="huggingface/diffusers",
        licence="Apache 2.0",
        weights="aMUSEd: OpenRAIL++; others: their model cards",
        checked="latents, codes, images, old and new names",
    )
    required = (
        "encoder.down_blocks.0.resnets.0.conv1.weight",
        "decoder.up_blocks.0.resnets.0.conv1.weight",
        "quant_conv.weight",
        "quantize.embedding.weight",
    )

    def model(self, weights: Weights, options: ImportOptions) -> Model:
        made = compressor(weights, names_in(weights), groups_of(weights))
        return Model(made, preprocessing(made, options))


class DiffusersKL(Format):
    """AutoencoderKL, also of SD3 and FLUX: latents without codes, for priors over latents."""

    what = "AutoencoderKL of diffusers, also of SD3 and FLUX"
    provenance = Provenance(
        files="vae/ of Stable Diffusion, SD3 and FLUX.1 (hub: stabilityai/sd-vae-ft-mse)",
        source="huggingface/diffusers",
        licence="Apache 2.0",
        weights="sd-vae-ft-mse: MIT; FLUX.1's autoencoder: Apache 2.0; SD3: Stability AI Community; others: "
        "their model cards",
        checked="means, deviations, scaled latents, images",
    )
    required = (
        "encoder.down_blocks.0.resnets.0.conv1.weight",
        "decoder.up_blocks.0.resnets.0.conv1.weight",
    )
    excluded = ("quantize.embedding.weight",)

    def model(self, weights: Weights, options: ImportOptions) -> Model:
        made = gaussian(weights, names_in(weights), groups_of(weights), *standardization_of(weights))
        return Model(made, preprocessing(made, options))


def names_in(weights: Weights) -> Names:
    """Naming of attention in a file."""
    return OLD if any(name.endswith(".proj_attn.weight") for name in weights.tensors) else NAMES


def standardization_of(weights: Weights) -> tuple[float, float | None]:
    """Shift and scale of latents by `config.json`, if there is one; the values 0 and 1 state nothing."""
    config = weights.config
    shift, scale = config.get("shift_factor"), config.get("scaling_factor", DEFAULT_SCALE if config else None)
    for name, value in (("shift_factor", shift), ("scaling_factor", scale)):
        if value is not None and not isinstance(value, float | int):
            raise UserError(f"{name} of its config.json is {value!r}, expected a number")
    return float(shift or 0), None if scale is None or (not shift and scale == 1) else float(scale)


def groups_of(weights: Weights) -> int:
    """Number of normalisation groups in the configuration, which must be supported."""
    config = weights.config
    if config.get("act_fn", "silu") != "silu" or config.get("norm_type", "group") not in ("group", None):
        raise UserError(
            f"unsupported act_fn {config.get('act_fn')!r} or norm_type {config.get('norm_type')!r} in "
            f"config.json; expected silu and group"
        )
    groups = config.get("norm_num_groups", 32)
    if type(groups) is not int or groups < 1:
        raise UserError(f"norm_num_groups in config.json must be at least 1, got {groups!r}")
    return groups
