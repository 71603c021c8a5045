"""Priors: distributions over codes."""

from genstack.prior.autoregressive import Autoregressive
from genstack.prior.known import Known
from genstack.prior.logits import image_seeds
from genstack.prior.options import SamplingOptions
from genstack.prior.prior import Prior

__all__ = ["Autoregressive", "Known", "Prior", "SamplingOptions", "image_seeds"]
