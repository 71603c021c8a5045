"""Rotation trick against its matrix, and straight-through against the identity."""

import pytest
import torch

from genstack.compressor.quantizers.estimator import RotationTrick, StraightThrough


def rotation(source, target):
    """The matrix |q| / |e| R by the definition of R (equation 4), in float64."""
    unit_source, unit_target = source / source.norm(), target / target.norm()
    between = (unit_source + unit_target) / (unit_source + unit_target).norm()
    turn = torch.eye(len(source)) - 2 * torch.outer(between, between)
    return target.norm() / source.norm() * (turn + 2 * torch.outer(unit_target, unit_source))


def test_gradient_is_rotated_with_its_vector():
    soft, hard, weights = torch.randn(3, 7, 5, 4).double().unbind()[0:3]
    soft.requires_grad_()
    (RotationTrick()(hard, soft) * weights).sum().backward()
    for row in range(7):
        for column in range(5):
            matrix = rotation(soft.detach()[row, column], hard[row, column])
            torch.testing.assert_close(matrix @ soft.detach()[row, column], hard[row, column])
            torch.testing.assert_close(soft.grad[row, column], matrix.T @ weights[row, column])


@pytest.mark.parametrize("estimator", [RotationTrick(), StraightThrough()])
def test_value_is_hard_bit_for_bit(estimator):
    soft, hard = 1e3 * torch.randn(5, 3), torch.randn(5, 3)
    assert torch.equal(estimator(hard, soft.requires_grad_()), hard)


@pytest.mark.parametrize("soft", [[0.0, 0.0], [-3.0, 4.0], [3.0, -4.0]], ids=["zero", "opposite", "equal"])
def test_degenerate_pairs_have_finite_gradients(soft):
    soft = torch.tensor(soft, requires_grad=True)
    RotationTrick()(torch.tensor([3.0, -4.0]), soft).sum().backward()
    assert soft.grad.isfinite().all()
