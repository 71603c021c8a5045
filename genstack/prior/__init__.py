"""Stage two: distributions over codes, and drawing from them."""

from genstack.prior.autoregressive import Autoregressive
from genstack.prior.condition import ClassLabels, Condition, Unconditional
from genstack.prior.prior import Prior, SamplingOptions
from genstack.prior.sampling import image_seeds
from genstack.prior.transformer import Backbone

__all__ = [
    "Autoregressive",
    "Backbone",
    "ClassLabels",
    "Condition",
    "Prior",
    "SamplingOptions",
    "Unconditional",
    "image_seeds",
]
