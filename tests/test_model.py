"""What `Model.encode` takes, and one line for anything else."""

import numpy as np
import pytest
import torch
from PIL import Image

from genstack.compressor import Autoencoder, Strided
from genstack.compressor.quantizers import FSQ
from genstack.data.images import Preprocessing
from genstack.errors import UserError
from genstack.model import Model


@pytest.fixture
def model() -> Model:
    return Model(Autoencoder(3, Strided(8, 4, 1, 4), FSQ((5, 3))).eval(), Preprocessing(3, 16, 24))


@pytest.fixture
def picture(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (20, 30, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "picture.png")
    with Image.open(tmp_path / "picture.png") as picture:
        yield picture


def test_pictures_paths_and_tensors_have_the_same_codes(model, picture, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    path = tmp_path / "picture.png"
    tensor = model.preprocessing.to_model(model.preprocessing.read(path))
    codes = model.encode(picture)
    for images in (path, str(path), "~/picture.png", tensor, tensor[None], tensor.double(), [picture]):
        assert torch.equal(model.encode(images), codes)
    several = model.encode(picture, [path, tensor], (torch.stack([tensor, tensor]),))
    assert torch.equal(several, codes.repeat(5, 1))


@pytest.mark.parametrize(
    ("image", "message"),
    [
        ((), "paths of files, tensors .* or lists of them, got none"),
        (np.zeros((3, 16, 24)), "got ndarray"),
        (None, "got NoneType"),
        (torch.zeros(1, 16, 24), r"`c h w` or `b c h w` with c 3, got \(1, 16, 24\)"),
        (torch.zeros(16, 24), r"got \(16, 24\)"),
        (torch.zeros(3, 0, 24), r"got \(3, 0, 24\)"),
        (torch.zeros(0, 3, 16, 24), "got none"),
        (torch.zeros(3, 16, 24, dtype=torch.uint8), r"floats in \[-1, 1\], got torch.uint8"),
        (torch.full((3, 16, 24), 255.0), r"tensors in \[-1, 1\], got values from 255 to 255"),
        (torch.full((3, 16, 24), torch.nan), "got values from nan to nan"),
        (Image.fromarray(np.full((20, 30), np.nan, np.float32)), "a picture cannot be read: 600 of its 600"),
        ("missing.png", r"missing.png cannot be read as a picture: No such file"),
    ],
)
def test_anything_else_is_rejected_in_one_line(model, image, message):
    with pytest.raises(UserError, match=message) as caught:
        model.encode(image)
    assert "\n" not in str(caught.value)
