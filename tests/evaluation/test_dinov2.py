"""DINOv2 features of a small network that learned nothing, against transformers' own."""

import pytest
import torch
from PIL import Image
from torch.nn.functional import interpolate
from transformers import Dinov2Config, Dinov2Model, Dinov2WithRegistersConfig, Dinov2WithRegistersModel

from genstack.errors import UserError
from genstack.evaluation.extractors import available_extractors
from genstack.evaluation.extractors.dinov2 import DINOv2Features, normalized
from genstack.testing import laws

SMALL = {
    "hidden_size": 12,
    "num_hidden_layers": 2,
    "num_attention_heads": 3,
    "image_size": 42,
    "patch_size": 14,
}


@pytest.fixture(params=[(Dinov2Config, Dinov2Model), (Dinov2WithRegistersConfig, Dinov2WithRegistersModel)])
def folder(request, save_untrained, monkeypatch):
    """A folder of transformers, named to genstack."""
    config, model = request.param
    place = save_untrained(lambda: model(config(**SMALL)))
    monkeypatch.setenv("GENSTACK_DINOV2", str(place))
    return place


def test_extractor_keeps_the_laws(folder):
    for law in laws(DINOv2Features):
        law()


def test_features_are_those_of_transformers(folder):
    images = torch.rand(2, 3, 30, 46) * 2 - 1
    extractor = DINOv2Features("cpu")
    found = extractor(images)
    assert (found.vectors.shape, found.probabilities) == ((2, 12), None)
    with torch.no_grad():
        expected = extractor.network(normalized(images)).last_hidden_state[:, 0]
    torch.testing.assert_close(found.vectors, expected)
    assert "12 features" in extractor.metadata["network"] and len(extractor.metadata["tensors_sha256"]) >= 16


def test_pictures_are_read_as_by_pillow():
    """Within one level of 8 bits, since Pillow rounds between its two passes."""
    coarse = torch.rand(1, 3, 8, 10) * 160 + 40
    pixels = interpolate(coarse, (300, 180), mode="bicubic")[0].permute(1, 2, 0).round().byte()
    images = pixels.permute(2, 0, 1)[None] / 127.5 - 1
    resized = Image.fromarray(pixels.numpy()).resize((224, 224), Image.Resampling.BICUBIC)
    mean, deviation = (torch.tensor(each) for each in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))
    found = normalized(images)[0].permute(1, 2, 0) * deviation + mean
    expected = torch.frombuffer(bytearray(resized.tobytes()), dtype=torch.uint8).view(224, 224, 3) / 255
    torch.testing.assert_close(found, expected, atol=1.01 / 255, rtol=0)


def test_nothing_is_fetched_or_guessed(monkeypatch, tmp_path):
    monkeypatch.delenv("GENSTACK_DINOV2", raising=False)
    assert "set GENSTACK_DINOV2" in available_extractors("cpu")[1]["FD-DINOv2"]
    (tmp_path / "config.json").write_text('{"model_type": "bert"}')
    for place in (tmp_path, tmp_path / "nowhere"):
        monkeypatch.setenv("GENSTACK_DINOV2", str(place))
        with pytest.raises(UserError, match="model_type of dinov2 or dinov2_with_registers"):
            DINOv2Features("cpu")
