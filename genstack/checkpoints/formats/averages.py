"""Averaged weights beside the others, as latent-diffusion's LitEma writes them: under names without dots."""

from genstack.checkpoints.formats.format import Weights
from genstack.errors import UserError

#: Tensors beside a compressor: its losses, averages, and the colours of segmentation maps.
AROUND = (r"loss\.", r"model_ema\.", r"colorize$")


def ema_weights(weights: Weights) -> Weights:
    """The same names with the averaged values."""
    if "model_ema.decay" not in weights:
        raise UserError("the file has no averaged weights (model_ema.*); leave --ema out")
    tensors = dict(weights.tensors)
    for name in weights.tensors:
        other = "model_ema." + name.replace(".", "")
        if not name.startswith(("model_ema.", "loss.")) and other in tensors:
            if tensors[other].shape != tensors[name].shape:
                raise UserError(f"{other} has shape {tensors[other].shape}, {name} has {tensors[name].shape}")
            tensors[name] = tensors[other]
    return Weights(tensors, weights.config, taken=weights.taken)
