"""Root mean square norms in few operations, beside torch's."""

import pytest
import torch
from torch import nn

from genstack.transformer.attention import HeadNorm
from genstack.transformer.rms_norm import RMSNorm


@pytest.mark.parametrize("scale", [0.0, 1e-4, 1.0, 1e3])
@pytest.mark.parametrize("count", [3, 300])
def test_norm_and_gradients_are_those_of_torch(scale, count):
    norm, tokens, weights = RMSNorm(48, 1e-5), scale * torch.randn(2, count, 48), torch.randn(2, count, 48)
    nn.init.normal_(norm.weight)
    results, gradients = [], []
    for forward in (norm, lambda x: nn.RMSNorm.forward(norm, x)):
        inputs = tokens.clone().requires_grad_()
        results.append(forward(inputs))
        gradients.append(torch.autograd.grad((results[-1] * weights).sum(), [inputs, norm.weight]))
    torch.testing.assert_close(*results, rtol=2e-6, atol=1e-7)
    for ours, theirs in zip(*gradients, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5 * theirs.abs().max().item())
    with torch.no_grad():
        torch.testing.assert_close(norm(tokens), results[0], rtol=2e-6, atol=1e-7)
    assert norm.state_dict().keys() == nn.RMSNorm(48).state_dict().keys()


def test_norm_of_heads_is_the_same_without_gradients():
    norm = HeadNorm(3, 64, 1e-5)
    heads = torch.randn(2, 5, 3, 64)
    with torch.no_grad():
        alone = norm(heads)
    assert torch.allclose(alone, norm(heads), rtol=1e-6, atol=0)


def test_norms_made_on_the_meta_device_are_usable():
    with torch.device("meta"):
        norm = RMSNorm(8, 1e-5)
    norm = norm.to_empty(device="cpu")
    nn.init.ones_(norm.weight)
    with torch.no_grad():
        assert norm(torch.ones(1, 8)).isfinite().all()
