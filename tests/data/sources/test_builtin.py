"""The built-in sets: digits, torchvision's, and shapes as drawn."""

import numpy as np
import pytest
import torch
from PIL import Image

from genstack.data.images import Preprocessing
from genstack.data.scene import CLASSES, Scene, Thing
from genstack.data.sources import open_source
from genstack.data.sources.shapes import ShapesSource
from genstack.errors import UserError


def test_digits_are_scikit_learns_on_the_full_range():
    from sklearn.datasets import load_digits

    truth, source = load_digits(), open_source("digits")
    assert len(source) == 1797 and source.class_names[3] == "3"
    for number in (0, 5, 1796):
        image = source.image(number, Preprocessing(1, 8, 8))
        np.testing.assert_allclose(image[0], truth.images[number] / 16, atol=0.5 / 255 + 1e-6)
        assert source.label(number) == truth.target[number]
    assert source.image(0, Preprocessing(3, 8, 8)).shape == (3, 8, 8)


def test_fake_data_of_torchvision():
    source = open_source("torchvision:FakeData")
    assert len(source) == 1000 and len(source.class_names) == 10
    assert source.image(7, Preprocessing(3, 32, 32)).shape == (3, 224, 224)
    assert 0 <= source.label(7) < 10
    assert source.info(7).mode == "RGB"


def test_torchvision_without_network_gives_one_line(tmp_path, monkeypatch):
    monkeypatch.setenv("GENSTACK_DATA", str(tmp_path))
    with pytest.raises(UserError, match=f"CIFAR10 could not be fetched.*{tmp_path}") as error:
        open_source("torchvision:CIFAR10")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("name", "message"), [("cifar10", "CIFAR10"), ("EMNIST", "split"), ("MNSIT", "MNIST")]
)
def test_invalid_sets_are_rejected(name, message):
    with pytest.raises(UserError, match=message):
        open_source(f"torchvision:{name}")


@pytest.mark.parametrize("name", ["digits", "shapes"])
def test_builtins_have_no_folders(name):
    with pytest.raises(UserError, match="no folders"):
        open_source(name, labels="folder")


@pytest.mark.parametrize(
    ("name", "count"), [("shapes", 10_000), ("shapes:pairs", 10_000), ("shapes:5", 5), ("shapes:pairs:7", 7)]
)
def test_number_of_shapes_is_configurable(name, count):
    source = open_source(name)
    assert isinstance(source, ShapesSource) and len(source) == count


@pytest.mark.parametrize("name", ["shapes", "shapes:pairs"])
def test_scenes_depend_only_on_their_number(name):
    one, other = ShapesSource(name), ShapesSource(f"{name}:20")
    assert one.scene(13) == other.scene(13) != one.scene(14)


@pytest.mark.parametrize("size", [(33, 48), (64, 40)])
def test_shapes_are_inside_and_do_not_overlap(size):
    for name in ("shapes", "shapes:pairs"):
        source = ShapesSource(name)
        for number in range(60):
            coverage = source.scene(number).coverage(*size)
            edges = [coverage[:, 0], coverage[:, -1], coverage[..., 0], coverage[..., -1]]
            assert all(edge.max() == 0 for edge in edges)
            assert coverage.sum(0).max() <= 1


def test_areas_agree_with_geometry():
    closed_forms = {"circle": np.pi, "ring": np.pi * 0.75, "square": 4.0, "triangle": 3 * np.sqrt(3) / 4}
    for shape, area in closed_forms.items():
        thing = Thing(shape, "red", 0.5, 0.5, 0.3, tilt=7.0)
        covered = Scene((thing,)).coverage(120, 150).sum() / 120**2
        assert covered == pytest.approx(area * 0.3**2, rel=5e-3)


def test_the_segmentation_is_where_the_colour_is():
    source = ShapesSource("shapes")
    for number in range(20):
        segments = source.segmentation(number, 40, 56)
        image = source.image(number, Preprocessing(3, 40, 56))
        coloured = image.amax(0) - image.amin(0) > 0.3
        assert segments.unique().tolist() == [0, 1 + source.label(number)]
        assert ((segments > 0) == coloured).float().mean() > 0.97


@pytest.mark.parametrize(
    ("place", "words"),
    [
        ((0.5, 0.2), "a red circle left of a blue square"),
        ((0.5, 0.8), "a blue square left of a red circle"),
        ((0.2, 0.5), "a red circle above a blue square"),
        ((0.8, 0.5), "a blue square above a red circle"),
    ],
)
def test_captions_say_where(place, words):
    things = (Thing("circle", "red", *place, 0.1), Thing("square", "blue", 0.5, 0.5, 0.1))
    assert Scene(things).caption == words


def test_labels_and_captions_agree():
    source = ShapesSource("shapes:400")
    seen = {source.label(number) for number in range(400)}
    assert seen == set(range(len(CLASSES)))
    assert all(CLASSES[source.label(n)] in source.caption(n) for n in range(40))
    assert torch.equal(source.image(3, Preprocessing(3, 32, 32)), source.image(3, Preprocessing(3, 32, 32)))


def test_folder_named_like_a_built_in_set_needs_a_slash(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "digits").mkdir()
    Image.new("L", (8, 8)).save(tmp_path / "digits" / "a.png")
    with pytest.warns(
        UserWarning, match=r"'digits' is the built-in set; the folder of that name is './digits'"
    ):
        assert len(open_source("digits")) > 1000
    for name in ("./digits", "digits/"):
        assert len(open_source(name)) == 1
