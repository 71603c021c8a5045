"""The suggested prior accepts the compressor's codes."""

from pathlib import Path

import pytest
import torch

from genstack.cli.next_steps import next_command, recipe
from genstack.cli.parsing.recipes import read
from genstack.cli.parsing.stages import STAGES
from genstack.conditions import Unconditional
from genstack.data.images import Preprocessing
from genstack.model import Model

CONFIGS = Path(__file__).parents[2] / "configs"


def model(name: str) -> Model:
    """The compressor of a recipe, without memory for its weights."""
    parser = STAGES["compressor"].parser
    flags = ["--config", str(CONFIGS / "compressor" / f"{name}.yaml"), "--data.source", "digits"]
    settings = parser.parse(flags)
    make = parser.build(settings).model.compressor
    with torch.device("meta"):
        return Model(make(3), Preprocessing(3, 64, 64))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("compressor", "prior"),
    [
        ("vqvae", "autoregressive"),
        ("titok", "autoregressive"),
        ("residual", "residual"),
        ("lfq", "residual"),
        ("maskbit", "bits"),
        ("multiscale", "next_scale"),
        ("infinity", "infinity"),
        ("vqvae2", "hierarchical"),
        ("vae", "flow"),
    ],
)
def test_next_recipe_fits_the_codes(compressor, prior):
    made = model(compressor)
    assert recipe(made) == prior
    assert f"--compressor X --config {prior}" in next_command(made, "X")
    described = read(CONFIGS / "prior" / f"{prior}.yaml")["model"]["prior"]
    symbols = {name: value for name, value in described["init_args"].items() if name == "symbols"}
    small = {
        "model": {"prior": {"class_path": described["class_path"], "init_args": symbols}},
        "compressor": "X",
    }
    parser = STAGES["prior"].parser
    inherited = small | {"data": {"source": "digits"}}
    parts = parser.build(parser.parse([], lambda given: inherited)).model
    parts.prior(made.layout, Unconditional()).attach(made.compressor)
