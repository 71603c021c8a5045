"""Packed weights multiply as plain ones do, and nothing of them is left afterwards."""

from contextlib import nullcontext

import pytest
import torch
from torch import nn

import genstack.prior.prior
from genstack.conditions import ClassLabels
from genstack.layout import CodeLayout
from genstack.prior import Autoregressive, SamplingOptions, image_seeds
from genstack.transformer import Backbone
from genstack.transformer.packed_linear import CALLS, FEW, LARGEST, PackedLinear, pack_weights

CPU = torch.device("cpu")


def prior(bias: bool = False, tied: bool = True) -> Autoregressive:
    backbone = Backbone(width=48, depth=2, heads=3, bias=bias, tied=tied)
    result = Autoregressive(CodeLayout((16, 24), 11, ((4, 6),)), ClassLabels(("a", "b")), backbone)
    for parameter in result.parameters():
        nn.init.normal_(parameter, std=0.3)
    return result.eval()


@pytest.mark.parametrize("bias", [False, True])
def test_every_call_gives_the_same_product(bias):
    layer = nn.Linear(5, 7, bias=bias)
    packed = PackedLinear(layer.weight, layer.bias)
    for shape in [(1, 3)] * (CALLS + 2) + [(4,)] * (CALLS + 2) + [(FEW + 1,)] * (CALLS + 2) + [(1, 3)]:
        features = torch.randn(*shape, 5)
        torch.testing.assert_close(packed(features), layer(features), rtol=1e-5, atol=1e-6)
    assert packed.packed is None, "the number of rows has changed"


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("bf16", [False, True])
def test_samples_are_the_same(monkeypatch, tied, bf16):
    model, labels, seeds = prior(bias=not tied, tied=tied), torch.tensor([0, 1, 0]), image_seeds(0, range(3))

    def sample():
        with torch.autocast("cpu", torch.bfloat16, bf16):
            return model.sample(labels, SamplingOptions(), seeds)

    packed, calls = sample(), []
    monkeypatch.setattr(
        genstack.prior.prior, "pack_weights", lambda *given: calls.append(given) or nullcontext()
    )
    plain = sample()
    assert calls and (packed == plain).float().mean() > (0.9 if bf16 else 0.999)


def test_forward_is_as_before_on_exit():
    if not torch.backends.mkldnn.enabled:
        pytest.skip("oneDNN is turned off")
    model = prior()
    layer = model.transformer.layers[0].attention.qkv
    with pytest.raises(RuntimeError), pack_weights(model, CPU):
        assert isinstance(layer.forward, PackedLinear) and isinstance(model.head.product, PackedLinear)
        raise RuntimeError
    assert not isinstance(layer.forward, PackedLinear) and model.head.product is None


@pytest.mark.parametrize("reason", ["device", "compiled", "large", "off", "dtype"])
def test_some_models_stay_as_they_are(monkeypatch, reason):
    model, device = prior(), CPU
    if reason == "device":
        device = torch.device("cuda")
    elif reason == "compiled":
        model.transformer.compiled_step = lambda *given: given
    elif reason == "large":
        assert LARGEST == 2**30
        monkeypatch.setattr("genstack.transformer.packed_linear.LARGEST", 100)
    elif reason == "off":
        monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: False)
    else:
        model.double()
    with pack_weights(model, device):
        assert not isinstance(model.transformer.layers[0].attention.qkv.forward, PackedLinear)
