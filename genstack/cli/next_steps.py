"""Commands that follow the training of a compressor."""

from genstack.compressor.quantizers import MultiScale
from genstack.model import Model


def next_command(model: Model, place: str) -> str:
    """The command that trains a prior for the codes, or samples from a VAE without codes.

    Args:
        model: a compressor.
        place: its run or file.
    """
    if not model.compressor.coded:
        return f"genstack sample {place} --count 64 --out samples/"
    return f"genstack train prior --compressor {place} --config configs/prior/{recipe(model)}.yaml"


def recipe(model: Model) -> str:
    """The recipe of a prior that suits the layout of the codes."""
    if isinstance(getattr(model.compressor, "quantizer", None), MultiScale):
        return "next_scale"
    if len(model.layout.grids) > 1:
        return "hierarchical"
    return "residual" if model.layout.depth > 1 else "autoregressive"
