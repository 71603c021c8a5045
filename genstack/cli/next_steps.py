"""Next command after the training or import of a compressor."""

from genstack import plugins
from genstack.compressor.quantizers import MultiScaleResidual, Scales
from genstack.compressor.quantizers.corners import BitQuantizer
from genstack.model import Model

#: Codes of bits of more values are best predicted as bits.
LARGE = 2**12


def next_command(model: Model, place: str) -> str:
    """Return the command that trains a prior on the codes or latents of a compressor.

    Args:
        model: a compressor.
        place: its run or file.
    """
    return f"genstack train prior --compressor {place} --config {recipe(model)}{plugins.flags()}"


def recipe(model: Model) -> str:
    """Choose the recipe of a prior that suits the layout of the codes or latents."""
    if not model.compressor.has_codes:
        return "flow"
    quantizer = getattr(model.compressor, "quantizer", None)
    if isinstance(quantizer, Scales):
        has_bits = isinstance(quantizer, MultiScaleResidual) and quantizer.has_bits
        return "infinity" if has_bits else "next_scale"
    if isinstance(quantizer, BitQuantizer) and quantizer.codebook_size > LARGE:
        return "bits"
    if len(model.layout.grids) > 1:
        return "hierarchical"
    return "residual" if model.layout.depth > 1 else "autoregressive"
