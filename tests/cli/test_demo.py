"""`genstack demo`, with its recipes made short."""

from pathlib import Path

import pytest
import torch
import yaml
from PIL import Image

from genstack.cli.main import main
from genstack.cli.verbs.demo import oracle_accuracy, prior_precision
from genstack.data import Batch, ImageData

RECIPES = Path(__file__).parents[2] / "configs" / "demo"


@pytest.mark.slow
def test_demo_trains_both_stages_and_writes_its_sheets(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    Path("configs/demo").mkdir(parents=True)  # a recipe that is there comes before the one in the package
    for stage in ("compressor", "prior"):
        settings = yaml.safe_load((RECIPES / f"shapes_{stage}.yaml").read_text())
        settings["trainer"]["max_steps"] = 2
        settings["data"] |= {"limit": 96, "batch_size": 4, "workers": 0}
        Path(f"configs/demo/shapes_{stage}.yaml").write_text(yaml.safe_dump(settings))
    assert main(["demo", "--count", "8"]) is None
    printed = capsys.readouterr().out
    assert "of 8 samples, in 100.0% of held-out images" in printed
    assert "genstack train compressor --config vqgan" in printed
    for stage, precision in (("compressor", "32-true"), ("prior", prior_precision())):
        config = yaml.safe_load(Path(f"runs/demo/{stage}/config.yaml").read_text())
        assert config["trainer"]["precision"] == precision
    sheets = {"samples", "reconstructions", "nearest", "clipart"}
    assert {path.stem for path in Path("runs/demo").glob("*.png")} == sheets
    for name in sheets:
        assert len(Image.open(f"runs/demo/{name}.png").getcolors(2**24)) > 8, name


@pytest.mark.parametrize(("instructions", "precision"), [(True, "bf16-mixed"), (False, "32-true")])
def test_demo_trains_in_bf16_only_where_the_processor_has_it(monkeypatch, instructions, precision):
    monkeypatch.setattr("genstack.cli.verbs.demo.BFLOAT16", True)
    monkeypatch.setattr("torch.cpu._is_avx512_bf16_supported", lambda: instructions)
    assert prior_precision() == precision


def test_demo_refuses_no_samples(capsys):
    assert main(["demo", "--count", "0"]) == 2
    assert "count must be at least 1, got 0" in capsys.readouterr().err


def test_oracle_accuracy_is_the_share_of_images_that_show_their_class():
    data = ImageData("shapes", resolution=32)
    batch = data.examples("validation", 20)
    assert oracle_accuracy(batch) == 1.0
    assert oracle_accuracy(Batch(batch.images, (batch.labels + 1) % 32, {})) == 0.0
    assert oracle_accuracy(Batch(torch.zeros_like(batch.images), batch.labels, {})) == 0.0
