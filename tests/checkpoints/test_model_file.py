"""Models on disk: they come back equal, whole or not at all, and no file makes a program do anything else."""

import json
import resource
import sys
import time
from dataclasses import replace

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

import genstack
from genstack.checkpoints.model_file import DESCRIPTION, TENSORS, load, save
from genstack.compressor import Autoencoder, Convolutional
from genstack.compressor.quantizers import VectorQuantizer
from genstack.conditions import ClassLabels
from genstack.data.images import Preprocessing
from genstack.description import identity
from genstack.errors import UserError
from genstack.inputs import ConditionInputs
from genstack.model import Model
from genstack.prior import Autoregressive, SamplingOptions
from genstack.transformer import Backbone

NETWORK = Convolutional(dim=6, width=4, multipliers=(1, 2), blocks=1, attention=(1,))


@pytest.fixture
def model():
    compressor = Autoencoder(3, NETWORK, VectorQuantizer(16, 4)).eval()
    layout = compressor.layout(8, 12)
    prior = Autoregressive(layout, ClassLabels(("cat", "dög")), Backbone(24, 2, 3)).eval()
    return Model(compressor, Preprocessing(3, 8, 12), ("cat", "dög"), prior, {"step": 7})


@pytest.fixture
def stored(model, tmp_path):
    """The folder of a model, its tensors and its description."""
    save(model, tmp_path)
    with safe_open(tmp_path / TENSORS, framework="pt") as file:
        description = json.loads(file.metadata()["genstack"])
    tensors = {name: tensor.clone() for name, tensor in load_file(tmp_path / TENSORS).items()}
    return tmp_path, tensors, description  # clones outlive the file, which tests overwrite


def test_model_round_trips(model, stored):
    folder, _, description = stored
    again = load(folder)
    images = torch.rand(2, 3, 8, 12) * 2 - 1
    assert torch.equal(again.reconstruct(images), model.reconstruct(images))
    inputs = ConditionInputs(torch.tensor([1, 0, 1]))
    drawn = [each.sample(inputs, SamplingOptions(guidance=1.5), 3, range(3)) for each in (model, again)]
    assert torch.equal(*drawn)
    assert (again.classes, again.preprocessing, again.metadata, again.layout) == (
        model.classes,
        model.preprocessing,
        model.metadata,
        model.layout,
    )
    assert not any(part.requires_grad for part in again.modules().parameters())
    assert not again.compressor.training
    assert json.loads((folder / DESCRIPTION).read_text(encoding="utf-8")) == description
    assert description["format_version"] == 2
    assert description["identity"] == identity(again) == identity(model)


def test_compressor_round_trips(model, tmp_path):
    save(replace(model, prior=None), tmp_path)
    assert load(tmp_path).prior is None


@torch.no_grad()
def test_identity_depends_on_all_weights_and_preprocessing(model):
    """Not of the size that images had in training: a compressor reads many."""
    known = identity(model)
    assert identity(replace(model, preprocessing=Preprocessing(3, 16, 20))) == known
    assert identity(replace(model, prior=None, classes=())) == known
    assert identity(replace(model, preprocessing=Preprocessing(3, 8, 12, background=(0, 0, 0)))) != known
    for name, value in model.compressor.state_dict().items():
        last, before = value.view(-1)[-1], value.clone()
        last.copy_(~last if value.dtype == torch.bool else last + 1)
        assert identity(model) != known, name
        value.copy_(before)
    assert identity(model) == known


def test_failed_write_keeps_the_old_file(stored, model, monkeypatch):
    folder, *_ = stored
    before = {path.name: path.read_bytes() for path in folder.iterdir()}

    def fails(tensors, path, metadata):
        path.write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("genstack.checkpoints.model_file.save_file", fails)
    with pytest.raises(OSError, match="No space left"):
        save(model, folder)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


