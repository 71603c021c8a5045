"""The start of a prior's training: errors, and dropout."""

from functools import partial

import pytest
import pytorch_lightning as pl
from torch import nn

from genstack.compressor import Autoencoder, Convolutional
from genstack.compressor.quantizers import VectorQuantizer
from genstack.data import ImageData
from genstack.model import Model
from genstack.prior import Autoregressive, Prior
from genstack.prior.masked import Masked
from genstack.prior.pixelcnn import GatedPixelCNN
from genstack.training.prior import PriorTraining
from genstack.transformer import Backbone


def test_compile_without_transformer_is_rejected():
    data = ImageData("shapes", 16, limit=12)
    network = Convolutional(4, 4, (1, 1, 1), 1, (), False)
    compressor = Model(Autoencoder(3, network, VectorQuantizer(7, 3)).eval(), data.preprocessing)
    with pytest.raises(
        ValueError, match=r"GatedPixelCNN has no transformer to compile; leave out model\.compile"
    ):
        PriorTraining(GatedPixelCNN, compressor, data, compile=True)


def prior_training(prior: type[Prior], dropout: float | None) -> PriorTraining:
    data = ImageData("shapes", 16, limit=12, batch_size=4)
    network = Convolutional(4, 4, (1, 1, 1), 1, (), False)
    compressor = Model(Autoencoder(3, network, VectorQuantizer(7, 3)).eval(), data.preprocessing)
    backbone = Backbone(16, 1, 4, dropout=dropout)
    return PriorTraining(partial(prior, backbone=backbone), compressor, data, compile=False)


def start(training: PriorTraining, steps: int) -> None:
    training.trainer = pl.Trainer(
        max_steps=steps, accelerator="cpu", logger=False, enable_checkpointing=False, barebones=True
    )
    training.on_fit_start()


def shares(training: PriorTraining) -> set[float]:
    return {module.p for module in training.model.modules() if isinstance(module, nn.Dropout)}


@pytest.mark.parametrize(
    ("dropout", "steps", "expected"),
    [(None, 2, 0.1), (None, 20, 0.2), (None, 30, 0.4), (None, -1, 0.1), (0.3, 60, 0.3), (0.0, 60, 0.0)],
)
def test_dropout_follows_the_passes_over_the_images(dropout, steps, expected):
    """Unless it is set: 4 of at most 11 images a step."""
    training = prior_training(Autoregressive, dropout)
    assert len(training.data.split.training) in range(8, 12)
    words = training.optimization_summary(steps)
    assert words.partition(", dropout ")[2] == (f"{expected:g}" if expected else "")
    assert ("passes" in words) == (steps > 0)
    start(training, steps)
    assert shares(training) == {expected}


def test_random_masks_need_no_more_dropout():
    training = prior_training(Masked, None)
    assert training.optimization_summary(60).endswith(", dropout 0.1")
    start(training, 60)
    assert shares(training) == {0.1}
