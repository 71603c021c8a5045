"""Every part that can be named is written as plain data and comes back the same."""

import inspect
import json

import pytest
import torch
from torch import nn

from genstack.compressor import Autoencoder, Convolutional
from genstack.compressor.quantizers import VectorQuantizer
from genstack.conditions import ClassLabels
from genstack.description import build, describe, essence, part_classes
from genstack.errors import UserError
from genstack.layout import CodeLayout
from genstack.prior import Autoregressive
from genstack.transformer import Backbone

LAYOUT = CodeLayout((8, 12), 16, ((4, 6),))
NETWORK = Convolutional(dim=6, width=4, multipliers=(1, 2), blocks=1, attention=(1,))


def default_parts():
    """Every class that can be built from its defaults alone."""
    for name, part in part_classes().items():
        arguments = inspect.signature(part).parameters.values()
        if all(argument.default is not argument.empty for argument in arguments):
            yield pytest.param(part, id=name)


@pytest.mark.parametrize("part", list(default_parts()))
def test_descriptions_round_trip(part):
    torch.manual_seed(0)
    with torch.device("meta"):
        made = part()
    there = json.loads(json.dumps(describe(made)))
    with torch.device("meta"):
        back = build(there)
    assert type(back) is part
    assert describe(back) == describe(made)
    if isinstance(made, nn.Module):
        shapes = {name: value.shape for name, value in made.state_dict().items()}
        assert shapes == {name: value.shape for name, value in back.state_dict().items()}
    else:
        assert made == back


@pytest.mark.parametrize(
    "made",
    [
        lambda: Autoencoder(3, NETWORK, VectorQuantizer(16, 4, dead_after=None), projection=3),
        lambda: Autoregressive(LAYOUT, ClassLabels(("cat", "wild dog")), Backbone(24, 2, 3), code_noise=0.1),
    ],
)
def test_models_round_trip_with_all_settings(made):
    model = made()
    there = json.loads(json.dumps(describe(model)))
    back = build(there)
    assert describe(back) == there
    back.load_state_dict(model.state_dict())
    assert [type(module) for module in back.modules()] == [type(module) for module in model.modules()]


GOOD = {"class": "VectorQuantizer", "codebook_size": 16, "dim": 4}
BITS = {
    "class": "CodeLayout",
    "image_size": [16, 16],
    "codebook_size": 2**62,
    "grids": [[2, 2]],
    "depth": 1,
}


@pytest.mark.parametrize(
    ("hostile", "message"),
    [
        ({"class": "os.system", "command": "true"}, "unknown part 'os.system'"),
        ({"class": "system"}, "unknown part 'system'"),
        ({"class": "Linear", "in_features": 2, "out_features": 2}, "unknown part 'Linear'"),
        ({"class": "Model"}, "unknown part 'Model'"),
        ({"class": "__import__", "name": "os"}, "unknown part"),
        (GOOD | {"command": "true"}, "VectorQuantizer takes no argument command"),
        (GOOD | {"dim": {"class": "os.system", "command": "true"}}, "unknown part"),
        (GOOD | {"dim": "4"}, "."),
        (GOOD | {"codebook_size": 2**40}, "the limit is"),
        (BITS | {"codebook_size": 2**63}, "the limit is"),
        (BITS | {"depth": 2**40}, "the limit is"),
        ({"class": "Autoencoder", "channels": 3}, "cannot be built"),
        ({"class": ["VectorQuantizer"]}, "expected the class and arguments"),
        ({"dim": 4}, "expected the class and arguments"),
    ],
)
def test_hostile_descriptions_are_refused(hostile, message):
    with pytest.raises((UserError, TypeError, RuntimeError), match=message) as error:
        build(hostile)
    assert message == "." or isinstance(error.value, UserError)


def test_codebooks_of_bits_are_as_large_as_codes_can_be():
    assert build(BITS).codebook_size == 2**62 and describe(build(BITS)) == BITS


def test_only_parts_can_be_described():
    with pytest.raises(TypeError, match="Linear is not plain data"):
        describe(nn.Linear(2, 2))


def test_essence_leaves_out_defaults():
    assert essence(Convolutional(dim=6, blocks=1)) == {"class": "Convolutional", "dim": 6, "blocks": 1}
    assert build(essence(NETWORK)) == NETWORK
