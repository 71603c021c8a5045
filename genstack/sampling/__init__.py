"""Sampling in number: series of samples, their files, editing, and sweeps over options."""

from genstack.sampling.canvas import Canvas
from genstack.sampling.gallery import Gallery
from genstack.sampling.series import Series
from genstack.sampling.sweep import Sweep

__all__ = ["Canvas", "Gallery", "Series", "Sweep"]
