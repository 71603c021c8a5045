"""Stage two: distributions over codes, and sampling from them."""

from genstack.prior.autoregressive import Autoregressive
from genstack.prior.options import SamplingOptions
from genstack.prior.prior import Known, Prior
from genstack.prior.sampling import image_seeds

__all__ = ["Autoregressive", "Known", "Prior", "SamplingOptions", "image_seeds"]
