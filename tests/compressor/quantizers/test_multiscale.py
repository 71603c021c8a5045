"""Multi-scale quantization against its algorithm in loops."""

from itertools import pairwise

import pytest
import torch
import torch.nn.functional as F

from genstack.compressor.quantizers import (
    BSQ,
    FSQ,
    LFQ,
    MultiScale,
    MultiScaleResidual,
    Residual,
    SimVQ,
    VectorQuantizer,
)
from genstack.compressor.quantizers.multiscale import smoother_index
from genstack.layout import CodeLayout

VAR = (1, 2, 3, 4, 5, 6, 8, 10, 13, 16)


def test_grids_follow_the_size_of_the_latents():
    assert MultiScale(VAR).layout((256, 256), 16, 16).grids == tuple((side, side) for side in VAR)
    assert MultiScale((1, 2, 4)).layout((40, 56), 5, 7).grids == ((1, 2), (3, 4), (5, 7))


def test_each_grid_quantizes_the_residual():
    quantizer = MultiScale((1, 2, 4), codebook_size=11, dim=3, smoothing=0.3, codebook_init=None).eval()
    latents = torch.randn(2, 3, 5, 7, requires_grad=True)
    rows = quantizer.codebook.weight
    total, codes, codebook, commitment = torch.zeros(2, 3, 5, 7), [], [], []
    for number, size in enumerate([(1, 2), (3, 4), (5, 7)]):
        rest = F.adaptive_avg_pool2d(latents.detach() - total.detach(), size)
        distances = (rest[:, None] - rows[None, :, :, None, None]).square().sum(2)
        codes.append(distances.argmin(1).flatten(1))
        vectors = rows[distances.argmin(1)].movedim(-1, 1)
        vectors = F.interpolate(vectors, (5, 7), mode="bicubic")
        smooth = quantizer.smoothers[smoother_index(number, 3, 4)](vectors)
        total = total + 0.7 * vectors + 0.3 * smooth
        codebook.append((total - latents.detach()).square().mean())
        commitment.append((total.detach() - latents).square().mean())
    quantized = quantizer(latents)
    assert torch.equal(quantized.codes, torch.cat(codes, dim=1))
    torch.testing.assert_close(quantized.latents, total)
    torch.testing.assert_close(quantized.losses["codebook"], sum(codebook) / 3)
    torch.testing.assert_close(quantized.losses["commitment"], 0.25 * sum(commitment) / 3)
    found = torch.autograd.grad(quantized.losses["codebook"], rows)[0]
    torch.testing.assert_close(found, torch.autograd.grad(sum(codebook) / 3, rows)[0])
    weights = torch.randn(2, 3, 5, 7)
    (quantized.latents * weights).sum().backward()
    assert torch.equal(latents.grad, weights)


def test_convolutions_are_shared_as_in_var():
    """VAR's rule: ticks from 1/12 to 11/12, and the nearest (in float64, where two scales tie)."""
    assert [smoother_index(number, 10, 4) for number in range(10)] == [0, 0, 1, 1, 1, 2, 2, 3, 3, 3]
    assert [smoother_index(number, 10, 1) for number in range(10)] == [0] * 10
    assert smoother_index(0, 1, 4) == 0


def test_partial_sums_end_in_the_lookup():
    quantizer = MultiScale((1, 2, 4), dim=3).eval()
    layout = quantizer.layout((40, 56), 5, 7)
    grids = layout.split(quantizer(torch.randn(2, 3, 5, 7)).codes)
    sums = [quantizer.partial(grids[:count], layout) for count in (1, 2, 3)]
    assert all(total.shape == (2, 3, 5, 7) for total in sums)
    assert torch.equal(sums[-1], quantizer.lookup(layout.join(grids), layout))
    assert not torch.equal(sums[0], sums[1])


@pytest.mark.nightly
def test_defaults_use_most_codes():
    torch.manual_seed(0)
    generator = torch.Generator().manual_seed(1)
    centres = torch.randn(256, 8, generator=generator)
    quantizer = MultiScale((1, 2, 4), codebook_size=256, dim=8).train()
    optimizer = torch.optim.Adam(quantizer.parameters(), lr=1e-3)

    def latents():
        chosen = centres[torch.randint(256, (8, 8, 8), generator=generator)].movedim(-1, 1)
        return chosen + 0.05 * torch.randn(8, 8, 8, 8, generator=generator)

    for _ in range(300):
        optimizer.zero_grad()
        sum(quantizer(latents()).losses.values()).backward()
        optimizer.step()
        quantizer.after_step(skipped=False)
    quantizer.eval()
    used = torch.cat([quantizer(latents()).codes.flatten() for _ in range(10)]).unique()
    assert len(used) > 0.9 * 256


