"""Transformer networks: positions, sizes and errors; the laws are in test_networks.py."""

import math

import pytest
import torch

from genstack.compressor import Autoencoder, TiTok, ViT
from genstack.compressor.networks.transformer import Transformer, sine_positions
from genstack.compressor.quantizers import VectorQuantizer
from genstack.training.optimization import split_by_decay

SMALL = ViT(dim=6, patch=4, width=16, depth=2, heads=2)
ROW = TiTok(tokens=5, dim=6, patch=4, width=16, depth=2, heads=2)
CPU = torch.device("cpu")


def test_sine_positions_match_diffusers():
    """The published function orders rows and columns the other way about."""
    from diffusers.models.embeddings import get_2d_sincos_pos_embed  # takes a second to import

    theirs = get_2d_sincos_pos_embed(16, (3, 3), base_size=3, output_type="pt")
    ours = sine_positions(3, 3, 16, CPU)
    across, down = ours[:, 8:], ours[:, :8]
    torch.testing.assert_close(torch.cat([across, down], dim=1), theirs.float())


def test_positions_do_not_depend_on_the_image_size():
    small, large = (
        sine_positions(3, 4, 8, CPU).unflatten(0, (3, 4)),
        sine_positions(6, 5, 8, CPU).unflatten(0, (6, 5)),
    )
    assert torch.equal(small, large[:3, :4])
    assert len(large.flatten(0, 1).unique(dim=0)) == 30


def test_layer_matches_torch():
    ours = Transformer(16, 1, 2, checkpoint=False)
    layer = ours.layers[0]
    theirs = torch.nn.TransformerEncoderLayer(
        16, 2, 64, dropout=0.0, activation="gelu", batch_first=True, norm_first=True
    )
    pairs = {
        "self_attn.in_proj_weight": layer.qkv.weight,
        "self_attn.in_proj_bias": layer.qkv.bias,
        "self_attn.out_proj.weight": layer.out.weight,
        "self_attn.out_proj.bias": layer.out.bias,
        "linear1.weight": layer.feedforward[0].weight,
        "linear1.bias": layer.feedforward[0].bias,
        "linear2.weight": layer.feedforward[2].weight,
        "linear2.bias": layer.feedforward[2].bias,
        "norm1.weight": layer.attention_norm.weight,
        "norm1.bias": layer.attention_norm.bias,
        "norm2.weight": layer.feedforward_norm.weight,
        "norm2.bias": layer.feedforward_norm.bias,
    }
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))  # so that no zero or one hides a mistake
    theirs.load_state_dict(pairs)
    tokens = torch.randn(2, 7, 16)
    torch.testing.assert_close(ours(tokens), ours.norm(theirs(tokens)), atol=1e-5, rtol=1e-5)


def test_patches_are_restored_in_place():
    """Without layers, in which patches see each other, a patch depends on its own latent alone."""
    decoder = SMALL.decoder(3)
    decoder.transformer.layers = torch.nn.ModuleList()
    latents = torch.randn(1, 6, 3, 4)
    changed = latents.clone()
    changed[:, :, 1, 2] += 1
    moved = (decoder(latents, (12, 16)) != decoder(changed, (12, 16))).any(dim=1)[0]
    expected = torch.zeros(12, 16, dtype=torch.bool)
    expected[4:8, 8:12] = True
    assert torch.equal(moved, expected)


def test_latents_depend_on_their_patch():
    encoder = SMALL.encoder(3)
    encoder.transformer.layers = torch.nn.ModuleList()
    images = torch.randn(1, 3, 12, 16)
    changed = images.clone()
    changed[:, :, 6, 9] += 1
    moved = (encoder(images) != encoder(changed)).any(dim=1)[0]
    assert moved.nonzero().tolist() == [[1, 2]]


def test_titok_latents_see_the_whole_image():
    encoder, decoder = ROW.encoder(3), ROW.decoder(3)
    images = torch.randn(1, 3, 12, 16, requires_grad=True)
    latents = encoder(images)
    (seen,) = torch.autograd.grad(latents[0, :, 0, 3].sum(), images, retain_graph=True)
    assert (seen.abs().amax(dim=1) > 0).all()
    (written,) = torch.autograd.grad(decoder(latents, (12, 16)).square().sum(), latents)
    assert (written.abs().amax(dim=1) > 0).all()


