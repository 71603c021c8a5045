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


def train(training: PriorTraining, step: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Compute the loss of a step."""
    training.trainer = pl.Trainer(
        max_steps=60, accelerator="cpu", logger=False, enable_checkpointing=False, barebones=True
    )
    monkeypatch.setattr(PriorTraining, "global_step", step)
    training.objective(next(iter(training.data.training_loader(0, 4, 0, 1))))


def shares(training: PriorTraining) -> set[float]:
    return {module.p for module in training.model.modules() if isinstance(module, nn.Dropout)}


@pytest.mark.parametrize(
    ("dropout", "steps", "expected"),
    [
        (None, 2, "0.1"),
        (None, 8, "0.1"),
        (None, 60, "0.1 to 0.4"),
        (None, -1, "0.1"),
        (0.3, 60, "0.3"),
        (0.0, 60, ""),
    ],
)
def test_a_training_names_its_dropout(dropout, steps, expected):
    """4 of at most 11 images a step; it grows from 5 passes on."""
    words = prior_training(Autoregressive, dropout).optimization_summary(steps)
    assert words.partition(", dropout ")[2] == expected
    assert ("epochs" in words) == (steps > 0)


@pytest.mark.parametrize("dropout", [None, 0.3])
def test_dropout_grows_from_pass_to_pass(dropout, monkeypatch):
    """Unless it is set."""
    training = prior_training(Autoregressive, dropout)
    assert shares(training) == {0.3}, "the passes of a loop without Lightning are not known"
    images = len(training.data.split.training)
    for step in (0, images // 4, images // 4 + 1, 2 * images // 4 + 1, 59):
        train(training, step, monkeypatch)
        grown = (0.1, 0.2, 0.3, 0.4)[min(3, 4 * step // images)]
        assert shares(training) == {grown if dropout is None else dropout}


def test_random_masks_need_no_more_dropout(monkeypatch):
    training = prior_training(Masked, None)
    assert training.optimization_summary(60).endswith(", dropout 0.1")
    train(training, 59, monkeypatch)
    assert shares(training) == {0.1}