@pytest.mark.parametrize(
    "wrong", [{"scales": (2, 1)}, {"scales": ()}, {"smoothing": 1.5}, {"convolutions": 0}]
)
def test_invalid_arguments_are_rejected(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        MultiScale(**wrong)


@pytest.mark.parametrize(
    "quantizer",
    [BSQ(6), LFQ(6, depth=2), FSQ((4, 5)), VectorQuantizer(9, 4), SimVQ(9, 4), Residual(2, 9, 4)],
    ids=lambda each: type(each).__name__,
)
def test_any_quantizer_quantizes_what_coarser_grids_leave(quantizer):
    scales = MultiScaleResidual(quantizer, (1, 2, 4)).eval()
    latents = torch.randn(2, quantizer.dim, 5, 7)
    layout = scales.layout((40, 56), 5, 7)
    assert layout.grids == ((1, 2), (3, 4), (5, 7)) and layout.depth == quantizer.depth
    total, codes = torch.zeros(2, quantizer.dim, 5, 7), []
    for size in layout.grids:
        part = quantizer(F.adaptive_avg_pool2d(latents - total, size))
        codes.append(part.codes)
        total = total + F.interpolate(part.latents.detach(), (5, 7), mode="bicubic")
    quantized = scales(latents)
    assert torch.equal(quantized.codes, torch.cat(codes, dim=1))
    torch.testing.assert_close(quantized.latents, total)
    torch.testing.assert_close(scales.lookup(quantized.codes, layout), total)


def test_a_table_learns_on_several_scales():
    scales = MultiScaleResidual(VectorQuantizer(16, 4), (1, 2, 4)).train()
    latents, errors = 2 * torch.randn(8, 4, 4, 4), []
    optimizer = torch.optim.Adam(scales.parameters(), 1e-2)
    for _ in range(30):
        quantized = scales(latents)
        errors.append(float((quantized.latents - latents).square().mean()))
        sum(quantized.losses.values()).backward()
        optimizer.step()
        optimizer.zero_grad()
        scales.after_step(skipped=False)
    assert errors[-1] < 0.9 * errors[0] and len(scales.eval()(latents).codes.unique()) > 12


@pytest.mark.parametrize("quantizer", [BSQ(8), LFQ(6, depth=2)], ids=lambda each: type(each).__name__)
def test_flipped_grids_are_quantized_anew(quantizer):
    """Each grid is the nearest to what the flipped coarser ones leave, in loops."""
    scales = MultiScaleResidual(quantizer, (1, 2, 4)).eval()
    latents = torch.randn(40, quantizer.dim, 5, 7)
    layout = scales.layout((40, 56), 5, 7)
    targets, inputs = (layout.split(codes) for codes in scales.encode_flipped(latents, 0.4).unbind(1))
    total, shares = torch.zeros_like(latents), []
    for number, size in enumerate(layout.grids):
        rest = F.adaptive_avg_pool2d(latents - total, size)
        assert torch.equal(targets[number].flatten(1), quantizer(rest).codes)
        one = CodeLayout((1, 1), layout.codebook_size, (size,), layout.depth)
        vectors = quantizer.lookup(inputs[number].flatten(1), one)
        before = quantizer.lookup(targets[number].flatten(1), one)
        shares.append((vectors != before).float().mean((1, 2, 3)))
        total = total + F.interpolate(vectors, (5, 7), mode="bicubic")
    assert (shares[-1] == 0).all(), "nothing corrects the last grid"
    assert 0.15 < shares[1].mean() < 0.25, "the mean of uniform shares up to 0.4"
    assert shares[1].std() > 0.05 and (shares[1] - shares[0]).abs().mean() > 0.05, (
        "drawn for each image and grid"
    )


def test_finer_grids_correct_flips():
    """The sum stays near the latents, unlike that of flipped codes with the finer grids of before."""
    scales = MultiScaleResidual(BSQ(16), tuple(range(1, 9))).eval()
    latents = F.interpolate(torch.randn(64, 16, 2, 2), (8, 8), mode="bicubic")
    layout, state = scales.layout((64, 64), 8, 8), torch.get_rng_state()
    plain = scales.encode(latents)
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(scales.encode_flipped(latents, 0.0), torch.stack([plain, plain], dim=1))
    targets, inputs = scales.encode_flipped(latents, 0.3).unbind(1)

    def errors(codes):
        grids = layout.split(codes)
        sums = [scales.partial(grids[:count], layout) for count in range(1, len(grids) + 1)]
        return [float((latents - each).square().mean()) for each in sums]

    places, flips = torch.arange(16), targets ^ inputs
    assert 0.1 < float((flips[..., None] >> places & 1).float().mean()) < 0.2
    flipped = errors(inputs)
    assert all(finer < 0.9 * coarser for coarser, finer in pairwise(flipped))
    assert errors(plain)[-1] < flipped[-1] < 0.5 * errors(plain ^ flips)[-1]
