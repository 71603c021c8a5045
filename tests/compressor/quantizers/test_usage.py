"""Defaults avoid collapse, and collapsed codebooks recover."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from genstack.compressor.quantizers import (
    BSQ,
    IBQ,
    LFQ,
    Grouped,
    Gumbel,
    MultiScale,
    Residual,
    SimVQ,
    VectorQuantizer,
)
from genstack.compressor.quantizers.update import EMAUpdate

#: 256 codes each, everything else as it is by default.
MADE = {
    "VectorQuantizer": lambda: VectorQuantizer(codebook_size=256),
    "VectorQuantizer by average": lambda: VectorQuantizer(codebook_size=256, update=EMAUpdate()),
    "Residual": lambda: Residual(codebook_size=256),
    "Grouped": lambda: Grouped(codebook_size=256),
    "MultiScale": lambda: MultiScale(codebook_size=256),
    "SimVQ": lambda: SimVQ(codebook_size=256),
    "IBQ": lambda: IBQ(codebook_size=256),
    "Gumbel": lambda: Gumbel(codebook_size=256),
    "LFQ": lambda: LFQ(bits=8),
    "BSQ": lambda: BSQ(bits=8),
}


def mixture(generator, components=256, count=512):
    """A sampler of points from well separated Gaussians on the sphere."""
    centres = F.normalize(torch.randn(components, 8, generator=generator), dim=1)

    def sample():
        chosen = torch.randint(components, (count,), generator=generator)
        return centres[chosen] + 0.05 * torch.randn(count, 8, generator=generator)

    return sample


class Small(nn.Module):
    """The smallest autoencoder of points: two layers on either side of a quantizer."""

    def __init__(self, quantizer):
        super().__init__()
        self.quantizer = quantizer
        self.encoder = nn.Sequential(nn.Linear(8, 64), nn.GELU(), nn.Linear(64, quantizer.dim))
        self.decoder = nn.Sequential(nn.Linear(quantizer.dim, 64), nn.GELU(), nn.Linear(64, 8))

    def encoded(self, points):
        return self.encoder(points).T.reshape(1, -1, 16, len(points) // 16)

    def loss(self, points):
        quantized = self.quantizer(self.encoded(points))
        made = self.decoder(quantized.latents.flatten(2)[0].T)
        return (made - points).square().sum(1).mean() + sum(quantized.losses.values())

    @torch.no_grad()
    def used(self, sample):
        """The least number of codes in use of any table, over some ten thousand points."""
        self.quantizer.eval()
        depth = self.quantizer.layout((1, 1), 16, 32).depth
        codes = torch.cat([self.quantizer(self.encoded(sample())).codes for _ in range(20)], dim=1)
        self.quantizer.train()
        return min(len(codes[:, number::depth].unique()) for number in range(depth))

    def fit(self, sample, steps):
        optimizer = torch.optim.Adam(self.parameters(), lr=1e-3)
        for _ in range(steps):
            optimizer.zero_grad()
            self.loss(sample()).backward()
            optimizer.step()
            self.quantizer.after_step(skipped=False)


#: Those with a learned table; tables of 256 rows for 60 x 256 latents.
TABLES = {
    **{name: make for name, make in MADE.items() if name not in {"LFQ", "BSQ"}},
    "VectorQuantizer by distance": lambda: VectorQuantizer(codebook_size=256, dim=32, normalize=False),
    "Residual by average": lambda: Residual(codebook_size=256, update=EMAUpdate()),
}


@pytest.mark.parametrize("name", TABLES)
def test_rows_follow_latents_that_grow_and_move(name):
    """More than 80 % of the rows at every depth, when latents have become 3 times as large within 40 steps.

    The first batch has as many latents as a table has rows, so it leaves nothing to deeper tables.
    """
    torch.manual_seed(0)
    quantizer, generator = TABLES[name]().train(), torch.Generator().manual_seed(1)
    centres = torch.randn(256, quantizer.dim, generator=generator)
    shift = torch.randn(quantizer.dim, generator=generator)

    def latents(moved):
        chosen = centres[torch.randint(256, (4, 64), generator=generator)]
        points = chosen + 0.1 * torch.randn(4, 64, quantizer.dim, generator=generator)
        return ((1 + 2 * moved) * points + 2 * moved * shift).mT.reshape(4, quantizer.dim, 8, 8)

    learned = list(quantizer.parameters())
    optimizer = torch.optim.Adam(learned, lr=2e-3) if learned else None
    for step in range(60):
        quantized = quantizer(latents(min(1.0, step / 40)))
        if optimizer is not None:
            optimizer.zero_grad()
            (sum(quantized.losses.values()) + 0 * quantized.latents.sum()).backward()
            optimizer.step()
        quantizer.after_step(skipped=False)
    depth = quantizer.eval().layout((1, 1), 8, 8).depth
    codes = torch.cat([quantizer(latents(1.0)).codes.flatten() for _ in range(20)])
    assert min(len(codes[number::depth].unique()) for number in range(depth)) > 0.8 * 256


@pytest.mark.nightly
@pytest.mark.parametrize("name", MADE)
def test_defaults_use_most_codes(name):
    """More than 90 % of 256 codes after 300 steps on mixtures of 256 Gaussians, whatever the algorithm."""
    model, sample = Small(MADE[name]()), mixture(torch.Generator().manual_seed(1))
    model.fit(sample, 300)
    assert model.used(sample) > 0.9 * 256


@torch.no_grad()
def collapse(quantizer):
    """Move all codes into one corner: every table into a point, and a layer into one that makes a point."""
    corner = torch.zeros(quantizer.dim)
    corner[0] = 9.0
    tables = {"weight", "rows", "sums"}
    for name, values in [*quantizer.named_parameters(), *quantizer.named_buffers()]:
        if name.rpartition(".")[2] in tables and values.ndim == 2 and "linear" not in name:
            dim = values.shape[1]
            values.copy_(corner[:dim] + 0.001 * torch.randn_like(values))
        if name == "linear.weight":
            values.mul_(0.001)
        if name == "linear.bias":
            values.copy_(corner)
        if name.rpartition(".")[2] == "initialized":
            values.fill_(True)  # no first batch will mend it


@pytest.mark.nightly
@pytest.mark.parametrize("name", [name for name in MADE if name not in {"LFQ", "BSQ"}])
def test_collapsed_codebook_recovers(name):
    model, sample = Small(MADE[name]()), mixture(torch.Generator().manual_seed(1))
    collapse(model.quantizer)
    assert model.used(sample) < 64
    model.fit(sample, 300)
    assert model.used(sample) > 0.9 * 256
