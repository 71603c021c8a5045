"""Value and gradient of the straight-through estimator."""

import torch

from genstack.compressor.quantizers.estimator import straight_through


def test_value_is_hard_and_gradient_soft():
    hard = torch.randn(3, 5, requires_grad=True)
    soft = (1e6 * torch.randn(3, 5)).requires_grad_()
    weights = torch.randn(3, 5)
    both = straight_through(hard, soft)
    (both * weights).sum().backward()
    assert torch.equal(both, hard)
    assert torch.equal(soft.grad, weights)
    assert hard.grad is None
