"""CLIP features of a small network that learned nothing, against transformers' own; CMMD in closed forms."""

import json
import math

import pytest
import torch
from transformers import CLIPImageProcessor, CLIPVisionConfig, CLIPVisionModelWithProjection

from genstack.data.images import to_uint8
from genstack.errors import UserError
from genstack.evaluation.distances import distances
from genstack.evaluation.extractor import Features
from genstack.evaluation.extractors import available_extractors
from genstack.evaluation.extractors.clip import CLIPFeatures
from genstack.evaluation.metrics.mmd import mmd

SMALL = {
    "hidden_size": 12,
    "intermediate_size": 20,
    "num_hidden_layers": 2,
    "num_attention_heads": 3,
    "image_size": 28,
    "patch_size": 14,
    "projection_dim": 7,
}


@pytest.fixture
def folder(save_untrained, monkeypatch):
    """A folder of transformers, named to genstack."""
    place = save_untrained(lambda: CLIPVisionModelWithProjection(CLIPVisionConfig(**SMALL)))
    monkeypatch.setenv("GENSTACK_CLIP", str(place))
    return place


def test_features_are_those_of_transformers(folder):
    """Of images that need no resizing, with the processor of transformers."""
    images = torch.rand(3, 3, 28, 28) * 2 - 1
    extractor = CLIPFeatures("cpu")
    found = extractor(images).vectors
    processor = CLIPImageProcessor(do_resize=False, do_center_crop=False)
    pixels = processor(images=list(to_uint8(images).numpy()), return_tensors="pt")["pixel_values"]
    with torch.no_grad():
        expected = extractor.network(pixel_values=pixels).image_embeds
    torch.testing.assert_close(found, expected / expected.norm(dim=1, keepdim=True))
    assert found.shape == (3, 7) and "7 features" in extractor.metadata["network"]
    assert extractor(images[:, :1, :20]).vectors.shape == (3, 7), "grey images of any size"


def test_nothing_is_fetched_or_guessed(monkeypatch, tmp_path):
    monkeypatch.delenv("GENSTACK_CLIP", raising=False)
    assert "set GENSTACK_CLIP" in available_extractors("cpu")[1]["FD-CLIP"]
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "bert"}))
    monkeypatch.setenv("GENSTACK_CLIP", str(tmp_path))
    with pytest.raises(UserError, match=r"CLIP: .* has no config.json with a model_type of clip"):
        CLIPFeatures("cpu")


def test_the_discrepancy_of_two_points_is_known():
    """2 (1 - exp(-|x - y|^2 / 200)), times 1,000."""
    one, other = torch.tensor([[1.0, 0.0]]), torch.tensor([[0.0, 1.0]])
    assert mmd(one.repeat(5, 1), other.repeat(3, 1))[0] == pytest.approx(2000 * (1 - math.exp(-2 / 200)))
    assert mmd(one, one) == (0.0, (0.0, 0.0))


def test_the_discrepancy_is_the_mean_over_all_pairs(monkeypatch):
    monkeypatch.setattr("genstack.evaluation.metrics.mmd.ROWS", 4)
    one, other = torch.randn(9, 5).double(), torch.randn(6, 5).double() + 0.5

    def mean(x, y):
        kernels = [math.exp(-float((a - b).square().sum()) / (2 * 2.0**2)) for a in x for b in y]
        return sum(kernels) / len(kernels)

    value, (low, high) = mmd(one, other, sigma=2.0)
    assert value == pytest.approx(1000 * (mean(one, one) + mean(other, other) - 2 * mean(one, other)))
    assert low < high


def test_the_discrepancy_of_normals_is_known():
    """For N(m, I) and N(0, I): 2 (s / (s + 2))^(d/2) (1 - exp(-|m|^2 / (2 (s + 2)))), with s = sigma^2."""
    count, dim, squared = 3000, 3, 4.0
    shift = torch.tensor([1.0, 0.0, 1.0])
    value, _ = mmd(torch.randn(count, dim), torch.randn(count, dim) + shift, sigma=2.0)
    expected = 2 * (squared / (squared + 2)) ** (dim / 2) * (1 - math.exp(-2 / (2 * (squared + 2))))
    assert value / 1000 == pytest.approx(expected, rel=0.1)


def test_cards_have_it_for_clip_alone(folder):
    extractor = CLIPFeatures("cpu")
    sets = [Features(torch.nn.functional.normalize(torch.randn(40, 7) + 1), None) for _ in range(2)]
    names = [result.name for result in distances(extractor, *sets, "g")]
    assert names == ["gKID-CLIP", "gCMMD", "gFD-CLIP"]
