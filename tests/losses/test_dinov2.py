"""DINOv2 as a frozen network of losses: a small one that learned nothing, of transformers."""

import pytest
import torch
from transformers import Dinov2Config, Dinov2Model, Dinov2WithRegistersConfig, Dinov2WithRegistersModel

from genstack.errors import UserError
from genstack.losses.alignment import Alignment
from genstack.losses.classifier import ClassifierDistance
from genstack.losses.dinov2 import MODEL, DINOv2
from genstack.losses.feature_discriminator import FeatureDiscriminator
from genstack.losses.features import Frozen
from genstack.testing import laws

SMALL = {
    "hidden_size": 12,
    "num_hidden_layers": 3,
    "num_attention_heads": 3,
    "image_size": 42,
    "patch_size": 14,
}


@pytest.fixture(params=[(Dinov2Config, Dinov2Model), (Dinov2WithRegistersConfig, Dinov2WithRegistersModel)])
def folder(request, save_untrained):
    """A folder of transformers."""
    config, model = request.param
    return str(save_untrained(lambda: model(config(**SMALL))))


def test_maps_are_the_tokens_of_transformers(folder):
    """Of images that need no resizing; the last map is the normalized output."""
    plan = DINOv2(folder, size=28, layers=(1, 3))
    assert (plan.widths, plan.grids(28, 42)) == ((12, 12), ((2, 3), (2, 3)))
    images = torch.rand(2, 3, 28, 42) * 2 - 1
    found = Frozen(plan)(images)
    with torch.no_grad():
        network = plan.build().network
        outputs = network(pixel_values=MODEL.standardize((images + 1) / 2), output_hidden_states=True)
    tokens = outputs.last_hidden_state[:, -6:]
    torch.testing.assert_close(found.maps[1], tokens.transpose(1, 2).unflatten(2, (2, 3)))
    torch.testing.assert_close(found.pooled, outputs.pooler_output)
    assert found.maps[0].shape == (2, 12, 2, 3) and not torch.equal(*found.maps) and found.logits is None


def test_laws_of_features_hold(folder):
    for law in laws(DINOv2, folder=folder, size=42):
        law()


def test_gradients_reach_images_and_heads_but_not_the_network(folder):
    plan = FeatureDiscriminator(DINOv2(folder, size=40, layers=(2, 3)), width=4)
    network, images = plan.build(1), torch.randn(2, 1, 24, 36, requires_grad=True)
    logits = network(images)
    assert logits.shape == (2, 1, *plan.grid(24, 36))
    logits.square().sum().backward()
    assert images.grad.any() and all(parameter.grad.any() for parameter in network.parameters())
    assert not any(parameter.requires_grad for parameter in network.frozen.network.parameters())


def test_latents_are_aligned_with_it(folder):
    alignment = Alignment(5, DINOv2(folder, size=56))
    alignment.check(3, (20, 30), (4, 6))
    latents = torch.randn(2, 5, 4, 6, requires_grad=True)
    alignment(latents, torch.rand(2, 3, 20, 30) * 2 - 1).backward()
    assert latents.grad.any() and alignment.projection.weight.grad.any()


def test_folders_and_layers_that_do_not_fit_are_refused(folder, tmp_path, monkeypatch):
    with pytest.raises(UserError, match=r"has 3 layers, got layers \[4\]"):
        _ = DINOv2(folder, layers=(4,)).widths
    with pytest.raises(UserError, match="DINOv2 has no logits"):
        ClassifierDistance(DINOv2(folder))
    monkeypatch.delenv("GENSTACK_DINOV2", raising=False)
    with pytest.raises(UserError, match="set GENSTACK_DINOV2"):
        DINOv2().build()
    monkeypatch.setenv("GENSTACK_DINOV2", folder)
    assert DINOv2().widths == (12,)
