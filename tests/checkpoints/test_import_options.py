"""Published files stand where runs do, with a note beside them of what their tensors do not tell."""

from pathlib import Path

import pytest
import torch

import genstack
from genstack.checkpoints import import_options, model_file
from genstack.checkpoints.foreign import read
from genstack.checkpoints.import_options import ImportOptions
from genstack.checkpoints.published import load
from genstack.cli.main import main
from genstack.cli.parsing.stages import STAGES, build_training
from genstack.compressor import Autoencoder, Convolutional
from genstack.compressor.quantizers import VectorQuantizer
from genstack.data.images import Preprocessing
from genstack.errors import UserError
from genstack.model import Model
from genstack.training.run import Run

GOLDEN = Path(__file__).parents[1] / "golden"
#: Every golden file, and its note where one is needed.
PLACES = {
    "bitdance_ae.safetensors": "",
    "diffusers_kl_flux": "",
    "diffusers_kl_sd": "",
    "diffusers_vqmodel": "",
    "diffusers_vqmodel_lookup": "",
    "diffusers_vqmodel_old": "resolution: [32, 48]",
    "halton_maskgit.pth": "heads: 3\ncompressor: tokenizer\nresolution: 10",
    "janus_vq": "",
    "ldm_vq.ckpt": "ema: true",
    "ldm_vq_noattn.safetensors": "",
    "llamagen_gpt_c2i.pt": "heads: 4\ncompressor: tokenizer\nresolution: 16",
    "llamagen_gpt_t2i.pt": "heads: 2\ncompressor: tokenizer\nresolution: 12",
    "llamagen_vq.pt": "",
    "maskbit_generator.bin": "heads: 4\ncompressor: maskbit_tokenizer.bin\nresolution: 16",
    "maskbit_tokenizer.bin": "",
    "maskgit_uvit.bin": "heads: 5\ncompressor: titok_vq",
    "maskgit_vit": "compressor: titok_stage2.bin",
    "maskgit_vqgan.safetensors": "",
    "open_magvit2.ckpt": "resolution: 32",
    "openai_dvae": "",
    "rar.bin": "compressor: maskgit_vqgan.safetensors\nresolution: 32",
    "rosinality_vqvae2.safetensors": "",
    "taming_gumbelvq.safetensors": "",
    "taming_net2net_class.ckpt": "heads: 4\nclasses: 10",
    "taming_net2net_depth.ckpt": "heads: 4",
    "taming_net2net_uncond.ckpt": "heads: 2\nclasses: 0\nresolution: 16",
    "taming_vqgan.safetensors": "ibq: true\nresolution: 64x32",
    "titok_stage2.bin": "",
    "titok_vae": "",
    "titok_vq": "",
    "var_transformer.safetensors": "compressor: var_vqvae.pth",
    "var_vqvae.pth": "scales: [1, 2, 3, 4, 6, 8]",
}


#: Words in the names of files with a prior.
PRIORS = ("net2net", "gpt", "transformer", "rar", "maskgit_vit", "maskgit_uvit", "generator", "halton")


@pytest.fixture
def place(tmp_path):
    """Golden files, linked into a folder of the test, each with a note."""

    def put(name, note=None):
        if not (tmp_path / name).exists():
            (tmp_path / name).symlink_to(GOLDEN / name)
        note = PLACES[name] if note is None else note
        if note:
            import_options.note_path(tmp_path / name).write_text(note, encoding="utf-8")
        for other in PLACES:
            if f"compressor: {other}" in note.splitlines() and note == PLACES[name]:
                put(other)
        if "compressor: tokenizer" in note:
            tensors = read(GOLDEN / name).tensors()  # Halton-MaskGIT's table has a row for the mask
            masked = "tok_emb.weight" in tensors
            tokenizer(len(tensors["tok_emb.weight"]) - 1 if masked else len(tensors["tok_embeddings.weight"]))
        return tmp_path / name

    def tokenizer(codes):
        trunk = Convolutional(dim=8, width=8, multipliers=(1, 1), blocks=1, attention=(1,))
        made = Autoencoder(3, trunk, VectorQuantizer(codes, 4)).eval()
        model_file.save(Model(made, Preprocessing(3, 32, 32)), tmp_path / "tokenizer")

    return put


@pytest.mark.parametrize("name", PLACES)
def test_every_format_opens_with_its_note(name, place):
    model = genstack.load(place(name))
    assert (model.prior is not None) == any(word in name for word in PRIORS)


