"""Two tiny runs over pictures whose classes have hostile names."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from genstack.cli.main import main

HOSTILE = ("<img src=x onerror=alert(1)>", "<script>alert(1)<script>", "plain & 'quoted'")
TINY = [
    *("--data.validation", "0.3", "--data.batch_size", "4", "--data.resolution", "8"),
    *("--trainer.max_steps", "3", "--trainer.validate_every", "1", "--trainer.log_every_n_steps", "1"),
    *("--log.images", "0"),
]


@dataclass(frozen=True)
class Runs:
    """The folders of two runs and of the pictures that they were trained on, and the names of the classes."""

    classes: tuple[str, ...]
    pictures: Path
    compressor: Path
    prior: Path


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Runs:
    """A compressor and a prior of three steps each; tests that change one copy it first."""
    root = tmp_path_factory.mktemp("runs")
    pictures = root / "pictures"
    random = np.random.default_rng(0)
    for number, name in enumerate(HOSTILE * 5):
        (pictures / name).mkdir(parents=True, exist_ok=True)
        pixels = random.integers(0, 256, (8, 8), dtype=np.uint8)
        Image.fromarray(pixels).save(pictures / name / f"{number}.png")
    shared = [*TINY, "--runs", str(root)]
    width = ["--model.compressor.network.width", "8", "--model.compressor.network.dim", "8"]
    recipe = [
        "--config",
        "configs/demo/digits_compressor.yaml",
        "--data.source",
        str(pictures),
        "--data.labels",
        "folder",
    ]
    assert main(["train", "compressor", *recipe, *shared, *width, "--name", "compressor"]) is None
    size = ["--model.prior.backbone.width", "16", "--model.prior.backbone.heads", "2"]
    recipe = ["--config", "configs/demo/digits_prior.yaml", "--compressor", str(root / "compressor")]
    assert main(["train", "prior", *recipe, *shared, *size, "--name", "prior"]) is None
    return Runs(HOSTILE, pictures, root / "compressor", root / "prior")
