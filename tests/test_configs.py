"""Every committed recipe says what it is, builds as it stands, and trains in a tiny form at any size."""

import re
import signal
from dataclasses import replace
from functools import cache
from itertools import product
from pathlib import Path

import pytest
import torch
import yaml
from PIL import Image

import genstack.compressor
from genstack.checkpoints.model_file import save
from genstack.cli.main import main
from genstack.cli.parsing.parser import locate
from genstack.cli.parsing.recipes import read
from genstack.cli.parsing.stages import STAGES
from genstack.cli.quiet import quiet
from genstack.cli.verbs.train import train
from genstack.compressor import Autoencoder, Compressor, Convolutional, Gaussian
from genstack.compressor.bottleneck import Bottleneck
from genstack.compressor.quantizers import BSQ, MultiScale, MultiScaleResidual, Residual, VectorQuantizer
from genstack.conditions import ClassLabels, EncodedCaptions, ImageCodes
from genstack.data import ImageData
from genstack.data.images import to_uint8
from genstack.discovery import discover
from genstack.errors import UserError
from genstack.losses import perceptual
from genstack.model import Model
from genstack.training.callbacks.checkpoint import SIGNALS
from genstack.training.run import Run

CONFIGS = Path(__file__).parents[1] / "configs"
RECIPES = {str(path.relative_to(CONFIGS)): path for path in sorted(CONFIGS.rglob("*.yaml"))}
COMMAND = re.compile(r"genstack train (compressor|prior) .*")

#: Each recipe at one size and number of channels. Made small, those of demos hardly differ from the others.
SHAPES = list(product([(32, 32), (48, 64), (96, 32)], [1, 3]))
FORMS = [
    pytest.param(
        path,
        *SHAPES[number % len(SHAPES)],
        id=name,
        marks=pytest.mark.nightly if name.startswith("demo") else pytest.mark.slow,
    )
    for number, (name, path) in enumerate(RECIPES.items())
]

#: Sizes that make a model heavy, and the most that a tiny form has of each.
MOST = {
    "width": 16,
    "dim": 8,
    "blocks": 1,
    "depth": 2,
    "codebook_size": 32,
    "batch_size": 2,
    "max_steps": 3,
    "size": 64,  # of the images that a classifier reads
}

#: A few images, some of them laid aside.
SOURCE = {"source": "shapes", "limit": 6, "validation": 0.4}


@pytest.fixture(params=RECIPES)
def recipe(request) -> Path:
    return RECIPES[request.param]


def header(recipe):
    """The comment that a recipe opens with, and the command in it."""
    lines = recipe.read_text(encoding="utf-8").splitlines()
    comment = [line[2:] for line in lines[: lines.index("")]]
    return " ".join(comment), next(filter(None, map(COMMAND.fullmatch, comment)))


def files(recipe):
    """The stage of a recipe's command, and all files that it layers."""
    _, command = header(recipe)
    named = re.findall(r"--config (\S+)", command[0])
    assert named[-1] == str(Path("configs") / recipe.relative_to(CONFIGS)), "the recipe comes last"
    return STAGES[command[1]], [CONFIGS.parent / name for name in named]


def small(value, name=""):
    """A configuration with every size made small; channels keep their proportions only as far as they fit."""
    if isinstance(value, dict):
        return {key: small(inner, key) for key, inner in value.items()}
    if name in ("heads", "projection"):  # without a projection, channels on both sides would have to agree
        return {"heads": 2, "projection": 1}[name]
    return min(value, MOST[name]) if name in MOST and isinstance(value, int) else value


@cache
def resolved(recipe):
    """The stage of a recipe, its command line, and all settings that this reads."""
    stage, paths = files(recipe)
    parser = stage.parser
    arguments = [word for path in paths for word in ("--config", str(path))]
    given = {"data.source": "shapes", "compressor": "runs/flowers"}
    for name, value in given.items():
        if name.split(".")[0] in {*parser.flags, *parser.command.groups}:
            arguments += [f"--{name}", value]
    return stage, parser, parser.parse(arguments)


