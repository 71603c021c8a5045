"""The convolutional network against diffusers, with any number of channels; its limits, memory and precision.

Golden files of the projects whose networks it computes are in `tests/checkpoints/test_published.py`.
"""

import pytest
import torch
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from genstack.checkpoints import published
from genstack.checkpoints.import_options import ImportOptions
from genstack.compressor import Autoencoder, Convolutional
from genstack.compressor.quantizers import VectorQuantizer

CLOSE = {"atol": 5e-5, "rtol": 1e-4}

SMALL = Convolutional(dim=6, width=12, multipliers=(1, 2, 3), blocks=2, attention=(2,), groups=4)


def in_diffusers(network: Convolutional, channels: int) -> nn.Module:
    """The model of diffusers that has attention at the coarsest level."""
    from diffusers import VQModel

    levels = len(network.multipliers)
    return VQModel(
        in_channels=channels,
        out_channels=channels,
        down_block_types=("DownEncoderBlock2D",) * (levels - 1) + ("AttnDownEncoderBlock2D",),
        up_block_types=("AttnUpDecoderBlock2D",) + ("UpDecoderBlock2D",) * (levels - 1),
        block_out_channels=network.widths,
        layers_per_block=network.blocks,
        latent_channels=network.dim,
        norm_num_groups=network.groups,
    ).eval()


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_network_matches_diffusers(channels, tmp_path):
    torch.manual_seed(0)
    theirs = in_diffusers(SMALL, channels)
    with torch.no_grad():
        for parameter in theirs.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))  # so that no zero or one hides a mistake
        theirs.save_pretrained(tmp_path)
        ours = published.load(tmp_path, ImportOptions(resolution="20,44")).compressor
        assert ours.network == SMALL
        images, latents = torch.randn(2, channels, 20, 44), torch.randn(2, SMALL.dim, 5, 11)
        torch.testing.assert_close(ours.encoder(images), theirs.encoder(images), **CLOSE)
        torch.testing.assert_close(ours.decoder(latents, (20, 44)), theirs.decoder(latents), **CLOSE)


def test_defaults_are_vqgan_f16():
    """The published model has 72,141,699 parameters with 1024 codes of 256 numbers."""
    with torch.device("meta"):
        quantizer = VectorQuantizer(1024, 256, normalize=False)
        model = Autoencoder(3, Convolutional(), quantizer)
    assert sum(parameter.numel() for parameter in model.parameters()) == 72_141_699


def test_activation_checkpointing_keeps_gradients():
    plain = Convolutional(dim=6, width=8, multipliers=(1, 2), blocks=1, attention=(1,))
    thrifty = Convolutional(dim=6, width=8, multipliers=(1, 2), blocks=1, attention=(1,), checkpoint=True)
    gradients, saved = [], []
    for plan in (plain, thrifty):
        torch.manual_seed(0)
        encoder, decoder = plan.encoder(3), plan.decoder(3)
        images, sizes = torch.randn(2, 3, 10, 14), []
        with torch.autograd.graph.saved_tensors_hooks(
            lambda t, s=sizes: s.append(t.numel()) or t, lambda t: t
        ):
            loss = decoder(encoder(images), (10, 14)).square().mean()
        loss.backward()
        gradients.append([p.grad for p in (*encoder.parameters(), *decoder.parameters())])
        saved.append(sum(sizes))
    torch.testing.assert_close(*gradients, atol=0, rtol=0)
    assert saved[1] < saved[0] / 2


@pytest.mark.parametrize(
    ("size", "nearest"), [((50, 64), "48x64"), ((64, 57), "64x64"), ((3, 20), "16x16"), ((100, 9), "96x16")]
)
def test_unsupported_size_error_names_the_nearest(size, nearest):
    with pytest.raises(ValueError, match=f"stride 16; use {nearest}"):
        Convolutional().grid(*size)


def test_latents_of_another_size_are_rejected():
    with pytest.raises(ValueError, match="do not match"):
        SMALL.decoder(3)(torch.randn(1, SMALL.dim, 3, 4), (16, 12))


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"width": 0}, "width 0"),
        ({"multipliers": ()}, "multipliers"),
        ({"multipliers": (1, 0)}, "multipliers"),
        ({"attention": (5,)}, "level 5 is out of range"),
        ({"attention": (-1,)}, "level -1"),
        ({"dropout": 1.0}, "dropout 1.0"),
    ],
)
def test_invalid_settings_are_rejected(wrong, message):
    with pytest.raises(ValueError, match=message):
        Convolutional(**wrong)


@pytest.mark.parametrize(
    ("width", "groups", "found"),
    [(128, 32, 32), (32, 32, 32), (48, 32, 12), (20, 32, 5), (7, 32, 1), (12, 4, 4)],
)
def test_groups_divide_the_channels(width, groups, found):
    plan = Convolutional(width=width, multipliers=(1,), attention=(), groups=groups)
    assert plan.encoder(1).norm.num_groups == found


def test_attention_stores_no_matrix_of_pairs():
    """Only the kernel that needs none is allowed; it refuses queries with strided channels."""
    attention = SMALL.encoder(3).middle.attention
    with torch.no_grad(), sdpa_kernel(SDPBackend.FLASH_ATTENTION):
        attention(torch.randn(1, SMALL.widths[-1], 4, 6))


def test_networks_run_under_autocast():
    encoder = SMALL.encoder(3)
    with torch.autocast("cpu", torch.bfloat16):
        assert encoder(torch.randn(1, 3, 8, 12)).dtype == torch.bfloat16
