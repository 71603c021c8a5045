"""Residual quantization against the loop that defines it."""

from itertools import pairwise

import pytest
import torch

from genstack.compressor.quantizers import Residual
from genstack.compressor.quantizers.update import EMAUpdate, GradientUpdate


def small(**arguments):
    return Residual(**{"depth": 3, "codebook_size": 7, "dim": 2, "codebook_init": None, **arguments})


@pytest.mark.parametrize("shared", [False, True])
def test_each_row_is_nearest_to_the_residual(shared):
    quantizer = small(shared=shared).eval()
    latents = torch.randn(2, 2, 5, 3)
    quantized = quantizer(latents)
    codes = quantized.codes.reshape(2, 5, 3, 3)
    for image in range(2):
        for row in range(5):
            for column in range(3):
                rest = latents[image, :, row, column]
                for depth in range(3):
                    rows = quantizer.table(depth).codebook.weight.detach()
                    code = (rows - rest).square().sum(1).argmin()
                    assert codes[image, row, column, depth] == code
                    rest = rest - rows[code]
                torch.testing.assert_close(
                    quantized.latents[image, :, row, column], latents[image, :, row, column] - rest
                )


def test_shared_table_is_stored_once():
    assert len([name for name in small(shared=True).state_dict() if name.endswith("weight")]) == 1
    assert len([name for name in small().state_dict() if name.endswith("weight")]) == 3


def test_losses_are_means_over_depths():
    quantizer = small(update=GradientUpdate(2.0), commitment_weight=0.5)
    latents, weights = torch.randn(2, 2, 5, 3, requires_grad=True), torch.randn(2, 2, 5, 3)
    quantized = quantizer(latents)
    rest, errors = latents.detach().movedim(1, -1).reshape(2, 15, 2), []
    for depth, codes in enumerate(quantized.codes.reshape(2, 15, 3).unbind(-1)):
        rest = rest - quantizer.table(depth).codebook.weight.detach()[codes]
        errors.append(rest.square().mean())
    torch.testing.assert_close(quantized.losses["codebook"], 2.0 * torch.stack(errors).mean())
    torch.testing.assert_close(quantized.losses["commitment"], 0.5 * torch.stack(errors).mean())
    (quantized.latents * weights).sum().backward()
    assert torch.equal(latents.grad, weights)


def test_partial_sums_end_in_the_lookup():
    quantizer = small().eval()
    quantized = quantizer(torch.randn(2, 2, 5, 3))
    codes = quantized.codes.reshape(2, 5, 3, 3)
    assert torch.equal(quantizer.partial(codes).movedim(-1, 1), quantized.latents)
    first = quantizer.table(0).codebook.weight.detach()[codes[..., 0]]
    torch.testing.assert_close(quantizer.partial(codes[..., :1]), first)


def test_dropped_rows_have_no_loss():
    quantizer = small(dropout=1.0).train()
    latents = torch.randn(600, 2, 1, 1, requires_grad=True)
    quantized = quantizer(latents)
    codes = quantized.codes
    sums = [quantizer.partial(codes[:, :depth])[..., None, None] for depth in (1, 2, 3)]
    errors = torch.stack([(sum_ - quantized.latents).abs().amax((1, 2, 3)) for sum_ in sums])
    kept = errors.argmin(0) + 1
    assert errors.min(0).values.max() < 1e-5
    shares = torch.bincount(kept, minlength=4)[1:] / 600
    torch.testing.assert_close(shares, torch.full((3,), 1 / 3), atol=0.08, rtol=0)
    quantized.losses["codebook"].backward()
    last = quantizer.table(2).codebook.weight.grad.abs().sum(1) > 0
    used = torch.bincount(codes[kept == 3, 2], minlength=7) > 0
    assert torch.equal(last, used)
    assert torch.equal(quantizer.eval()(latents).codes, codes)


def test_more_depth_reduces_the_error():
    torch.manual_seed(0)
    quantizer = Residual(depth=4, codebook_size=16, dim=3, update=EMAUpdate(0.9)).train()
    assert list(quantizer.parameters()) == []
    for _ in range(60):
        quantizer(torch.randn(4, 3, 9, 7))
        quantizer.after_step(skipped=False)
    latents = torch.randn(4, 3, 9, 7)
    codes = quantizer.eval()(latents).codes.reshape(4, 9, 7, 4)
    errors = [
        (quantizer.partial(codes[..., :depth]).movedim(-1, 1) - latents).square().mean() for depth in range(5)
    ]
    for coarse, fine in pairwise(errors):
        assert fine < 0.4 * coarse


def test_each_batch_initializes_one_depth():
    """A batch that has become the rows of one table leaves residuals of 0; the next one starts the next."""
    quantizer = Residual(depth=3, codebook_size=30, dim=2).train()
    for initialized in (1, 2, 3, 3):
        latents = torch.randn(2, 2, 5, 3)
        codes = quantizer(latents).codes.reshape(2, 5, 3, 3)
        tables = [quantizer.table(depth).codebook for depth in range(3)]
        assert [bool(table.initialized) for table in tables] == [depth < initialized for depth in range(3)]
        assert all(table.weight.std() > 0 for table in tables)
    assert codes.shape[-1] == 3


def test_shared_table_restarts_from_residuals_of_all_depths():
    torch.manual_seed(0)
    quantizer = Residual(depth=3, codebook_size=60, dim=2, shared=True, dead_after=1.0).train()
    latents = torch.randn(2, 2, 5, 3)
    with torch.no_grad():
        table = quantizer.table(0).codebook
        table.initialized.fill_(True)
        table.weight.copy_(torch.tensor([[0.1, 0.0], [0.0, 0.1]]).repeat(30, 1))
    quantizer(latents)
    quantizer.after_step(skipped=False)
    rows = {tuple(row) for row in table.weight.tolist()}
    points = latents.movedim(1, -1).reshape(-1, 2)
    first = {tuple(row) for row in points.tolist()}
    assert 0 < len(rows & first) < 58


@pytest.mark.parametrize("wrong", [{"depth": 0}, {"dropout": 1.5}, {"codebook_size": 0}])
def test_invalid_arguments_are_rejected(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        Residual(**wrong)
