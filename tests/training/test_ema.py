"""EMA weights against the recurrence."""

import pytest
import torch
from torch import nn

from genstack.errors import UserError
from genstack.training.ema import ema_model


class Counting(nn.Module):
    """A weight, and a buffer that only counts."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.tensor([1.0, -2.0, 0.5]))
        self.register_buffer("count", torch.tensor(0))
        self.register_buffer("rows", torch.zeros(2))


def test_ema_follows_its_recurrence():
    """The first update copies; then decay is the least of (1 + n) / (10 + n) and the one asked for."""
    torch.manual_seed(0)
    model = Counting()
    average, expected = ema_model(model, 0.35), None
    for n in range(7):
        with torch.no_grad():
            model.weight.copy_(torch.randn(3))
            model.rows += 0.5
            model.count += 1
        average.update_parameters(model)
        decay = min(0.35, (1 + n) / (10 + n))
        expected = (
            model.weight.detach().clone()
            if n == 0
            else decay * expected + (1 - decay) * model.weight.detach()
        )
        torch.testing.assert_close(average.module.weight, expected)
    assert int(average.module.count) == 7, "buffers are the latest ones"
    torch.testing.assert_close(average.module.rows, torch.full((2,), 3.5))


def test_zero_decay_copies_the_model():
    model = Counting()
    average = ema_model(model, 0.0)
    for value in (3.0, 5.0):
        with torch.no_grad():
            model.weight.fill_(value)
        average.update_parameters(model)
        assert torch.equal(average.module.weight, model.weight)


def test_ema_weights_require_no_gradients():
    average = ema_model(Counting(), 0.9)
    assert not any(parameter.requires_grad for parameter in average.parameters())
    assert not average.training


@pytest.mark.parametrize("decay", [1.0, -0.1, float("nan")])
def test_invalid_decay_is_rejected(decay):
    with pytest.raises(UserError, match="out of range"):
        ema_model(Counting(), decay)
