"""Every quantizer and network in its folder, built small, for the laws that all of them inherit."""

import inspect

import pytest
import torch

import genstack.compressor
import genstack.compressor.quantizers
from genstack.compressor import Network, Quantizer
from genstack.discovery import discover

#: Small values for the arguments that plans of networks have, by their name; a plan takes those it knows.
SMALL = {
    "dim": 6,
    "width": 8,
    "multipliers": (1, 2, 2),
    "blocks": 1,
    "attention": (1,),
    "depth": 1,
    "heads": 2,
    "tokens": 5,
}

QUANTIZERS = discover(genstack.compressor.quantizers, Quantizer)
NETWORKS = discover(genstack.compressor, Network)


def small(plan: type[Network]) -> Network:
    """A plan with every size that it knows made small."""
    known = inspect.signature(plan).parameters
    return plan(**{name: size for name, size in SMALL.items() if name in known})


@pytest.fixture(params=QUANTIZERS)
def quantizer(request) -> Quantizer:
    torch.manual_seed(0)
    return QUANTIZERS[request.param]()


@pytest.fixture(params=NETWORKS)
def network(request) -> Network:
    torch.manual_seed(0)
    return small(NETWORKS[request.param])
