"""Laws of every discriminator, loss and frozen network in the folder."""

import pytest

import genstack.losses
from genstack.discovery import discover
from genstack.losses.adversarial import AdversarialLoss
from genstack.losses.classifier import ClassifierDistance
from genstack.losses.dinov2 import DINOv2
from genstack.losses.discriminator import Discriminator
from genstack.losses.efficientnet import EfficientNetLite0
from genstack.losses.features import Features
from genstack.losses.perceptual import LPIPS, Perceptual
from genstack.losses.reconstruction import ReconstructionLoss
from genstack.testing import laws

CONTRACTS = (AdversarialLoss, Discriminator, Features, Perceptual, ReconstructionLoss)
#: Arguments besides the defaults.
MORE = (
    (LPIPS, {"net": "vgg"}),
    (ClassifierDistance, {"features": EfficientNetLite0(size=None), "maps": 1.0}),
    (EfficientNetLite0, {"size": None}),
)
DEFAULTS = [
    (part, {})
    for base in CONTRACTS
    for part in discover(genstack.losses, base).values()
    if part is not DINOv2  # has no weights by default; test_dinov2.py
]
CASES = {
    f"{part.__name__}{'-' if given else ''}{'-'.join(given)}: {law}": law
    for part, given in (*DEFAULTS, *MORE)
    for law in laws(part, **given)
}


@pytest.mark.parametrize("law", CASES.values(), ids=CASES.keys())
def test_part_keeps_the_law(law):
    law()
