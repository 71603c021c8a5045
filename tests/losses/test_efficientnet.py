"""EfficientNet-Lite0 against the package that published it."""

from pathlib import Path

import numpy as np
import pytest
import torch
from einops import rearrange, reduce
from PIL import Image

from genstack.losses.efficientnet import MAPS, EfficientNetLite0
from genstack.losses.features import Frozen

GOLDEN = Path(__file__).parents[1] / "golden"


@pytest.fixture(scope="module")
def efficientnet():
    return EfficientNetLite0(size=None).build()


def photograph(name):
    data = pytest.importorskip("skimage.data")
    return rearrange(torch.from_numpy(getattr(data, name)()), "h w c -> 1 c h w") / 127.5 - 1


@pytest.mark.parametrize(("part", "height", "width"), [("whole", 64, 64), ("odd", 61, 47)])
def test_efficientnet_matches_the_published_network(efficientnet, part, height, width):
    """tests/golden/efficientnet: logits and means of maps by efficientnet-lite-pytorch 0.1.0."""
    pixels = torch.from_numpy(np.array(Image.open(GOLDEN / "lpips" / "ex_ref.png")))
    images = rearrange(pixels, "h w c -> 1 c h w")[..., :height, :width] / 127.5 - 1
    truth, seen = np.load(GOLDEN / "efficientnet" / "ex_ref.npz"), efficientnet(images)
    np.testing.assert_allclose(seen.logits[0].numpy(), truth[f"{part}_logits"], atol=2e-4)
    for found, block in zip(seen.maps, MAPS, strict=True):
        means = reduce(found, "1 d h w -> d", "mean").numpy()
        np.testing.assert_allclose(means, truth[f"{part}_map{block}"], atol=2e-4)
    assert tuple(found.shape[-2:] for found in seen.maps) == efficientnet.config.grids(height, width)
    assert tuple(found.shape[1] for found in seen.maps) == efficientnet.config.widths


@pytest.mark.parametrize(("name", "classes"), [("chelsea", {281, 282, 285}), ("coffee", {967})])
def test_efficientnet_classifies_photographs(name, classes):
    """So that colours are in order, in range, and resized as it learned them."""
    assert int(EfficientNetLite0(size=224).build()(photograph(name)).logits.argmax()) in classes


def test_images_are_resized_by_the_shorter_side():
    plan = EfficientNetLite0(size=64)
    assert plan.input_size(32, 96) == (64, 192) and plan.grids(32, 96)[0] == (16, 48)
    with pytest.raises(ValueError, match="size 31"):
        EfficientNetLite0(size=31)
    with pytest.raises(ValueError, match="images of 32 x 32 pixels or more, got 31 x 40"):
        EfficientNetLite0(size=None).grids(31, 40)


def test_missing_weights_error_names_the_command(monkeypatch):
    monkeypatch.setattr("genstack.pretrained.find_spec", lambda name: None)
    with pytest.raises(ValueError, match="run `genstack weights fetch efficientnet-lite0` once"):
        Frozen(EfficientNetLite0())(torch.zeros(1, 3, 32, 32))
