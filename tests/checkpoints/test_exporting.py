"""Models handed on, against the programs that read them: diffusers, onnxruntime, torch without genstack."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch

import genstack
import genstack.prior
from genstack.atomic import new_folder
from genstack.checkpoints import model_file
from genstack.checkpoints.exporting import exports, write
from genstack.checkpoints.exports.card import card
from genstack.checkpoints.exports.onnx import save
from genstack.checkpoints.exports.programs import STEPS, programs
from genstack.cli.main import main
from genstack.compressor import Autoencoder, Convolutional, HierarchicalAutoencoder, MaskGITNetwork, Strided
from genstack.compressor.gaussian import Gaussian
from genstack.compressor.quantizers import FSQ, MultiScale, Residual, VectorQuantizer
from genstack.conditions import ClassLabels, Unconditional
from genstack.data.images import Preprocessing
from genstack.discovery import discover
from genstack.errors import UserError
from genstack.model import Model
from genstack.prior import Autoregressive, Prior
from genstack.prior.diffusion import Diffusion
from genstack.prior.flow_matching import FlowMatching
from genstack.prior.hierarchical import Hierarchical
from genstack.prior.mar import MAR
from genstack.prior.masked import Masked
from genstack.prior.next_scale import NextScale
from genstack.prior.pixelcnn import GatedPixelCNN
from genstack.prior.pixelsnail import PixelSNAIL
from genstack.prior.random_order import RandomOrder
from genstack.prior.residual import ResidualTransformer
from genstack.testing import exports as laws
from genstack.testing import laws_in
from genstack.transformer import Backbone

PLAN = Convolutional(16, 32, (1, 2), 1, (1,))
SMALL = Strided(8, 4, 1, 4)
CLASSES = ("rose", "tulip", "lily")
BACKBONE = Backbone(16, 1, 2)
CLOSE = {"atol": 5e-5, "rtol": 1e-4}
MEASURED = {"val/nats": 2.5, "data": "flowers"}


def compressor(quantizer, network=PLAN, **arguments):
    """A compressor with random weights, for images of 16 x 24."""
    made = {"data": "flowers", "step": 7, "images": 99, "seed": 3, "measured": MEASURED}
    built = Autoencoder(3, network, quantizer, **arguments).eval().requires_grad_(False)
    return Model(built, Preprocessing(3, 16, 24), CLASSES, metadata=made)


@torch.no_grad()
def with_prior(kind, quantizer, condition, *plan):
    """A model with a prior of random weights, none of which is zero or one."""
    model = two_grids() if quantizer is None else compressor(quantizer, SMALL)
    prior = kind(model.layout, condition, *(plan or (BACKBONE,))).eval().requires_grad_(False)
    for parameter in prior.parameters():
        parameter.add_(0.1 * torch.randn_like(parameter))
    return replace(model, prior=prior)


@pytest.fixture
def images():
    return torch.rand(2, 3, 16, 24) * 2 - 1


@pytest.mark.slow
@pytest.mark.filterwarnings("default")
@pytest.mark.parametrize(
    ("name", "law"),
    [
        # A program takes ten seconds to write, which `test_programs_compute_the_same` does, too.
        pytest.param(name, law, marks=pytest.mark.nightly)
        if name in ("onnx", "torch-export") and law is laws.files_appear_whole_or_with_one_line_why_not
        else (name, law)
        for name in exports()
        for law in laws_in(laws)
    ],
    ids=lambda part: getattr(part, "__name__", None),
)
def test_export_keeps_the_law(name, law):
    assert name == exports()[name].name
    law(exports()[name])


@pytest.mark.filterwarnings("default")  # diffusers says that accelerate is not there
@pytest.mark.parametrize(
    ("quantizer", "changes"),
    [
        ({"dim": 8}, {}),
        ({"dim": 16, "normalize": False}, {"projection": 0}),
        ({"dim": 4, "normalize": False}, {"network": Convolutional(8, 32, (1, 1, 3), 2, (), False)}),
    ],
    ids=["unit vectors", "no projection", "no attention"],
)
@torch.no_grad()
def test_diffusers_computes_the_same(tmp_path, images, quantizer, changes):
    from diffusers import VQModel

    model = compressor(VectorQuantizer(64, **quantizer), **changes)
    write(model, exports()["diffusers"], tmp_path / "out")
    theirs = VQModel.from_pretrained(tmp_path / "out")
    codes = model.compressor.encode(images)
    _, _, (_, _, numbers) = theirs.quantize(theirs.encode(images).latents)
    assert torch.equal(numbers.reshape(2, -1), codes)
    torch.testing.assert_close(theirs(images).sample, model.compressor(images).images, **CLOSE)
    back = genstack.load(tmp_path / "out").compressor  # and so do we, by the way that reads published weights
    assert torch.equal(back.encode(images), codes)


@pytest.mark.filterwarnings("default")
@torch.no_grad()
def test_diffusers_computes_the_same_without_codes(tmp_path, images):
    from diffusers import AutoencoderKL

    model = compressor(Gaussian(16, shift=0.25, scale=0.5), replace(PLAN, double=True))
    write(model, exports()["diffusers"], tmp_path / "out")
    theirs = AutoencoderKL.from_pretrained(tmp_path / "out")
    assert (theirs.config.shift_factor, theirs.config.scaling_factor) == (0.25, 0.5)
    assert genstack.load(tmp_path / "out").compressor.standardization == (0.25, 2.0)
    torch.testing.assert_close(theirs(images).sample, model.compressor(images).images, **CLOSE)


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (lambda: compressor(FSQ()), "as quantizer, got FSQ"),
        (lambda: compressor(VectorQuantizer(), projection=3), "a projection of 1 x 1, not 3 x 3"),
        (lambda: compressor(VectorQuantizer(), MaskGITNetwork(8, 16, (1, 2), 1)), "got MaskGITNetwork"),
        (lambda: compressor(Gaussian(16)), "double: true"),
        (lambda: compressor(Gaussian(8), replace(PLAN, double=True)), "not 16 and 8"),
        (lambda: compressor(VectorQuantizer(), replace(PLAN, multipliers=(2, 2))), "not 64"),
        (lambda: compressor(VectorQuantizer(), Convolutional(8, 24, (1, 2), 1, ())), "not [6, 12]"),
        (lambda: with_prior(Autoregressive, FSQ(), Unconditional()), "no class for a prior"),
    ],
)
def test_unsupported_compressors_are_rejected_by_diffusers(tmp_path, model, message):
    with pytest.raises(UserError) as error:
        write(model(), exports()["diffusers"], tmp_path / "out")
    assert message in str(error.value)
    assert not list(tmp_path.iterdir())


def two_grids():
    """VQ-VAE-2 of random weights."""
    built = HierarchicalAutoencoder(3, SMALL, VectorQuantizer(32, 4), Strided(6, 2, 1, 4)).eval()
    return Model(built.requires_grad_(False), Preprocessing(3, 16, 24), CLASSES)


#: A model with each kind of prior.
PRIORS = {
    "Autoregressive": lambda: with_prior(Autoregressive, VectorQuantizer(32, 4), ClassLabels(CLASSES)),
    "Diffusion": lambda: with_prior(Diffusion, VectorQuantizer(32, 4), ClassLabels(CLASSES)),
    "FlowMatching": lambda: with_prior(
        FlowMatching, Gaussian(4), ClassLabels(CLASSES), replace(BACKBONE, adaln="own")
    ),
    "GatedPixelCNN": lambda: with_prior(GatedPixelCNN, VectorQuantizer(32, 4), ClassLabels(CLASSES), 16, 2),
    "Hierarchical": lambda: with_prior(Hierarchical, None, ClassLabels(CLASSES), BACKBONE, BACKBONE),
    "MAR": lambda: with_prior(MAR, Gaussian(4), ClassLabels(CLASSES)),
    "Masked": lambda: with_prior(Masked, FSQ((5, 3)), ClassLabels(CLASSES)),
    "NextScale": lambda: with_prior(NextScale, MultiScale((1, 2, 4), 32, 4), ClassLabels(CLASSES)),
    "PixelSNAIL": lambda: with_prior(PixelSNAIL, VectorQuantizer(32, 4), ClassLabels(CLASSES), 16, 2, 2, 2),
    "RandomOrder": lambda: with_prior(RandomOrder, VectorQuantizer(32, 4), Unconditional()),
    "ResidualTransformer": lambda: with_prior(
        ResidualTransformer, Residual(3, 32, 4), ClassLabels(CLASSES), BACKBONE, 2
    ),
}
MODELS = {
    "autoregressive": PRIORS["Autoregressive"],
    "crossed": lambda: with_prior(
        Masked, FSQ((5, 3)), ClassLabels(CLASSES), replace(BACKBONE, cross_attention=True)
    ),
    "gaussian": lambda: compressor(Gaussian(4), SMALL),
    "hierarchical": two_grids,
}


def run_onnx(path, program):
    import onnxruntime

    session = onnxruntime.InferenceSession(path.with_suffix(".onnx"))
    assert [each.name for each in session.get_outputs()] == [program.output]
    return torch.from_numpy(
        session.run(None, {key: value.numpy() for key, value in program.inputs.items()})[0]
    )


def run_torch(path, program):
    return torch.export.load(path.with_suffix(".pt2")).module()(*program.inputs.values())


@pytest.mark.slow
@pytest.mark.filterwarnings("default")  # of torch's own
@pytest.mark.parametrize(
    ("name", "kind", "run"),
    [
        ("autoregressive", "onnx", run_onnx),
        pytest.param("autoregressive", "torch-export", run_torch, marks=pytest.mark.nightly),
        pytest.param("crossed", "onnx", run_onnx, marks=pytest.mark.nightly),
        ("gaussian", "torch-export", run_torch),
        ("hierarchical", "torch-export", run_torch),
    ],
)
@torch.no_grad()
def test_programs_compute_the_same(tmp_path, name, kind, run):
    model = MODELS[name]()
    write(model, exports()[kind], tmp_path / "out", batch=2)
    for program in programs(model, batch=2):  # other inputs than those of the export
        expected = program.module(*program.inputs.values())
        torch.testing.assert_close(run(tmp_path / "out" / program.name, program), expected, **CLOSE)


@torch.no_grad()
def test_programs_agree_with_the_model(images):
    model = MODELS["autoregressive"]()
    encoder, decoder, prior = programs(model, 2)
    codes = encoder.module(images)
    assert torch.equal(codes, model.compressor.encode(images))
    torch.testing.assert_close(decoder.module(codes), model.reconstruct(images), **CLOSE)
    assert prior.module(*prior.inputs.values()).shape == (*codes.shape, 32)


def test_every_prior_is_covered():
    assert PRIORS.keys() == discover(genstack.prior, Prior).keys()


@pytest.mark.nightly
@pytest.mark.filterwarnings("default")
@pytest.mark.parametrize("name", PRIORS)
@torch.no_grad()
def test_a_step_of_every_prior_computes_the_same(tmp_path, name):
    """In onnxruntime, and in torch without genstack."""
    model = PRIORS[name]()
    made, other = programs(model, batch=2)[-1], programs(model, batch=2)[-1]  # with other inputs
    save(made, tmp_path / "prior.onnx")
    torch.export.save(made.exported(), tmp_path / "prior.pt2")
    expected = other.module(*other.inputs.values())
    assert expected.std() > 0.05
    for run in (run_onnx, run_torch):
        torch.testing.assert_close(run(tmp_path / "prior", other), expected, **CLOSE)


def test_a_prior_without_a_program_is_refused(monkeypatch):
    model = PRIORS["Masked"]()
    monkeypatch.setattr("genstack.checkpoints.exports.programs.STEPS", STEPS[1:])
    with pytest.raises(UserError, match="cannot export Masked as a program"):
        programs(model, 1)


def test_genstack_computes_the_same(tmp_path, images):
    model = MODELS["autoregressive"]()
    write(model, exports()["safetensors"], tmp_path / "out", licence="cc-by-4.0")
    again = genstack.load(tmp_path / "out")
    assert model_file.identity(again) == model_file.identity(model)
    assert (again.classes, again.metadata) == (model.classes, model.metadata)
    described = json.loads((tmp_path / "out" / "model.json").read_text())
    assert described["identity"] == model_file.identity(model)


def test_card_has_data_numbers_licence_and_use():
    model = MODELS["autoregressive"]()
    text = card(model, exports()["safetensors"], "hf:ann/flowers", "CC-BY-4.0", 1)
    assert text.startswith("---\nlicense: cc-by-4.0\nlibrary_name: genstack\n")
    for part in (
        "Source: flowers",
        "7 steps",
        "| val/nats | 2.5 |",
        "rose, tulip, lily",
        "24 codes of 32 ",
    ):
        assert part in text
    assert 'genstack.load("hf:ann/flowers")' in text
    assert "None was given" in card(model, exports()["onnx"], "out", "", 1)
    with pytest.raises(UserError, match="invalid licence"):
        card(model, exports()["onnx"], "out", "do\nwhat", 1)


def test_code_of_a_card_runs(tmp_path, monkeypatch):
    """The lines for genstack, run as they stand, beside a picture."""
    from PIL import Image

    monkeypatch.chdir(tmp_path)
    Image.fromarray(np.zeros((20, 20, 3), np.uint8)).save("picture.png")
    for name, model in (("prior", MODELS["autoregressive"]()), ("codes", compressor(FSQ(), SMALL))):
        write(model, exports()["safetensors"], tmp_path / name)
        lines = (tmp_path / name / "README.md").read_text().split("```python\n")[1].split("```")[0]
        place = {}
        exec(lines, place)
        assert (
            place["images"].shape == (4, 3, 16, 24) if name == "prior" else place["picture"].size == (24, 16)
        )


def test_export_folder_is_complete_or_absent(tmp_path):
    with pytest.raises(RuntimeError), new_folder(tmp_path / "a") as partial:
        (partial / "file").write_text("half")
        raise RuntimeError
    assert not list(tmp_path.iterdir())
    with new_folder(tmp_path / "a") as partial:
        (partial / "file").write_text("whole")
        assert not (tmp_path / "a").exists()
    assert [path.name for path in tmp_path.rglob("*")] == ["a", "file"]


def test_the_command_line(tmp_path, capsys):
    run, out = str(tmp_path / "run"), tmp_path / "out"
    model_file.save(MODELS["autoregressive"](), tmp_path / "run")
    assert not main(["export", run, "--to", "safetensors", "--out", str(out), "--licence", "mit"])
    assert "model.safetensors" in capsys.readouterr().out
    assert {path.name for path in out.iterdir()} == {"README.md", "model.json", "model.safetensors"}
    for words, message in {
        (run, "--out", str(out)): "exists already",
        (run,): "expected a run and a folder",
        (run, "--to", "onyx", "--out", "x"): "did you mean 'onnx'?",
        (run, "--out", str(tmp_path / "no"), "--push", "ann"): "expected hf:user/name",
        (run, "--out", str(tmp_path / "no"), "--batch", "0"): "batch must be at least 1, got 0",
    }.items():
        assert main(["export", *words]) == 2
        assert message in capsys.readouterr().err
    assert not main(["export", "--list"])
    listed = capsys.readouterr().out
    assert all(f"{name}\n" in listed for name in ("safetensors", "diffusers", "onnx", "torch-export"))
