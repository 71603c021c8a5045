"""A resumed prior needs its original condition."""

import pytest

from genstack.compressor import Autoencoder, Convolutional
from genstack.compressor.quantizers import VectorQuantizer
from genstack.conditions import Captions
from genstack.data import ImageData
from genstack.model import Model
from genstack.prior import Autoregressive
from genstack.training.prior import PriorTraining
from genstack.transformer import Backbone


def training(source):
    data = ImageData(source, 16, limit=12)
    network = Convolutional(4, 4, (1, 1, 1), 1, (), False)
    compressor = Model(Autoencoder(3, network, VectorQuantizer(7, 3)).eval(), data.preprocessing)
    return PriorTraining(
        lambda layout, condition: Autoregressive(layout, condition, Backbone(16, 1, 4)),
        compressor,
        data,
        Captions(vocabulary=300),
    )


def test_changed_captions_are_rejected_on_resume():
    begun, checkpoint = training("shapes"), {}
    begun.on_save_checkpoint(checkpoint)
    begun.on_load_checkpoint(checkpoint)
    other = training("shapes:pairs")
    with pytest.raises(ValueError, match="differ from those that this run began with"):
        other.on_load_checkpoint(checkpoint | {"compressor": other.identity})
