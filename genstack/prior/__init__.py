"""Stage two: distributions over codes, and drawing from them."""

from genstack.prior.autoregressive import Autoregressive
from genstack.prior.backbone import Backbone
from genstack.prior.condition import Condition
from genstack.prior.conditions import (
    Captions,
    ClassLabels,
    ConditionImage,
    Coordinates,
    EncodedCaptions,
    ImageCodes,
    Unconditional,
)
from genstack.prior.options import SamplingOptions
from genstack.prior.prior import Known, Prior
from genstack.prior.sampling import image_seeds

__all__ = [
    "Autoregressive",
    "Backbone",
    "Captions",
    "ClassLabels",
    "Condition",
    "ConditionImage",
    "Coordinates",
    "EncodedCaptions",
    "ImageCodes",
    "Known",
    "Prior",
    "SamplingOptions",
    "Unconditional",
    "image_seeds",
]
