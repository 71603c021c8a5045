"""ADM's evaluation of .npz files against closed forms and what ADM's own formulas give."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.linalg import sqrtm

from genstack.cli.main import main
from genstack.cli.verbs import evaluate
from genstack.errors import UserError
from genstack.evaluation.adm import Gaussian, NpzFile, split_score
from genstack.evaluation.extractor import Extractor, Features

IMAGES = {
    name: np.random.default_rng(seed).integers(0, high, (count, 6, 4, 3), dtype=np.uint8)
    for name, seed, high, count in (("real", 0, 256, 40), ("fake", 1, 200, 36))
}


class FakeInception(Extractor):
    """Means of rows, of columns and of quarters in place of a network."""

    name, frechet, kid, score = "Inception", "FID", "KID", "InceptionScore"
    metadata = {"network": "fake"}

    def __init__(self, device, spatial=False):
        assert spatial

    def __call__(self, images):
        pooled, places = images.mean(dim=(1, 3)), images.mean(dim=(1, 2))
        return Features(pooled, (8 * images[:, :, :2].mean(dim=1).flatten(1)).softmax(dim=1), places)


def theirs(images):
    """The features of the fake network, by numpy."""
    pixels = images.astype(np.float64) / 127.5 - 1
    logits = 8 * pixels[:, :2].mean(axis=3).reshape(len(images), -1)
    exponentials = np.exp(logits)
    return (
        pixels.mean(axis=(2, 3)),
        exponentials / exponentials.sum(1, keepdims=True),
        pixels.mean(axis=(1, 3)),
    )


def their_distance(one, other):
    """ADM's Fréchet distance."""
    (mu1, sigma1), (mu2, sigma2) = ((each.mean(0), np.cov(each, rowvar=False)) for each in (one, other))
    root = sqrtm(sigma1 @ sigma2).real
    return ((mu1 - mu2) ** 2).sum() + np.trace(sigma1) + np.trace(sigma2) - 2 * np.trace(root)


def share_within(points, centres, neighbours=3):
    """Share of points within the radius of some centre, by brute force."""
    between = np.linalg.norm(centres[:, None] - centres[None], axis=2)
    radii = np.sort(between, axis=1)[:, neighbours]  # the nearest of all is the centre itself
    return (np.linalg.norm(points[:, None] - centres[None], axis=2) <= radii).any(1).mean()


