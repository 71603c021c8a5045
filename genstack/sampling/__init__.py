"""Images drawn from a model in number: a series, its files, and sweeps over the options."""

from genstack.sampling.canvas import Canvas
from genstack.sampling.gallery import Gallery
from genstack.sampling.series import Series
from genstack.sampling.sweep import Sweep

__all__ = ["Canvas", "Gallery", "Series", "Sweep"]