#: Golden files whose prior reads captions or images, for which there is no data here.
NO_DATA = {"llamagen_gpt_t2i.pt", "taming_net2net_depth.ckpt"}
#: Published epsilons of norms: of layer norms, and of group norms where they differ.
EPSILONS = {
    "bitdance_ae.safetensors": {1e-6},
    "diffusers_kl_flux": {1e-6},
    "halton_maskgit.pth": {1e-5},
    "janus_vq": {1e-6},
    "llamagen_gpt_c2i.pt": {1e-5},
    "maskbit_generator.bin": {1e-12},
    "maskbit_tokenizer.bin": {1e-6},
    "maskgit_uvit.bin": {1e-5},
    "maskgit_vit": {1e-12},
    "maskgit_vqgan.safetensors": {1e-6},
    "rar.bin": {1e-6},
    "titok_stage2.bin": {1e-5, 1e-6},
    "titok_vq": {1e-5},
    "var_transformer.safetensors": {1e-6},
}


@pytest.mark.parametrize("name", EPSILONS)
def test_epsilons_are_the_published_ones(name, place):
    """Golden outputs differ by less than their tolerance with another epsilon."""
    model = genstack.load(place(name))
    part = model.compressor if model.prior is None else model.prior
    kinds = [getattr(module, each, None) for module in part.modules() for each in ("eps", "epsilon")]
    assert {each for each in kinds if isinstance(each, float)} == EPSILONS[name]


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in PLACES if name not in NO_DATA])
def test_training_starts_from_every_format(name, place, tmp_path):
    """Settings of --init build the same network, and its weights are those of the file."""
    file = str(place(name))
    model = genstack.load(file)
    stage = STAGES["compressor" if model.prior is None else "prior"]
    words = ["--init", file, "--data.source", "shapes:12"]
    words += ["--data.resolution", "{},{}".format(*model.preprocessing.shape[1:])]
    words += [] if model.prior is None else ["--compressor", file]
    _, training = build_training(stage, stage.parse(words), Run(tmp_path / "run"))
    before = (model.compressor if model.prior is None else model.prior).state_dict()
    found = training.model.state_dict()
    assert found.keys() == before.keys()
    others = [each for each in found if "prefix.table" not in each]  # other classes
    assert all(torch.equal(found[each], before[each]) for each in others)


def test_note_has_the_options_of_import(place):
    options = ImportOptions(heads=4, classes=10)
    said, given = (
        genstack.load(place("taming_net2net_class.ckpt")),
        load(GOLDEN / "taming_net2net_class.ckpt", options),
    )
    assert model_file.described_text(said) == model_file.described_text(given)
    assert all(map(torch.equal, said.modules().state_dict().values(), given.modules().state_dict().values()))
    assert genstack.load(place("taming_vqgan.safetensors")).preprocessing.shape == (3, 64, 32)


def test_import_options_override_notes(place, tmp_path, capsys):
    file = place("taming_net2net_class.ckpt", "heads: 3\nclasses: 10")
    assert not main(["import", str(file), "--heads", "4", "--out", str(tmp_path / "run")])
    assert model_file.load(tmp_path / "run").prior.backbone.heads == 4
    capsys.readouterr()


def test_missing_option_names_flag_and_note(place, tmp_path):
    file = place("taming_net2net_class.ckpt", "classes: 10")
    with pytest.raises(UserError) as error:
        genstack.load(file)
    assert "give it by --heads" in str(error.value)
    assert f"`heads: ...` into {file}.yaml" in str(error.value)
    assert "`classes" not in str(error.value)


@pytest.mark.parametrize(
    ("note", "message"),
    [
        ("head: 4", "names resolution, heads, classes"),
        ("- 4", "names resolution, heads, classes"),
        ("heads: four", "expected a number for heads, got 'four'"),
        ("ema: 1", "expected true or false for ema, got '1'"),
        ("resolution: big", "invalid resolution 'big'"),
        ("scales: 1;2", "invalid scales"),
        ("compressor: nowhere.pt", "--compressor does not apply to a transformer"),
        ("compressor: hf:ann/flowers", "notes do not download"),
        ("compressor: taming_net2net_class.ckpt", "is a prior, not a compressor"),
        ("a: [", "yaml, line 1: expected the node content"),
        (
            "!!python/object/apply:os.system [echo]",
            "line 1: could not determine a constructor",
        ),
        ("heads: 4\nheads: 8", "yaml, line 2: heads is given twice; keep one"),
        ("#" * 70_000, "larger than 65536 bytes"),
        ("ibq: true\nheads: 4\nclasses: 10", "--ibq does not apply to a transformer"),
    ],
)
def test_invalid_notes_are_rejected_in_one_line(place, note, message):
    with pytest.raises(UserError, match=message) as error:
        genstack.load(place("taming_net2net_class.ckpt", note))
    assert str(error.value).isprintable()
