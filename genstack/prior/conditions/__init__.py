"""What can steer a prior, one file per kind."""

from genstack.prior.conditions.captions import Captions
from genstack.prior.conditions.coordinates import Coordinates
from genstack.prior.conditions.encoded_captions import EncodedCaptions
from genstack.prior.conditions.image import ConditionImage
from genstack.prior.conditions.image_codes import ImageCodes
from genstack.prior.conditions.labels import ClassLabels
from genstack.prior.conditions.nothing import Unconditional

__all__ = [
    "Captions",
    "ClassLabels",
    "ConditionImage",
    "Coordinates",
    "EncodedCaptions",
    "ImageCodes",
    "Unconditional",
]
