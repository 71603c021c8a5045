"""Every quantizer in its folder, built small, for the laws that all of them inherit."""

import pytest
import torch

import genstack.compressor.quantizers
from genstack.compressor import Quantizer
from genstack.discovery import discover
from genstack.testing.expect import build

QUANTIZERS = discover(genstack.compressor.quantizers, Quantizer)


@pytest.fixture(params=QUANTIZERS)
def quantizer(request) -> Quantizer:
    torch.manual_seed(0)
    return build(QUANTIZERS[request.param])
