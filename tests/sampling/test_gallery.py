"""A series and its gallery from Python: what the command line draws, in any order and in shares."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

import genstack
from genstack.checkpoints.model_file import save
from genstack.cli.main import main
from genstack.compressor import Autoencoder, Convolutional
from genstack.compressor.quantizers import VectorQuantizer
from genstack.conditions import ClassLabels
from genstack.data.images import Preprocessing, write
from genstack.dist import Process
from genstack.errors import UserError
from genstack.inputs import Prompts
from genstack.model import Model
from genstack.prior import Autoregressive, SamplingOptions
from genstack.sampling import Canvas, Gallery, Series, Sweep
from genstack.sampling.compilation import Compilation
from genstack.transformer import Backbone
from genstack.transformer.weight_cast import cast_weights


@pytest.fixture
def series(tmp_path, monkeypatch) -> Series:
    """Five images of a run with random weights, in a folder that holds a picture too."""
    network = Convolutional(
        dim=6, width=8, multipliers=(1, 1, 1), blocks=1, attention=(), middle_attention=False
    )
    compressor = Autoencoder(1, network, VectorQuantizer(16, 4))
    prior = Autoregressive(compressor.layout(16, 24), ClassLabels(("cat", "dog")), Backbone(24, 1, 3))
    for parameter in prior.parameters():
        nn.init.normal_(parameter, std=0.4)
    save(Model(compressor, Preprocessing(1, 16, 24), ("cat", "dog"), prior), tmp_path / "run")
    monkeypatch.chdir(tmp_path)
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (32, 48), dtype=np.uint8)).save("picture.png")
    model = genstack.load("run")
    return Series(model, model.condition.modality.select(Prompts(classes=("dog", "#0")), 5), seed=3)


def files(folder: str) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in Path(folder).iterdir() if path.is_file()}


def drawn(gallery: Gallery) -> Gallery:
    gallery.write(gallery.missing)
    return gallery


def sample(*words: str) -> None:
    assert main(["sample", "run", "--count", "5", "--seed", "3", "--device", "cpu", *words]) is None


@pytest.mark.slow
def test_python_samples_like_the_command_line(series):
    options = series.model.options("pretty", {"top_k": 7})
    gallery = drawn(Gallery(replace(series, options=options), Path("here")))
    write(gallery.sheet(5), Path("here.png"))
    sample("--classes", "dog,#0", "--preset", "pretty", "--top-k", "7", "--out", "there")
    assert files("here") == files("there") and len(files("here")) == 6
    assert Path("here.png").read_bytes() == Path("there.png").read_bytes()


@pytest.mark.slow
def test_python_edits_like_the_command_line(series):
    canvas = Canvas.completion(series.model, Path("picture.png"), "top:0.5", grow=0)
    drawn(Gallery(replace(series, canvas=canvas), Path("here")))
    words = ("--image", "picture.png", "--keep", "top:0.5", "--grow", "0")
    sample("--classes", "dog,#0", *words, "--out", "there")
    assert files("here") == files("there")


@pytest.mark.slow
def test_python_sweeps_as_the_command_line_does(series):
    sweep = Sweep({"temperature": (0.5, 1.0), "top_k": (0, 3)})
    galleries = [
        drawn(Gallery(replace(series, options=SamplingOptions(**cell)), Path("here") / name))
        for name, cell in sweep.cells.items()
    ]
    write(sweep.table([gallery.sheet(3) for gallery in galleries]), Path("here.png"))
    sample("--classes", "dog,#0", "--sweep", "temperature=0.5,1.0", "top_k=0,3", "--out", "there")
    for name in sweep.cells:
        assert files(f"here/{name}") == files(f"there/{name}")
    assert Path("here.png").read_bytes() == Path("there.png").read_bytes()


def test_processes_share_all_samples(series):
    for rank in (2, 0, 1):
        gallery, process = Gallery(series, Path("here")), Process(rank, 3)
        assert all(index % 3 == rank for index in process.share(gallery.missing))
        gallery.write(process.share(gallery.missing), batch_size=1)
    assert not gallery.missing
    drawn(Gallery(series, Path("alone")))
    for one, other in zip(
        sorted(Path("here").glob("*.png")), sorted(Path("alone").glob("*.png")), strict=True
    ):
        with Image.open(one) as first, Image.open(other) as second:
            assert first.info == second.info
            assert abs(np.array(first, dtype=int) - np.array(second, dtype=int)).max() <= 1


def test_leftovers_of_killed_processes_are_removed(series):
    sample("--classes", "dog,#0", "--out", "there")
    expected = files("there")
    begun = ["there/.00001.png.abc.writing", "there/.samples.jsonl.abc.writing", ".there.png.abc.writing"]
    for name in ("there/00001.png", "there/samples.jsonl", "there.png"):
        Path(name).unlink()
    for name in begun:
        Path(name).write_bytes(b"half")
    Path(".there.png2.abc.writing").touch()  # another's
    sample("--classes", "dog,#0", "--out", "there")
    assert files("there") == expected and list(Path().glob(".*")) == [Path(".there.png2.abc.writing")]


def test_progress_is_called_for_every_image(series):
    heard: list[int] = []
    Gallery(series, Path("here")).write([4, 0, 2], batch_size=2, progress=heard.append)
    assert heard == [2, 1]
    assert Gallery(series, Path("here")).missing == [1, 3]


@pytest.mark.slow
@pytest.mark.parametrize(
    "change",
    [{"seed": 4}, {"options": SamplingOptions(temperature=0.5)}, {"size": (16, 28)}, {"inputs": None}],
)
def test_other_settings_do_not_overwrite_samples(series, change):
    drawn(Gallery(series, Path("here")))
    if "inputs" in change:
        change = {"inputs": series.inputs[[1, 0, 2, 3, 4]]}
    with pytest.raises(UserError, match="choose another folder"):
        Gallery(replace(series, **change), Path("here")).missing  # noqa: B018


def test_fingerprint_depends_only_on_weights(series):
    model = series.model
    before = model.fingerprint
    model.save_preset("mine", SamplingOptions(top_k=3))
    assert genstack.load("run").fingerprint == before
    other = genstack.load("run")
    with torch.no_grad():
        next(other.prior.parameters())[..., 0] += 1
    assert other.fingerprint != before
    assert model.options("mine") == SamplingOptions(top_k=3)


def test_compiled_samples_have_the_models_fingerprint(series, monkeypatch):
    """Compiled networks have weights in another precision meanwhile; what was drawn by them goes on."""
    monkeypatch.setattr(
        "genstack.sampling.series.compiled", lambda model: cast_weights(model.prior, torch.device("cpu"))
    )
    begun = replace(series, precision="bf16")
    with Compilation(True, 2, begun.compiled) as compilation:
        Gallery(begun, Path("here")).write([0, 1, 2], batch_size=2, sample=compilation.sample)
    again = Gallery(replace(begun, model=genstack.load("run")), Path("here"))
    assert again.missing == [3, 4]
    assert drawn(again).missing == []
