"""A small compressor that nobody has trained, its run folder, and codes of pictures made by it."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from genstack.checkpoints.model_file import save
from genstack.cli.main import main
from genstack.compressor import Autoencoder
from genstack.compressor.networks.convolutional import Convolutional
from genstack.compressor.quantizers.vq import VectorQuantizer
from genstack.data.images import Preprocessing
from genstack.model import Model

SIZE = (8, 12)
DATA = ["--data.source", "shapes:40", "--data.resolution", "8,12", "--data.batch_size", "8"]


def compressor(codebook_size: int = 300, seed: int = 0) -> Model:
    """Codes on a 4 x 6 grid, of two bytes each."""
    torch.manual_seed(seed)
    network = Convolutional(
        dim=6, width=4, multipliers=(1, 2), blocks=1, attention=(), middle_attention=False
    )
    made = Autoencoder(3, network, VectorQuantizer(codebook_size, dim=4)).eval()
    return Model(made.requires_grad_(False), Preprocessing(3, *SIZE))


@pytest.fixture
def model() -> Model:
    return compressor()


@pytest.fixture
def run(model: Model, tmp_path: Path) -> Path:
    """The folder of the compressor."""
    save(model, tmp_path / "run")
    return tmp_path / "run"


def encoder(folder: Path) -> Callable[..., Path]:
    """The command for the compressor in `folder`/run, as a function that returns the folder of the codes."""

    def encoded(*flags: str, out: str = "codes", code: int | None = None) -> Path:
        words = ["encode", str(folder / "run"), str(folder / out), *DATA, "--images_per_shard", "7", *flags]
        given = dict(zip(words[3::2], words[4::2], strict=True))  # later flags win
        assert main([*words[:3], *(word for pair in given.items() for word in pair)]) == code
        return folder / out

    return encoded


@pytest.fixture
def encode(run: Path, tmp_path: Path) -> Callable[..., Path]:
    """The command; the folder of the codes."""
    return encoder(tmp_path)


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Codes as the command makes them without flags: once, for they are always the same."""
    folder = tmp_path_factory.mktemp("made")
    save(compressor(), folder / "run")
    return encoder(folder)()


@pytest.fixture
def codes(made: Path, tmp_path: Path) -> Path:
    """A copy of them, to be damaged."""
    return Path(shutil.copytree(made, tmp_path / "codes"))
