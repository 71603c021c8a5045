"""Views of condition images: closed forms of edges and means, and where patches go."""

import numpy as np
import pytest
import torch
from einops import rearrange, reduce
from skimage.filters import sobel_h, sobel_v

from genstack.conditions import ConditionImage
from genstack.conditions.image import edges, low_resolution
from genstack.inputs import ConditionInputs, DataInfo, Prompts


def inputs(images):
    return ConditionInputs(torch.zeros(len(images), dtype=torch.int64), images=images)


def test_edges_agree_with_another_library():
    images = torch.rand(2, 1, 9, 13) * 2 - 1
    grey = images[:, 0].double().numpy()
    expected = np.stack([np.hypot(sobel_h(one), sobel_v(one)) for one in grey]) / 2  # a step there is 2
    inner = (slice(1, -1), slice(1, -1))
    found = ((edges(images)[:, 0] + 1) / 2).double().numpy()
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_allclose(one[inner], np.minimum(other, 1)[inner], atol=1e-5)


def test_an_even_image_has_no_edges_and_a_step_has_the_steepest():
    images = torch.full((1, 3, 8, 8), 0.3)
    torch.testing.assert_close(edges(images), torch.full((1, 1, 8, 8), -1.0))
    images[..., :4], images[..., 4:] = -1, 1
    found = edges(images)
    assert (found[..., 3:5] - 1).abs().max() < 1e-5 and (found[..., :3] + 1).abs().max() < 1e-5


def test_low_resolution_averages_squares():
    images = torch.randn(2, 3, 8, 12)
    small = reduce(images, "b c (h y) (w x) -> b c h w", "mean", y=4, x=4)
    seen = low_resolution(images, 4)
    torch.testing.assert_close(seen[..., ::4, ::4], small)
    torch.testing.assert_close(low_resolution(seen, 4), seen), "a small picture that was enlarged is itself"
    assert low_resolution(torch.randn(1, 3, 7, 10), 4).shape == (1, 3, 7, 10)


@pytest.mark.parametrize(("view", "channels"), [("plain", 4), ("low_resolution", 4), ("edges", 2)])
def test_last_channel_flags_an_image(view, channels):
    condition = ConditionImage(view).fit(DataInfo(image_shape=(3, 16, 24)))
    values = condition.encode(inputs(torch.zeros(2, 3, 16, 24)))
    assert values.shape == (2, channels, 16, 24) and (values[:, -1] == 1).all()
    assert torch.equal(condition.encode(ConditionInputs.nothing(2)), condition.null(values))


def test_tokens_depend_on_their_patch_and_its_surroundings():
    condition = ConditionImage(patch=4, shape=(3, 16, 24))
    encoder = condition.embedding(8)
    values = condition.encode(inputs(torch.zeros(1, 3, 16, 24)))
    other = values.clone()
    other[..., 8:12, 20:24] = 1.0
    moved = (encoder(values) - encoder(other)).abs().amax(-1)[0] > 1e-7
    grid = rearrange(moved, "(h w) -> h w", h=4)
    assert grid[2, 5] and not grid[:, :4].any() and not grid[0].any()


def test_errors_explain_mistakes():
    with pytest.raises(ValueError, match="patch must be a power of 2"):
        ConditionImage(patch=6)
    with pytest.raises(ValueError, match="20x24 are not a multiple of patch 8"):
        ConditionImage().fit(DataInfo(image_shape=(3, 20, 24)))
    with pytest.raises(ValueError, match="factor must be at least 1, got 0"):
        ConditionImage(factor=0)


def test_images_are_cycled_and_described_by_name():
    condition = ConditionImage(shape=(3, 16, 24))
    images = torch.arange(2.0)[:, None, None, None].expand(2, 3, 16, 24)
    chosen = condition.modality.select(Prompts(images=images, image_names=("a.png", "b.png")), 3)
    assert torch.equal(chosen.image_of_each, images[[0, 1, 0]]) and chosen.images is images
    assert condition.modality.describe(chosen) == [
        {"condition_image": name} for name in ("a.png", "b.png", "a.png")
    ]
