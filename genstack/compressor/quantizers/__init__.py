"""Latents to codes: one file per algorithm."""

from genstack.compressor.quantizers.fsq import FSQ
from genstack.compressor.quantizers.vq import VectorQuantizer

__all__ = ["FSQ", "VectorQuantizer"]