def test_the_header_names_paper_hardware_time_and_command(recipe):
    comment, command = header(recipe)
    assert re.search(r"arXiv:\d{4}\.\d{5}", comment)
    assert re.search(r"GPU|CPU", comment)
    assert re.search(r"minute|hour|day", comment)
    assert "--name" in command[0]


def test_every_recipe_has_its_place_among_the_results(recipe):
    """It is measured by the script, or the page says what is known of it."""
    script = (CONFIGS.parent / "benchmarks" / "results.py").read_text(encoding="utf-8")
    page = (CONFIGS.parent / "docs" / "results.md").read_text(encoding="utf-8")
    assert f'"{recipe.stem}"' in script or f"configs/{recipe.relative_to(CONFIGS)}" in page


def test_recipes_state_only_settings_that_exist(recipe, capsys):
    assert main(["config", "show", str(recipe)]) is None
    shown = yaml.safe_load(capsys.readouterr().out)
    for group, settings in read(recipe).items():
        assert set(settings) <= set(shown[group])


@pytest.mark.slow
def test_recipes_build_as_they_stand(recipe, monkeypatch):
    """In full size, without memory for it."""
    stage, parser, settings = resolved(recipe)
    monkeypatch.setattr(perceptual.LPIPS, "to", lambda self, device: self)
    parts = parser.build(settings)
    with torch.device("meta"):
        if stage.name == "compressor":
            model = parts.model.compressor(3)
            assert model.sizes(parts.data.size)
        else:
            data = ImageData("shapes", 64, limit=20, augmentation=parts.data.augmentation)
            compressor = Model(fitting(parts, data), data.preprocessing, data.class_names)
            model = parts.model.prior(compressor.layout, condition(parts, data))
    assert sum(parameter.numel() for parameter in model.parameters()) > 10_000


#: Compressors, quantizers and bottlenecks by name.
PARTS = {*discover(genstack.compressor, Bottleneck), *discover(genstack.compressor, Compressor)}


def fitting(parts, data):
    """The first of some small compressors that the prior of a recipe does not refuse."""
    _, *size = data.preprocessing.shape
    network = Convolutional(8, 8, (1, 1, 2, 2), 1, (), False)
    candidates = [
        Autoencoder(data.channels, network, VectorQuantizer(32, 4)),
        Autoencoder(data.channels, network, MultiScale((1, 2, 4), 32, 4)),
        Autoencoder(data.channels, network, MultiScaleResidual(BSQ(5), (1, 2, 4))),
        Autoencoder(data.channels, network, Residual(3, 32, 4)),
        Autoencoder(data.channels, network, Gaussian(4)),
    ]
    for compressor in candidates:
        try:
            with torch.device("meta"):
                prior = parts.model.prior(compressor.layout(*size), condition(parts, data))
                prior.attach(compressor)
        except UserError as error:
            remedy = set(re.findall(r"\w+", str(error).partition("; ")[2]))
            assert remedy & PARTS, "a refusal names a compressor or quantizer that would work"
        else:
            return compressor
    raise AssertionError("the prior takes no compressor")


def condition(parts, data):
    """Settings of a prior's condition: classes by default, and small forms of parts that must be named."""
    plan = parts.model.condition or ClassLabels()
    if isinstance(plan, EncodedCaptions):
        return replace(plan, length=5, dim=24)
    if isinstance(plan, ImageCodes):
        network = Convolutional(8, 8, (1, 1, 2, 2), 1, (), False)
        plan = plan.with_compressor(Autoencoder(data.channels, network, VectorQuantizer(16, 4)), "")
    return plan.fit(data.info)


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    """A folder of images."""
    folder = tmp_path_factory.mktemp("pictures")
    for number, pixels in enumerate(
        to_uint8(ImageData("shapes", 48, limit=6).examples("training", 6).images)
    ):
        Image.fromarray(pixels.numpy()).save(folder / f"{number}.png")
    return folder


