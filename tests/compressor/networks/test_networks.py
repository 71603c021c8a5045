"""Laws of every network in the folder, alone and with every quantizer."""

import importlib
import re

import pytest

from genstack.compressor.quantizers import VectorQuantizer
from genstack.testing import laws_in, networks
from genstack.testing.autoencoders import compare_decoded, train_one_step


@pytest.mark.parametrize("law", laws_in(networks), ids=lambda law: law.__name__)
def test_network_keeps_the_law(network, law):
    law(network)


def test_module_names_its_paper(network):
    assert re.search(r"arXiv:\d{4}\.\d{5}", importlib.import_module(type(network).__module__).__doc__)


def test_one_step_trains_every_parameter(network, quantizer):
    train_one_step(network, quantizer, (32, 48), 1)


def test_decoded_codes_are_the_reconstruction(network, quantizer):
    compare_decoded(network, quantizer, (32, 48))


@pytest.mark.parametrize(("size", "channels"), [((32, 32), 3), ((64, 32), 3)])
def test_other_sizes_with_one_quantizer(network, size, channels):
    """A quantizer sees the grid alone; the law above has its sides unequal."""
    train_one_step(network, VectorQuantizer(24, 4), size, channels)
    compare_decoded(network, VectorQuantizer(24, 4), size)