@pytest.mark.parametrize("size", [(12, 16), (32, 8)])
def test_titok_length_does_not_depend_on_the_image_size(size):
    layout = Autoencoder(3, ROW, VectorQuantizer(16, 4)).layout(*size)
    assert layout.grids == ((1, 5),)
    assert layout.image_size == size


def test_defaults_match_the_papers():
    """8 layers of 512: 25 million weights in each half, apart from what reads and writes pixels."""
    with torch.device("meta"):
        for plan in (ViT(), TiTok()):
            layers = sum(p.numel() for p in plan.encoder(3).transformer.layers.parameters())
            assert layers == 8 * (12 * 512**2 + 13 * 512)
        assert TiTok().grid(256, 256) == (1, 128)
        assert ViT().grid(256, 256) == (32, 32)


def test_initial_layers_keep_the_variance():
    torch.manual_seed(0)
    layer = Transformer(64, 1, 4, checkpoint=False).layers[0]
    tokens = torch.randn(2, 500, 64)
    for linear in (layer.qkv, layer.out, layer.feedforward[0]):
        assert float(linear(tokens).var().detach()) == pytest.approx(1.0, rel=0.1)


def test_activation_checkpointing_keeps_gradients():
    for plan in (SMALL, ROW):
        gradients = []
        for thrifty in (False, True):
            torch.manual_seed(0)
            one = type(plan)(**{**vars(plan), "checkpoint": thrifty})
            encoder, decoder = one.encoder(3), one.decoder(3)
            decoder(encoder(torch.randn(2, 3, 8, 12)), (8, 12)).square().mean().backward()
            gradients.append([p.grad for p in (*encoder.parameters(), *decoder.parameters())])
        torch.testing.assert_close(*gradients, atol=0, rtol=0)


@pytest.mark.parametrize(("size", "nearest"), [((50, 64), "48x64"), ((64, 58), "64x56"), ((3, 20), "8x16")])
@pytest.mark.parametrize("plan", [ViT(patch=8), TiTok(patch=8)], ids=["ViT", "TiTok"])
def test_unsupported_size_error_names_the_nearest(plan, size, nearest):
    with pytest.raises(ValueError, match=f"patch 8; use {nearest}"):
        plan.grid(*size)


@pytest.mark.parametrize("plan", [SMALL, ROW], ids=["ViT", "TiTok"])
def test_latents_of_another_size_are_rejected(plan):
    with pytest.raises(ValueError, match="do not match"):
        plan.decoder(3)(torch.randn(1, 6, 3, 5), (16, 12))


@pytest.mark.parametrize("kind", [ViT, TiTok])
@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"patch": 0}, "patch 0"),
        ({"depth": -1}, "depth -1"),
        ({"width": 510}, "width 510 must be a multiple of 8,.*use 512"),
        ({"width": 6, "heads": 3}, "width 6 must be a multiple of 12,.*use 12"),
    ],
)
def test_invalid_settings_are_rejected(kind, wrong, message):
    with pytest.raises(ValueError, match=message):
        kind(**wrong)


def test_tokens_must_be_at_least_one():
    with pytest.raises(ValueError, match="tokens 0"):
        TiTok(tokens=0)


def test_networks_run_under_autocast():
    for plan in (SMALL, ROW):
        with torch.autocast("cpu", torch.bfloat16):
            latents = plan.encoder(3)(torch.randn(1, 3, 8, 12))
            assert latents.dtype == torch.bfloat16
            assert math.prod(latents.shape[2:]) in (5, 6)
            assert plan.decoder(3)(latents, (8, 12)).dtype == torch.bfloat16


def test_learned_tokens_have_no_weight_decay():
    decoder = ROW.decoder(3)
    shrinking = {id(parameter) for parameter in split_by_decay(decoder)[0]}
    assert id(decoder.first.weight) in shrinking
    assert not shrinking & {id(decoder.latent_positions.weight), id(decoder.mask_token.weight)}
