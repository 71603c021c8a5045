"""Errors at the start of a prior's training."""

import pytest

from genstack.compressor import Autoencoder, Convolutional
from genstack.compressor.quantizers import VectorQuantizer
from genstack.data import ImageData
from genstack.model import Model
from genstack.prior.pixelcnn import GatedPixelCNN
from genstack.training.prior import PriorTraining


def test_compile_without_transformer_is_rejected():
    data = ImageData("shapes", 16, limit=12)
    network = Convolutional(4, 4, (1, 1, 1), 1, (), False)
    compressor = Model(Autoencoder(3, network, VectorQuantizer(7, 3)).eval(), data.preprocessing)
    with pytest.raises(
        ValueError, match=r"GatedPixelCNN has no transformer to compile; leave out model\.compile"
    ):
        PriorTraining(GatedPixelCNN, compressor, data, compile=True)
