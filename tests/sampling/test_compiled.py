"""Compiled networks draw what they draw as they are, each compiled once, and weights that changed count."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

import genstack.prior
from genstack.cli.verbs.doctor import compiler
from genstack.compressor import Autoencoder, Strided
from genstack.compressor.quantizers import VectorQuantizer
from genstack.conditions import Unconditional
from genstack.data.images import Preprocessing
from genstack.discovery import discover
from genstack.errors import UserError
from genstack.model import Model
from genstack.prior import Autoregressive, Prior
from genstack.sampling.compiled import compiled
from genstack.transformer import Backbone


@pytest.fixture(scope="module")
def drawn(start) -> Callable[..., dict]:
    """Samples of each prior by name, from a new process."""

    def draw(*words: str) -> dict:
        status, printed, errors = start(str(Path(__file__).with_name("drawing.py")), *words).finish()
        assert status == 0, errors
        return json.loads(printed)

    return draw


@pytest.fixture(scope="module")
def traced(drawn) -> dict:
    """By a compiler that leaves every operation as it is."""
    return drawn("eager")


#: The decoder, and what else is compiled: steps, or passes, of each transformer.
GRAPHS = {
    "GatedPixelCNN": 1,
    "PixelSNAIL": 1,
    "NextScale": 1,
    "latents": 1,
    "Hierarchical": 3,
    "ResidualTransformer": 3,
}


@pytest.mark.slow
@pytest.mark.parametrize(
    "name", [*discover(genstack.prior, Prior), "captions", "crossed", "rar", "wide", "latents"]
)
def test_compiled_sampling_is_the_same_for_every_prior(traced, name):
    found = traced[name]
    assert found["off"] == 0
    assert found["graphs"] == GRAPHS.get(name, 2)


@pytest.mark.slow
def test_changed_weights_are_compiled_anew(traced):
    renewed = [found for found in traced.values() if "changed" in found]
    assert len(renewed) == 4
    for found in renewed:
        assert found["again"] == found["after"] == 0 and found["changed"] > 0.1


@pytest.mark.nightly
@pytest.mark.skipif(compiler().state != "ok", reason="no C++ compiler")
def test_compiled_kernels_agree_and_release_weights(drawn):
    """Weights are compiled in: another time with other weights has kernels of its own."""
    found = drawn("inductor", "RandomOrder")["RandomOrder"]
    assert max(found["off"], found["again"], found["after"]) < 1e-4 and found["changed"] > 0.1


@pytest.fixture
def model() -> Model:
    compressor = Autoencoder(1, Strided(4, 4, 1, 4), VectorQuantizer(5, 4))
    prior = Autoregressive(compressor.layout(16, 16), Unconditional(), Backbone(24, 1, 3))
    return Model(compressor, Preprocessing(1, 16, 16), (), prior)


def test_networks_are_restored_after_errors(model):
    parts = list(model.modules().modules())
    with pytest.raises(KeyboardInterrupt), compiled(model, "eager"):
        assert model.prior.transformer.compiled_step is not None
        assert sum("forward" in vars(part) for part in parts) == 2
        raise KeyboardInterrupt
    assert model.prior.transformer.compiled_step is None
    assert not any("forward" in vars(part) for part in parts)


def test_unsupported_device_is_rejected(model):
    with (
        pytest.raises(
            UserError, match="compilation is not supported on meta, only on cpu and cuda; leave it out"
        ),
        compiled(model.to("meta")),
    ):
        pass
