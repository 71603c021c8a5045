"""Root mean square norms with few operations, beside torch's."""

import pytest
import torch
from torch import nn

from genstack.transformer.attention import HeadNorm
from genstack.transformer.rms_norm import FEW, RMSNorm


@pytest.mark.parametrize("scale", [0.0, 1e-4, 1.0, 1e3])
def test_norm_of_few_tokens_is_that_of_torch(scale):
    norm = RMSNorm(48, 1e-5)
    nn.init.normal_(norm.weight)
    tokens = scale * torch.randn(2, 3, 48)
    with torch.no_grad():
        expected = nn.RMSNorm.forward(norm, tokens)
        assert torch.allclose(norm(tokens), expected, rtol=2e-6, atol=1e-7)
        many = torch.randn(FEW + 1, 48)
        assert torch.equal(norm(many), nn.RMSNorm.forward(norm, many))
    assert torch.equal(norm(tokens), expected)  # with gradients
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