@pytest.fixture
def files(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(evaluate, "InceptionFeatures", FakeInception)
    for name, images in IMAGES.items():
        np.savez(f"{name}.npz", images)
    return tmp_path


def card():
    """Numbers of the card by name, and what was skipped."""
    found = json.loads(Path("fake.npz.evaluation/card.json").read_text(encoding="utf-8"))
    return {entry["name"]: entry["value"] for entry in found["numbers"]}, found["skipped"]


def test_numbers_are_those_of_adm(files, capsys):
    assert not main(["evaluate", "real.npz", "fake.npz", "--device", "cpu", "--statistics", "statistics.npz"])
    assert "sFID" in capsys.readouterr().out
    found, _ = card()
    (real, _, real_places), (fake, chances, fake_places) = map(theirs, (IMAGES["real"], IMAGES["fake"]))
    kl = (chances * (np.log(chances) - np.log(chances.mean(0)))).sum(1).mean()
    expected = {
        "IS": np.exp(kl),
        "FID": their_distance(fake, real),
        "sFID": their_distance(fake_places, real_places),
        "precision": share_within(fake, real),
        "recall": share_within(real, fake),
    }
    assert found == pytest.approx(expected, rel=1e-4)
    assert 0 < expected["precision"] <= 1
    with np.load("statistics.npz") as statistics:
        np.testing.assert_allclose(statistics["mu"], real.mean(0), atol=1e-6)
        np.testing.assert_allclose(statistics["sigma_s"], np.cov(real_places, rowvar=False), atol=1e-6)


def test_a_reference_may_have_statistics_alone(files):
    """They are taken as they are, even beside images, as ADM does."""
    assert not main(["evaluate", "real.npz", "fake.npz", "--device", "cpu", "--statistics", "alone.npz"])
    before, _ = card()
    assert not main(["evaluate", "alone.npz", "fake.npz", "--device", "cpu"])
    found, skipped = card()
    assert found == pytest.approx({name: before[name] for name in ("IS", "FID", "sFID")}, rel=1e-6)
    assert {entry["name"] for entry in skipped} == {"precision", "recall"}
    with np.load("alone.npz") as statistics:
        np.savez("both.npz", IMAGES["fake"], **statistics)
    assert not main(["evaluate", "both.npz", "fake.npz", "--device", "cpu"])
    assert card()[0]["FID"] == pytest.approx(before["FID"], rel=1e-6)


@pytest.mark.parametrize("folder", ["real", "fake"])
def test_a_folder_of_images_stands_for_its_npz_file(files, folder):
    """On either side, in the order of its names."""
    assert not main(["evaluate", "real.npz", "fake.npz", "--device", "cpu"])
    before, _ = card()
    Path(folder).mkdir()
    for number, pixels in enumerate(IMAGES[folder]):
        Image.fromarray(pixels).save(f"{folder}/{number:03}.png")
    names = [name if name == folder else f"{name}.npz" for name in ("real", "fake")]
    assert not main(["evaluate", *names, "--device", "cpu", "--out", "card"])
    found = json.loads(Path("card/card.json").read_text(encoding="utf-8"))
    assert {entry["name"]: entry["value"] for entry in found["numbers"]} == pytest.approx(before, rel=1e-5)


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"arr_0": np.zeros((2, 4, 4, 3))}, "must be uint8 of n x height x width x 3, got float64"),
        ({"arr_0": np.zeros((2, 4, 4), np.uint8)}, "must be uint8"),
        ({"other": np.zeros(2)}, "neither images"),
        ({"mu": np.zeros(3), "sigma": np.zeros((2, 2))}, "no mean and covariance"),
    ],
)
def test_other_arrays_are_refused_in_one_line(files, arrays, message, capsys):
    np.savez("wrong.npz", **arrays)
    assert main(["evaluate", "wrong.npz", "fake.npz", "--device", "cpu"]) == 2
    told = capsys.readouterr().err
    assert message in told and "wrong.npz" in told and told.count("\n") == 1


def test_flags_of_other_comparisons_are_refused(files, capsys):
    assert main(["evaluate", "real.npz", "fake.npz", "--samples", "20"]) == 2
    assert "--samples does not apply to .npz files" in capsys.readouterr().err
    with pytest.raises(UserError, match=r"--statistics applies to comparisons with \.npz files"):
        evaluate.Evaluation("run", statistics="statistics.npz")


def test_weights_that_are_missing_are_named(files, monkeypatch, capsys):
    monkeypatch.undo()
    monkeypatch.chdir(files)
    monkeypatch.setenv("GENSTACK_WEIGHTS", str(files))
    monkeypatch.setenv("TORCH_HOME", str(files))
    assert main(["evaluate", "real.npz", "fake.npz", "--device", "cpu"]) == 2
    assert "Inception weights not found; put https://" in capsys.readouterr().err


def test_the_distance_of_independent_normals_is_a_sum():
    """|m - m'|^2 and the squared differences of the deviations."""
    one, two = torch.tensor([1.0, 4.0, 9.0]), torch.tensor([4.0, 4.0, 1.0])
    first = Gaussian(torch.zeros(3).double(), one.diag().double())
    second = Gaussian(torch.tensor([1.0, 0.0, 2.0]).double(), two.diag().double())
    assert first.distance(second) == pytest.approx(5 + 1 + 0 + 4)


def test_the_score_is_a_mean_over_parts():
    """Certain and evenly spread over two classes in one part, over one class in the other."""
    even, single = torch.eye(2).repeat(3, 1), torch.tensor([[1.0, 0.0]]).repeat(6, 1)
    assert split_score(torch.cat([even, single]), 6) == pytest.approx((2 + 1) / 2)


def test_images_of_a_file_are_those_between_minus_one_and_one(files):
    file = NpzFile(files / "real.npz")
    images = file.images(range(3, 7))
    assert images.shape == (4, 3, 6, 4)
    expected = IMAGES["real"][3:7].transpose(0, 3, 1, 2) / 127.5 - 1
    torch.testing.assert_close(images, torch.from_numpy(expected).float())
