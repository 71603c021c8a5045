"""Every verb preprocesses images as the model does: size, channels, window, bits and background."""

import numpy as np
import pytest
from PIL import Image

from genstack.checkpoints.model_file import save
from genstack.cli.main import main
from genstack.compressor import Autoencoder, Convolutional
from genstack.compressor.quantizers import VectorQuantizer
from genstack.data import ImageData
from genstack.data.images import Preprocessing
from genstack.data.sources.folder import FolderSource
from genstack.errors import UserError
from genstack.model import Model

KINDS = {
    "scans": Preprocessing(1, 16, 24, (0.0, 4095.0), 16),
    "floats": Preprocessing(1, 16, 24, (0.0, 2.0), 16),
    "transparent": Preprocessing(3, 16, 24, background=(0, 0, 0)),
}


@pytest.fixture(params=KINDS)
def run(request, tmp_path, monkeypatch):
    """A compressor with random weights, and a folder of pictures that only its preprocessing reads right."""
    preprocessing = KINDS[request.param]
    network = Convolutional(
        dim=6, width=8, multipliers=(1, 1), blocks=1, attention=(), middle_attention=False
    )
    compressor = Autoencoder(preprocessing.channels, network, VectorQuantizer(16, 4))
    save(Model(compressor, preprocessing), tmp_path / "run")
    monkeypatch.chdir(tmp_path)
    chance = np.random.default_rng(0)
    for name in ("set/a", "set/b", "fake"):
        (tmp_path / name).mkdir(parents=True)
        for number in range(8):
            pixels = {
                "scans": lambda: chance.integers(0, 5000, (20, 30)).astype(np.uint16),
                "floats": lambda: chance.random((20, 30), np.float32) * 2,
                "transparent": lambda: chance.integers(0, 256, (20, 30, 4), np.uint8),
            }[request.param]()
            Image.fromarray(pixels).save(tmp_path / name / f"{number}.tif")
    return preprocessing


@pytest.fixture
def used(monkeypatch):
    """The preprocessings that pictures are read by."""
    found, read = set(), FolderSource.image

    def image(self, number, preprocessing):
        found.add(preprocessing)
        return read(self, number, preprocessing)

    monkeypatch.setattr(FolderSource, "image", image)
    return found


@pytest.mark.slow
@pytest.mark.parametrize(
    "command",
    [
        ["reconstruct", "run", "--source", "set", "--device", "cpu"],
        ["evaluate", "run", "--data.source", "set", "--lpips", "none", "--device", "cpu"],
        ["data", "check", "set", "--run", "run"],
    ],
    ids=lambda command: command[0],
)
def test_verbs_use_the_preprocessing_of_the_model(command, run, used):
    assert main(command) is None
    assert used == {run}


def test_compared_folders_share_preprocessing(run, used):
    settings = [f"--data.channels={run.channels}", f"--data.background={','.join(map(str, run.background))}"]
    settings += [f"--data.window={','.join(map(str, run.window))}"] if run.window else []
    command = ["evaluate", "set/a", "fake", "--data.resolution=16,24", "--lpips=none", "--device=cpu"]
    assert main([*command, *settings]) is None
    assert used == {run}


def test_reconstructions_of_equal_pictures_are_equal(run):
    """The way of training, by settings, and the way of the verbs, by the model."""
    trained = ImageData(
        "set", (16, 24), run.channels, "none", window=run.window, background=run.background, validation=0.0
    )
    other = ImageData.for_model(run, "set")
    for number in range(16):
        image, same = (data.samples(range(16))[0, number].images for data in (trained, other))
        assert (image == same).all()


def test_setting_that_contradicts_the_run_is_rejected(run):
    with pytest.raises(UserError, match="--channels comes from --run run"):
        from genstack.cli.verbs.data import check

        check("set", channels=3, run="run")
