"""Every part that can be named is written as plain data and comes back the same."""

import inspect
import json

import pytest
import torch
from torch import nn

from genstack.compressor import Autoencoder, Convolutional
from genstack.compressor.quantizers import VectorQuantizer
from genstack.conditions import ClassLabels
from genstack.description import build, describable, describe, essence
from genstack.errors import UserError
from genstack.layout import CodeLayout
from genstack.prior import Autoregressive
from genstack.transformer import Backbone

LAYOUT = CodeLayout((8, 12), 16, ((4, 6),))
NETWORK = Convolutional(dim=6, width=4, multipliers=(1, 2), blocks=1, attention=(1,))


def default_parts():
    """Every class that can be built from its defaults alone."""
    for name, part in describable().items():
        arguments = inspect.signature(part).parameters.values()
        if all(argument.default is not argument.empty for argument in arguments):
            yield pytest.param(part, id=name)


@pytest.mark.parametrize("part", list(default_parts()))
def test_there_and_back(part):
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
def test_whole_models_come_back_with_everything_that_was_set(made):
    model = made()
    there = json.loads(json.dumps(describe(model)))
    back = build(there)
    assert describe(back) == there
    back.load_state_dict(model.state_dict())
    assert [type(module) for module in back.modules()] == [type(module) for module in model.modules()]


GOOD = {"class": "VectorQuantizer", "codebook_size": 16, "dim": 4}


@pytest.mark.parametrize(
    ("hostile", "message"),
    [
        ({"class": "os.system", "command": "true"}, "'os.system' is no part"),
        ({"class": "system"}, "'system' is no part"),
        ({"class": "Linear", "in_features": 2, "out_features": 2}, "'Linear' is no part"),
        ({"class": "Model"}, "'Model' is no part"),
        ({"class": "__import__", "name": "os"}, "is no part"),
        (GOOD | {"command": "true"}, "VectorQuantizer takes no argument command"),
        (GOOD | {"dim": {"class": "os.system", "command": "true"}}, "is no part"),
        (GOOD | {"dim": "4"}, "."),
        (GOOD | {"codebook_size": 2**40}, "too large"),
        ({"class": "Autoencoder", "channels": 3}, "cannot be built"),
        ({"class": ["VectorQuantizer"]}, "described by its class"),
        ({"dim": 4}, "described by its class"),
    ],
)
def test_hostile_descriptions_are_refused(hostile, message):
    with pytest.raises((UserError, TypeError, RuntimeError), match=message) as error:
        build(hostile)
    assert message == "." or isinstance(error.value, UserError)


def test_only_parts_can_be_described():
    with pytest.raises(TypeError, match="Linear is neither"):
        describe(nn.Linear(2, 2))


def test_the_essence_leaves_out_what_a_later_version_may_add():
    assert essence(Convolutional(dim=6, blocks=1)) == {"class": "Convolutional", "dim": 6, "blocks": 1}
    assert build(essence(NETWORK)) == NETWORK
