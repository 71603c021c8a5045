"""SimVQ: a frozen table behind a trained layer."""

import pytest
import torch

from genstack.compressor.quantizers import SimVQ


def test_codes_are_nearest_rows_after_the_layer():
    quantizer = SimVQ(codebook_size=11, dim=3).eval()
    latents = torch.randn(2, 3, 5, 7)
    rows = torch.stack([quantizer.linear(row) for row in quantizer.table])
    distances = (latents[:, None] - rows[None, :, :, None, None]).square().sum(2)
    quantized = quantizer(latents)
    assert torch.equal(quantized.codes, distances.argmin(1).flatten(1))
    torch.testing.assert_close(quantized.latents, rows[distances.argmin(1)].movedim(-1, 1))


def test_one_code_moves_all_rows_but_not_the_table():
    quantizer = SimVQ(codebook_size=11, dim=3)
    table, before = quantizer.table.clone(), quantizer.rows.detach().clone()
    assert {name for name, _ in quantizer.named_parameters()} == {"linear.weight", "linear.bias"}
    optimizer = torch.optim.SGD(quantizer.parameters(), lr=0.1)
    latents = torch.ones(1, 3, 1, 1)
    for _ in range(200):
        optimizer.zero_grad()
        quantizer(latents).losses["codebook"].backward()
        optimizer.step()
    assert ((quantizer.rows - before).norm(dim=1) > 0.1).all()
    assert torch.equal(quantizer.table, table)
    torch.testing.assert_close(quantizer.eval()(latents).latents, latents, atol=1e-3, rtol=0)


def test_losses_have_weights_and_directions():
    latents = torch.randn(2, 3, 5, 7, requires_grad=True)
    quantizer = SimVQ(codebook_size=11, dim=3, codebook_weight=2.0, commitment_weight=0.5)
    quantized = quantizer(latents)
    error = (quantized.latents - latents).detach().square().mean()
    torch.testing.assert_close(quantized.losses["codebook"], 2.0 * error)
    torch.testing.assert_close(quantized.losses["commitment"], 0.5 * error)
    assert torch.autograd.grad(quantized.losses["codebook"], latents, allow_unused=True) == (None,)
    weight = quantizer.linear.weight
    assert torch.autograd.grad(quantized.losses["commitment"], weight, allow_unused=True) == (None,)


@pytest.mark.parametrize("wrong", [{"codebook_size": 0}, {"dim": 0}, {"commitment_weight": -1.0}])
def test_invalid_arguments_are_rejected(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        SimVQ(**wrong)
