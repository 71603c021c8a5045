"""Quantizers from latents to codes, one file per algorithm."""

from genstack.compressor.quantizers.bsq import BSQ
from genstack.compressor.quantizers.fsq import FSQ
from genstack.compressor.quantizers.grouped import Grouped
from genstack.compressor.quantizers.gumbel import Gumbel
from genstack.compressor.quantizers.ibq import IBQ
from genstack.compressor.quantizers.lfq import LFQ
from genstack.compressor.quantizers.multiscale import MultiScale, MultiScaleResidual, Scales
from genstack.compressor.quantizers.residual import Residual
from genstack.compressor.quantizers.simvq import SimVQ
from genstack.compressor.quantizers.vq import VectorQuantizer

__all__ = [
    "BSQ",
    "FSQ",
    "IBQ",
    "LFQ",
    "Grouped",
    "Gumbel",
    "MultiScale",
    "MultiScaleResidual",
    "Residual",
    "Scales",
    "SimVQ",
    "VectorQuantizer",
]
