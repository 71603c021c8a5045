"""Weights held in the dtype of autocast: the same codes as autocast's own conversions, and put back."""

from contextlib import nullcontext

import pytest
import torch
from torch import nn

import genstack.prior.prior
from genstack.conditions import Unconditional
from genstack.prior import Autoregressive, SamplingOptions, image_seeds
from genstack.transformer.weight_cast import cast_weights


def linears(module: nn.Module) -> list[nn.Linear]:
    return [part for part in module.modules() if isinstance(part, nn.Linear)]


def test_bfloat16_sampling_casts_weights_once_and_agrees_with_autocast(layout, tiny, monkeypatch):
    prior = Autoregressive(layout, Unconditional(), tiny)
    condition, seeds = torch.zeros(3, dtype=torch.int64), image_seeds(0, range(3))
    seen = []
    for linear in linears(prior):
        linear.register_forward_pre_hook(lambda layer, _: seen.append(layer.weight.dtype))
    with torch.autocast("cpu", torch.bfloat16):
        drawn = prior.sample(condition, SamplingOptions(), seeds)
        assert set(seen) == {torch.bfloat16}
        monkeypatch.setattr(genstack.prior.prior, "cast_weights", lambda module, device: nullcontext())
        assert torch.equal(drawn, prior.sample(condition, SamplingOptions(), seeds))
    assert set(seen) == {torch.bfloat16, torch.float32}


@pytest.mark.parametrize("enabled", [False, True])
def test_weights_are_restored_after_errors(enabled):
    module = nn.Sequential(nn.Linear(3, 5), nn.LayerNorm(5), nn.Linear(5, 2))
    weights = dict(module.named_parameters())

    def interrupted() -> None:
        with torch.autocast("cpu", torch.bfloat16, enabled), cast_weights(module, torch.device("cpu")):
            expected = torch.bfloat16 if enabled else torch.float32
            assert [linear.weight.dtype for linear in linears(module)] == [expected] * 2
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert all(now is weights[name] for name, now in module.named_parameters())
