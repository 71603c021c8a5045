"""Conditions of a prior: one file per kind."""

from genstack.conditions.captions import Captions
from genstack.conditions.class_labels import ClassLabels
from genstack.conditions.condition import Condition
from genstack.conditions.coordinates import Coordinates
from genstack.conditions.encoded_captions import EncodedCaptions
from genstack.conditions.image import ConditionImage
from genstack.conditions.image_codes import ImageCodes
from genstack.conditions.unconditional import Unconditional

__all__ = [
    "Captions",
    "ClassLabels",
    "Condition",
    "ConditionImage",
    "Coordinates",
    "EncodedCaptions",
    "ImageCodes",
    "Unconditional",
]
