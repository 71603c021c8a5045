"""Small runs with random weights, and pictures."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from genstack.checkpoints.model_file import save
from genstack.compressor import Autoencoder, Gaussian, Strided
from genstack.compressor.quantizers import FSQ
from genstack.conditions import Captions, ClassLabels, ConditionImage, Coordinates, Unconditional
from genstack.conditions.condition import Condition
from genstack.data.images import Preprocessing
from genstack.model import Model
from genstack.prior import Autoregressive
from genstack.prior.masked import Masked
from genstack.transformer import Backbone

CLASSES = ("cat", "a, b", "#1", "dog")
CONDITIONS = {
    "classes": ClassLabels(CLASSES),
    "captions": Captions(vocabulary=256, length=20, depth=1, heads=2),
    "images": ConditionImage(shape=(3, 16, 24)),
    "coordinates": Coordinates(),
    "plain": Unconditional(),
}


def build(condition: Condition, kind=Autoregressive) -> Model:
    """A prior over 4 x 6 codes of pictures of 16 x 24."""
    compressor = Autoencoder(3, Strided(8, 4, 1, 4), FSQ((3, 3))).eval().requires_grad_(False)
    prior = kind(compressor.layout(16, 24), condition, Backbone(width=16, depth=1, heads=2)).eval()
    for parameter in prior.requires_grad_(False).parameters():
        nn.init.normal_(parameter, std=0.4)
    classes = CLASSES if isinstance(condition, ClassLabels) else ()
    return Model(compressor, Preprocessing(3, 16, 24), classes, prior)


@pytest.fixture(scope="session")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of runs: a prior of each condition, a masked one, a compressor, and a VAE."""
    root = tmp_path_factory.mktemp("runs")
    with torch.random.fork_rng():
        torch.manual_seed(0)
        for name, condition in CONDITIONS.items():
            save(build(condition), root / name)
        save(build(CONDITIONS["classes"], Masked), root / "masked")
        compressor = build(CONDITIONS["plain"]).compressor
        save(Model(compressor, Preprocessing(3, 16, 24)), root / "compressor")
        save(Model(Autoencoder(3, Strided(8, 4, 1, 4), Gaussian(4)), Preprocessing(3, 16, 24)), root / "vae")
    return root


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    """A picture larger than the models'."""
    pixels = np.random.default_rng(0).integers(0, 256, (40, 50, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "picture.jpg")
    return tmp_path / "picture.jpg"
