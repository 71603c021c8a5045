"""Codes on several grids, against the project whose network it computes, and by the laws of every quantizer.

`tests/golden/rosinality_vqvae2.safetensors` are the random tensors of a file as vq-vae-2-pytorch (rosinality)
writes it; the `.npz` beside it is what the code of that project computes from them.
"""

from pathlib import Path

import numpy as np
import pytest
import torch

from genstack.checkpoints.published import load
from genstack.compressor import Convolutional, HierarchicalAutoencoder, Strided
from genstack.compressor.quantizers import FSQ, VectorQuantizer
from genstack.compressor.quantizers.update import EMAUpdate
from genstack.description import build, describe
from genstack.errors import UserError

GOLDEN = Path(__file__).parents[1] / "golden"
CLOSE = {"atol": 5e-6, "rtol": 1e-4}
NETWORK, COARSER = Strided(dim=32, stride=4, inner=12), Strided(dim=32, stride=2, inner=12)


@pytest.fixture
def published():
    """The model of the golden file."""
    model = load(GOLDEN / "rosinality_vqvae2.safetensors").compressor
    assert (model.network, model.coarser) == (NETWORK, COARSER)
    return model


def test_published_models_match_golden_values(published):
    golden = {
        key: torch.from_numpy(array) for key, array in np.load(GOLDEN / "rosinality_vqvae2.npz").items()
    }
    images, layout = golden["images"], published.layout(32, 32)
    assert layout.grids == ((4, 4), (8, 8))
    with torch.no_grad():
        codes = published.encode(images)
        top, bottom = (grid.squeeze(-1) for grid in layout.split(codes))
        assert torch.equal(top, golden["codes_top"])
        assert torch.equal(bottom, golden["codes_bottom"])
        torch.testing.assert_close(published(images).images, golden["reconstruction"], **CLOSE)
        torch.testing.assert_close(published.decode(codes, layout), golden["decoded_from_codes"], **CLOSE)
        random = layout.join(
            [golden["random_codes_top"][..., None], golden["random_codes_bottom"][..., None]]
        )
        drawn = golden["decoded_from_random_codes"]
        torch.testing.assert_close(published.decode(random, layout), drawn, **CLOSE)


def tiny(quantizer, grids=2, channels=3):
    return HierarchicalAutoencoder(channels, Strided(8, 4, 1, 4), quantizer, Strided(6, 2, 1, 4), grids=grids)


@pytest.mark.parametrize("size", [(32, 48), (64, 32)])
def test_decoded_codes_are_the_reconstruction(quantizer, size):
    model = tiny(quantizer).eval()
    images = torch.rand(2, 3, *size) * 2 - 1
    with torch.no_grad():
        made, codes, layout = model(images), model.encode(images), model.layout(*size)
        decoded = model.decode(codes, layout)
    assert torch.equal(codes, made.codes)
    assert codes.shape == (2, layout.length)
    assert codes.max() < layout.codebook_size
    torch.testing.assert_close(decoded, made.images, atol=1e-4, rtol=0)


@pytest.mark.parametrize("grids", [2, 3])
def test_one_step_trains_every_parameter(quantizer, grids):
    model = tiny(quantizer, grids, channels=1)
    images = torch.rand(2, 1, 32, 48) * 2 - 1
    made = model(images)
    ((made.images - images).square().mean() + sum(made.losses.values())).backward()
    model.after_step(skipped=False)
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None and parameter.grad.isfinite().all(), name
    assert model.last_layer.grad.abs().sum() > 0


def test_layouts_are_coarse_to_fine():
    layout = tiny(VectorQuantizer(32, 4), grids=3).layout(64, 32)
    assert (layout.grids, layout.codebook_size, layout.depth) == (((4, 2), (8, 4), (16, 8)), 32, 1)


def test_every_grid_has_its_own_quantizer():
    model = tiny(VectorQuantizer(32, 4, dead_after=7.0), grids=3)
    tables = [quantizer.codebook.weight for quantizer in model.quantizers]
    assert len({table.data_ptr() for table in tables}) == 3
    assert not torch.equal(tables[0], tables[1])
    assert {quantizer.dead_after for quantizer in model.quantizers} == {7.0}


def test_any_network_works():
    plan = Convolutional(8, 8, (1, 1, 2), 1, (), False)
    halving = Convolutional(8, 8, (1, 1), 1, (), False)
    model = HierarchicalAutoencoder(3, plan, FSQ(levels=(5, 3)), halving)
    assert model(torch.rand(1, 3, 16, 24)).images.shape == (1, 3, 16, 24)
    assert model.layout(16, 24).grids == ((2, 3), (4, 6))


def test_hierarchy_round_trips_through_a_description():
    model = tiny(VectorQuantizer(32, 4), grids=3).eval()
    again = build(describe(model)).eval()
    again.load_state_dict(model.state_dict())
    images = torch.rand(1, 3, 32, 32)
    assert torch.equal(again(images).images, model(images).images)


@pytest.mark.parametrize(("size", "nearest"), [((20, 24), "16x24"), ((37, 61), "40x64"), ((3, 9), "8x8")])
def test_unsupported_size_error_names_the_nearest(size, nearest):
    with pytest.raises(UserError, match=f"{size[0]}x{size[1]} cannot be halved for 2 grids.*use {nearest}"):
        tiny(VectorQuantizer(32, 4)).features(torch.rand(1, 3, *size))


@pytest.mark.parametrize(
    ("wrong", "message"),
    [({"grids": 1}, "grids 1 is out of range"), ({"coarser": Strided(stride=4)}, "must halve")],
)
def test_invalid_hierarchies_are_rejected(wrong, message):
    with pytest.raises(UserError, match=message):
        HierarchicalAutoencoder(3, Strided(), VectorQuantizer(32, 4), **wrong)


def test_defaults_match_the_paper():
    """The published ImageNet model of two grids: 128 channels, 64 numbers a code, 512 codes."""
    with torch.device("meta"):
        model = HierarchicalAutoencoder(3, Strided(), VectorQuantizer(512, 64, EMAUpdate(), normalize=False))
    assert sum(parameter.numel() for parameter in model.parameters()) == PUBLISHED


#: Parameters of VQVAE() in vq-vae-2-pytorch, its codebooks being buffers: by the shapes of its constructor.
PUBLISHED = sum(
    weights + out
    for weights, out in [
        *[(3 * 64 * 16, 64), (64 * 128 * 16, 128), (128 * 128 * 9, 128)],  # enc_b
        *[(128 * 64 * 16, 64), (64 * 128 * 9, 128)],  # enc_t
        *[(64 * 128 * 9, 128), (128 * 64 * 16, 64)],  # dec_t
        *[(128 * 128 * 9, 128), (128 * 64 * 16, 64), (64 * 3 * 16, 3)],  # dec
        *[(128 * 64, 64), (192 * 64, 64), (64 * 64 * 16, 64)],  # quantize_conv_t, quantize_conv_b, upsample_t
        *[(128 * 32 * 9, 32), (32 * 128, 128)] * 8,  # two residual blocks in each of the four
    ]
)
