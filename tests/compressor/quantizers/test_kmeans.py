"""K-means on known clusters."""

import torch

from genstack.compressor.quantizers import VectorQuantizer
from genstack.compressor.quantizers.kmeans import kmeans


def test_well_separated_clusters_are_found():
    centres = 100 * torch.arange(5.0)[:, None] + torch.tensor([0.0, 7.0, -3.0])
    members = torch.arange(60) % 5
    latents = centres[members] + torch.randn(60, 3)
    means = torch.stack([latents[members == number].mean(0) for number in range(5)])
    found = min((kmeans(latents, 5) for _ in range(30)), key=lambda rows: error(latents, rows))
    torch.testing.assert_close(found[found[:, 0].argsort()], means)


def error(latents, rows):
    return float(torch.cdist(latents, rows.detach()).min(1).values.square().sum())


def test_rounds_never_increase_the_error():
    latents = torch.randn(200, 3)
    errors = []
    for rounds in range(8):
        torch.manual_seed(0)
        errors.append(error(latents, kmeans(latents, 17, rounds)))
    assert errors == sorted(errors, reverse=True)
    assert errors[-1] < 0.9 * errors[0]


def test_quantizer_is_initialized_by_kmeans():
    torch.manual_seed(0)
    latents = torch.randn(2, 3, 9, 7)
    quantizer = VectorQuantizer(codebook_size=11, dim=3, normalize=False, codebook_init="kmeans").train()
    codes = quantizer(latents).codes.flatten()
    rows = latents.movedim(1, -1).reshape(-1, 3)
    drawn = VectorQuantizer(codebook_size=11, dim=3, normalize=False).train()
    drawn(latents)
    assert error(rows, quantizer.codebook.weight) < 0.9 * error(rows, drawn.codebook.weight)
    assert torch.bincount(codes, minlength=11).min() > 0
