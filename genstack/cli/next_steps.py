"""Next command after the training or import of a compressor."""

from genstack.compressor.quantizers import Scales
from genstack.model import Model


def next_command(model: Model, place: str) -> str:
    """Return the command that trains a prior on the codes or latents of a compressor.

    Args:
        model: a compressor.
        place: its run or file.
    """
    return f"genstack train prior --compressor {place} --config {recipe(model)}"


def recipe(model: Model) -> str:
    """Choose the recipe of a prior that suits the layout of the codes or latents."""
    if not model.compressor.has_codes:
        return "flow"
    if isinstance(getattr(model.compressor, "quantizer", None), Scales):
        return "next_scale"
    if len(model.layout.grids) > 1:
        return "hierarchical"
    return "residual" if model.layout.depth > 1 else "autoregressive"