@pytest.mark.parametrize("tenth", range(10))
def test_cut_files_are_refused(stored, tenth):
    path = stored[0] / TENSORS
    content = path.read_bytes()
    path.write_bytes(content[: len(content) * tenth // 10])
    with pytest.raises(UserError, match=r"model\.safetensors is damaged or incomplete"):
        load(stored[0])


def test_bugs_are_not_reported_as_damage(stored, monkeypatch):
    def faulty(*_):
        raise RuntimeError("a fault")

    monkeypatch.setattr("genstack.checkpoints.model_file.compare", faulty)
    with pytest.raises(RuntimeError, match=r"^a fault$"):
        load(stored[0])


def test_the_home_folder_in_a_path(stored, monkeypatch):
    monkeypatch.setenv("HOME", str(stored[0].parent))
    assert genstack.load(f"~/{stored[0].name}").preprocessing == load(stored[0]).preprocessing


def test_missing_model_is_rejected(tmp_path):
    with pytest.raises(UserError, match="holds no"):
        load(tmp_path)


def test_other_files_and_other_versions(stored):
    folder, tensors, description = stored
    for metadata, message in (
        (None, "was not written by genstack"),
        ({"genstack": "["}, "damaged"),
        ({"genstack": "[" * 100_000}, "damaged"),
        ({"genstack": "3"}, "was not written by genstack"),
        ({"genstack": json.dumps(description | {"format_version": 3})}, "format version 3"),
    ):
        save_file(tensors, folder / TENSORS, metadata=metadata)
        with pytest.raises(UserError, match=message):
            load(folder)


@pytest.mark.parametrize("change", ["missing", "unexpected", "has shape"])
def test_tensors_that_do_not_fit_are_named(stored, change):
    folder, tensors, description = stored
    name = "compressor.quantizer.codebook.weight"
    weight = tensors.pop(name)
    if change == "unexpected":
        tensors |= {name: weight, "compressor.more": weight.clone()}
    if change == "has shape":
        tensors[name] = weight[1:].clone()
    save_file(tensors, folder / TENSORS, metadata={"genstack": json.dumps(description)})
    with pytest.raises(UserError, match=rf"{change}.*" if change != "has shape" else rf"{name} has shape"):
        load(folder)


HOSTILE = {
    "a class of its own": (("compressor", "quantizer"), {"class": "os.system", "command": "true"}),
    "another part": (("compressor",), {"class": "VectorQuantizer"}),
    "no part": (("compressor",), 3),
    "a text": (("prior",), "Autoregressive"),
    "an argument more": (("compressor", "quantizer", "command"), "true"),
    "a text for a number": (("compressor", "channels"), "3"),
    "a negative number": (("compressor", "channels"), -1),
    "a fraction": (("compressor", "network", "width"), 1.5),
    "a huge width": (("compressor", "network", "width"), 2**23),
    "a wide file would be needed": (("compressor", "network", "width"), 4096),
    "a huge codebook": (("compressor", "quantizer", "codebook_size"), 2**24),
    "an endless network": (("compressor", "network", "blocks"), 2**24),
    "a longer one": (("compressor", "network", "blocks"), 10**12),
    "an endless transformer": (("prior", "backbone", "depth"), 2**24),
    "many codes": (("prior", "layout", "grids"), [[2**20, 2**20]]),
    "another layout": (("prior", "layout", "grids"), [[6, 4]]),
    "a huge image": (("preprocessing", "height"), 2**24),
    "no channels": (("preprocessing", "channels"), 2),
    "no classes": (("classes",), None),
}


@pytest.mark.parametrize("kind", HOSTILE)
def test_hostile_descriptions_allocate_nothing(stored, kind):
    """One line, at once, whatever it asks for."""
    folder, tensors, description = stored
    place, value = HOSTILE[kind]
    inner = description
    for name in place[:-1]:
        inner = inner[name]
    inner[place[-1]] = value
    save_file(tensors, folder / TENSORS, metadata={"genstack": json.dumps(description)})
    begun, peak = time.process_time(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(UserError) as error:
        load(folder)
    assert time.process_time() - begun < 10
    if sys.platform == "linux":
        assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - peak < 300_000  # kB
    assert "\n" not in str(error.value)
    assert len(str(error.value)) < 700


@pytest.mark.parametrize("name", ["compressor", "preprocessing", "classes", "prior", "made"])
def test_incomplete_descriptions(stored, name):
    folder, tensors, description = stored
    del description[name]
    save_file(tensors, folder / TENSORS, metadata={"genstack": json.dumps(description)})
    with pytest.raises(UserError, match=r"has no description|incomplete"):
        load(folder)