def brought(settings, folder, request):
    """Paths that the command names beside its recipe: a text encoder, a compressor of condition images."""
    plan = settings["model"].get("condition") or {"class_path": ""}
    if plan["class_path"].endswith("EncodedCaptions"):
        plan["init_args"]["encoder"] = str(request.getfixturevalue("text_encoder"))
    if plan["class_path"].endswith("ImageCodes"):
        plan["init_args"]["compressor"] = str(folder)


@pytest.mark.filterwarnings("ignore:.* captions are longer than")  # those of `shapes`, not the recipe's
@pytest.mark.parametrize(("recipe", "size", "channels"), FORMS)
def test_a_few_steps_train(recipe, size, channels, pictures, tmp_path, monkeypatch, request):
    """Train by the command line, with validation and pictures; sizes and channels rotate over the recipes.

    Compressors are trained in bf16 on a folder of images.
    """
    stage, parser, settings = resolved(recipe)
    tiny = small(parser.dump(settings))
    height, width = size
    tiny["data"] |= SOURCE | {"resolution": f"{height},{width}", "channels": channels}
    if stage.name == "compressor":
        tiny["data"]["source"] = str(pictures)
        tiny["trainer"]["precision"] = "bf16-mixed"
    else:
        parts = parser.build(settings)
        data = ImageData("shapes", size, channels, limit=6, augmentation=parts.data.augmentation)
        compressor = fitting(parts, data)
        save_compressor(compressor, data, tmp_path / "compressor")
        tiny["compressor"] = str(tmp_path / "compressor")
        brought(tiny, tmp_path / "compressor", request)
    trains(stage, tiny, tmp_path, monkeypatch)


@pytest.mark.nightly
@pytest.mark.parametrize(
    ("recipe", "size", "channels"), [form for form in FORMS if header(form.values[0])[1][1] == "compressor"]
)
def test_compressors_train_in_float32(recipe, size, channels, tmp_path, monkeypatch):
    stage, parser, settings = resolved(recipe)
    tiny = small(parser.dump(settings))
    height, width = size
    tiny["data"] |= SOURCE | {"resolution": f"{height},{width}", "channels": channels}
    trains(stage, tiny, tmp_path, monkeypatch)


def trains(stage, tiny, folder, monkeypatch):
    """Train three steps: nearly all weights move and stay finite, files are written, signals are as before.

    Residual branches begin at zero, so that the weights inside them move from the second step on.
    """
    tiny["trainer"] |= {"accelerator": "cpu", "validate_every": 3, "log_every_n_steps": 1}
    tiny["log"]["images"] = 2
    tiny |= {"runs": str(folder), "name": "tiny"}
    before = []
    monkeypatch.setattr(
        locate(stage.parser.command.groups["model"].class_path),
        "on_train_start",
        lambda self: before.extend((self, [p.clone() for p in self.model.parameters()])),
    )
    handlers = [signal.getsignal(number) for number in SIGNALS]
    with quiet():  # as the command line does
        assert train(stage, stage.parser.parse_saved(tiny, "tiny.yaml"), Run(folder / "tiny")) is None
    training, weights = before
    moved = [not torch.equal(*pair) for pair in zip(weights, training.model.parameters(), strict=True)]
    assert sum(moved) > 0.8 * len(moved)
    assert all(parameter.isfinite().all() for parameter in training.model.parameters())
    assert (folder / "tiny" / "model.safetensors").exists()
    assert (folder / "tiny" / "images" / "00000003.png").exists()
    assert [signal.getsignal(number) for number in SIGNALS] == handlers


def save_compressor(compressor, data, folder):
    """A compressor that learned nothing, as if it had been trained."""
    save(Model(compressor.eval(), data.preprocessing, data.class_names), folder)
