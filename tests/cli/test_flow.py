"""A prior over the latents of a VAE, from training to samples, by the command line."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

import genstack
from genstack.cli.main import main
from genstack.training.prior import PriorTraining

pytestmark = pytest.mark.slow

GOLDEN = Path(__file__).parents[1] / "golden"
RECIPE = Path(__file__).parents[2] / "configs" / "prior" / "flow.yaml"

DATA = (
    "--data.source shapes --data.resolution 16,24 --data.limit 12 --data.validation 0.25 --data.batch_size 4"
)
TRAINER = "--trainer.max_steps 4 --trainer.accelerator cpu --trainer.log_every_n_steps 1 --log.images 2"
VAE = f"""train compressor {DATA} {TRAINER} --model.compressor Autoencoder
    --model.compressor.network Convolutional
    --model.compressor.network.width 8 --model.compressor.network.dim 8 --model.compressor.network.blocks 1
    --model.compressor.network.multipliers 1,2 --model.compressor.network.attention []
    --model.compressor.network.middle_attention false --model.compressor.quantizer"""
FLOW = f"""train prior {TRAINER} --model.prior FlowMatching --model.prior.backbone.width 16
    --model.prior.backbone.depth 1 --model.prior.backbone.heads 2 --model.prior.steps 2
    --model.prior.likelihood_steps 2 --model.prior.patch 2 --model.condition ClassLabels
    --model.condition.dropout 0.2 --model.optimization.learning_rate 3e-3"""


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with runs of a VAE, of a compressor with codes, of a prior over latents, and a picture."""
    folder = tmp_path_factory.mktemp("flow")
    for name, quantizer in (("vae", "Gaussian"), ("coded", "FSQ")):
        dim = ["--model.compressor.quantizer.dim", "3"] if name == "vae" else []
        assert main([*VAE.split(), quantizer, *dim, "--name", name, "--runs", str(folder)]) is None
    assert main(train(folder, "prior")) is None
    pixels = np.random.default_rng(0).integers(0, 256, (16, 24, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(folder / "picture.png")
    return folder


def train(folder, name: str, *flags: str) -> list[str]:
    return [*FLOW.split(), "--compressor", str(folder / "vae"), "--name", name, "--runs", str(folder), *flags]


@pytest.fixture(autouse=True)
def here(place, monkeypatch):
    monkeypatch.chdir(place)


def images(folder: str) -> np.ndarray:
    return np.stack([np.array(Image.open(path), int) for path in sorted(Path(folder).glob("*.png"))])


def test_the_run_measures_its_own_loss_and_latents(place):
    described = json.loads((place / "prior" / "model.json").read_text())
    assert set(described["made"]["measured"]) == {"val/flow_matching"}
    assert described["layout"] == {
        "class": "LatentLayout", "image_size": [16, 24], "dim": 3, "grids": [[8, 12]],
    }  # fmt: skip
    tensors = load_file(place / "prior" / "model.safetensors")
    assert tensors["prior.standardization.images"] > 0
    assert not torch.equal(tensors["prior.standardization.deviation"], torch.ones(3))
    model = genstack.load("prior")
    assert model.prior.standardization.images == tensors["prior.standardization.images"]


def test_samples_do_not_depend_on_their_batch(place):
    words = ["sample", "prior", "--seed", "3", "--device", "cpu", "--solver", "euler", "--steps", "3"]
    assert main([*words, "--count", "3", "--out", "samples"]) is None
    assert main([*words, "--count", "5", "--out", "again", "--batch-size", "2", "--guidance", "1"]) is None
    one, other = images("samples"), images("again")
    assert one.shape == (3, 16, 24, 3) and abs(one - other[:3]).max() <= 1
    assert len(np.unique(other, axis=0)) == 5


def test_presets_sizes_and_sweeps(place):
    words = ["sample", "prior", "--device", "cpu", "--count", "1"]
    assert main([*words, "--preset", "pretty", "--out", "pretty"]) is None
    assert main([*words, "--size", "24x40", "--out", "large"]) is None
    assert images("large").shape == (1, 24, 40, 3)
    assert main([*words, "--sweep", "steps=1,2", "solver=euler,heun", "--out", "swept"]) is None


def test_what_is_kept_of_a_picture_stays(place):
    words = ["sample", "prior", "--device", "cpu", "--count", "2", "--image", "picture.png", "--grow", "0"]
    assert main([*words, "--keep", "top:0.5", "--out", "completed"]) is None
    original, completed = np.array(Image.open("picture.png"), int), images("completed")
    assert abs(completed[:, :8] - original[:8]).max() <= 1
    assert not (completed[:, 8:] == original[8:]).all()
    mask = np.zeros((16, 24), np.uint8)
    mask[:, 16:] = 255
    Image.fromarray(mask).save("mask.png")
    assert main([*words, "--mask", "mask.png", "--out", "inpainted"]) is None
    inpainted = images("inpainted")
    assert abs(inpainted[:, :, :16] - original[:, :16]).max() <= 1
    assert not (inpainted[:, :, 16:] == original[:, 16:]).all()
    assert main([*words, "--size", "24x32", "--out", "outpainted"]) is None
    outpainted = images("outpainted")
    assert outpainted.shape == (2, 24, 32, 3)
    assert abs(outpainted[:, 4:20, 4:28] - original).max() <= 1, "it is in the middle"


def test_interpolation_goes_through_the_latents(place):
    words = ["interpolate", "prior", "picture.png", "picture.png", "--count", "4", "--device", "cpu"]
    assert main([*words, "--out", "between.png"]) is None
    with Image.open("between.png") as sheet:
        assert sheet.width > 4 * 24


def test_training_on_an_archive_equals_training_on_images(place, capsys):
    assert main(["encode", "vae", "latents", "--device", "cpu", "--images-per-shard", "5"]) is None
    assert "latents of 8x12, 3 channels (float16)" in capsys.readouterr().out
    assert main(train(place, "archived", "--data.source", "latents")) is None
    one, other = (
        [json.loads(line) for line in (place / name / "metrics.jsonl").read_text().splitlines()]
        for name in ("prior", "archived")
    )
    for first, second in zip(one, other, strict=True):
        losses = {name for name in first if name in ("train/loss", "val/flow_matching")}
        assert {name: second[name] for name in losses} == pytest.approx(
            {name: first[name] for name in losses}, rel=2e-3
        )


def test_a_resumed_run_is_the_same_bit_for_bit(place, monkeypatch):
    class PowerCut(BaseException):
        """Nothing catches it."""

    def cut(self, *arguments):
        if self.global_step == 2:
            raise PowerCut
        return step(self, *arguments)

    step = PriorTraining.training_step
    with monkeypatch.context() as patch:
        patch.setattr(PriorTraining, "training_step", cut)
        with pytest.raises(PowerCut):
            main(train(place, "halves", "--trainer.checkpoint_minutes", "0"))
    assert main(["train", "resume", "halves"]) is None
    one, other = (load_file(place / name / "model.safetensors") for name in ("prior", "halves"))
    assert all(torch.equal(tensor, other[name]) for name, tensor in one.items())


def test_evaluation_has_nats_per_latent_dimension(place):
    words = [
        "evaluate",
        "prior",
        "--samples",
        "16",
        "--batch-size",
        "4",
        "--device",
        "cpu",
        "--lpips",
        "none",
    ]
    assert main([*words, "--out", "card"]) is None
    card = json.loads(next(place.glob("card*/**/*.json")).read_text())
    names = [number["name"] for number in card["numbers"]]
    assert "nats/latent dimension" in names and "nats/latent dimension (training)" in names
    assert "nats/code" not in names


def test_export_has_the_velocity_network(place):
    words = ["export", "prior", "--to", "torch-export", "--out", "programs", "--batch", "2"]
    assert main(words) is None
    program = torch.export.load(place / "programs" / "prior.pt2").module()
    prior = genstack.load("prior").prior
    latents, times, labels = torch.randn(2, 3, 8, 12), torch.tensor([0.2, 0.7]), torch.tensor([0, 1])
    expected = prior.network(latents, times, prior.network.encode_condition(labels))
    torch.testing.assert_close(program(latents, times, labels), expected, atol=1e-5, rtol=1e-5)


def test_a_kl_autoencoder_of_diffusers_takes_the_prior(place):
    from diffusers import AutoencoderKL

    AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        block_out_channels=(8, 16),
        latent_channels=3,
        norm_num_groups=4,
        scaling_factor=0.5,
        shift_factor=0.25,
    ).save_pretrained(place / "kl")
    words = [*FLOW.split(), *DATA.split(), "--compressor", "kl", "--name", "kl-prior", "--runs", "."]
    assert main(words) is None
    tensors = load_file(place / "kl-prior" / "model.safetensors")
    assert torch.equal(tensors["prior.standardization.mean"], torch.full((3,), 0.25))
    assert torch.equal(tensors["prior.standardization.deviation"], torch.full((3,), 2.0))
    assert main(["sample", "kl-prior", "--device", "cpu", "--count", "1", "--out", "of-kl"]) is None


#: Layouts of published KL autoencoders: a tiny file of the kind, and what its config.json states.
PUBLISHED = {
    "sd": ("diffusers_kl_sd", {"scaling_factor": 0.18215}),
    "sd3": ("diffusers_kl_flux", {"scaling_factor": 1.5305, "shift_factor": 0.0609}),
    "flux": ("diffusers_kl_flux", {"scaling_factor": 0.3611, "shift_factor": 0.1159}),
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_kl_autoencoders_train_the_recipe(name, place):
    """The command of docs/priors.md in small: few steps, a small transformer."""
    golden, stated = PUBLISHED[name]
    shutil.copytree(GOLDEN / golden, place / f"kl-{name}")
    config = place / f"kl-{name}" / "config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | stated))
    words = f"""train prior --compressor kl-{name} {DATA} --config {RECIPE} {TRAINER}
        --runs . --name {name}-flow
        --model.prior.backbone.width 16 --model.prior.backbone.depth 1 --model.prior.backbone.heads 2
        --model.prior.patch 2 --model.prior.steps 2 --trainer.validate_every 2"""
    assert main(words.split()) is None
    tensors = load_file(place / f"{name}-flow" / "model.safetensors")
    channels = len(tensors["prior.standardization.mean"])
    assert channels == (4 if name == "sd" else 16)
    expected = torch.full((channels,), stated.get("shift_factor", 0.0))
    torch.testing.assert_close(tensors["prior.standardization.mean"], expected)
    expected = torch.full((channels,), 1 / stated["scaling_factor"])
    torch.testing.assert_close(tensors["prior.standardization.deviation"], expected)
    lines = map(json.loads, (place / f"{name}-flow" / "metrics.jsonl").read_text().splitlines())
    losses = [line["val/flow_matching"] for line in lines if "val/flow_matching" in line]
    assert len(losses) == 2 and losses[1] < losses[0]
    words = f"sample {name}-flow --device cpu --count 2 --out of-{name} --solver euler"
    assert main(words.split()) is None
    assert images(f"of-{name}").shape == (2, 16, 24, 3)


@pytest.mark.parametrize(
    ("name", "chosen", "prompts"),
    [
        ("captions", "--model.condition.depth 1 --model.condition.heads 2", "--caption circle"),
        ("image", "--data.condition_images null --model.condition.view edges", "--condition-images pictures"),
        ("coordinates", "", "--coordinates 0,0,0.5,0.5"),
    ],
)
def test_other_conditions(place, name, chosen, prompts):
    """Recipes of conditions are added to that of flow, as to those of other priors."""
    folder = place / "pictures"
    folder.mkdir(exist_ok=True)
    shutil.copy("picture.png", folder / "a.png")
    words = f"""train prior --compressor vae {TRAINER} --config {RECIPE} --config {RECIPE.parent / name}.yaml
        --data.batch_size 4 --model.prior.backbone.width 16 --model.prior.backbone.depth 1
        --model.prior.backbone.heads 2 --model.prior.steps 2 --runs . --name by-{name} {chosen}"""
    assert main(words.split()) is None
    words = f"sample by-{name} --device cpu --count 2 --guidance 2 {prompts} --out of-{name}"
    assert main(words.split()) is None
    assert images(f"of-{name}").shape == (2, 16, 24, 3)


def test_mar_does_what_flow_does(place, capsys):
    """From its recipe to samples, an edited picture and numbers."""
    words = f"""train prior --compressor vae {TRAINER} --config {RECIPE.parent / "mar.yaml"}
        --data.batch_size 4 --model.prior.backbone.width 16 --model.prior.backbone.depth 1
        --model.prior.backbone.heads 2 --model.prior.head.width 16 --model.prior.head.depth 1
        --model.prior.head.steps 2 --model.prior.masks 2 --model.prior.likelihood_steps 2
        --runs . --name mar"""
    assert main(words.split()) is None
    sample = ["sample", "mar", "--device", "cpu", "--count", "2", "--steps", "3"]
    assert main([*sample, "--preset", "pretty", "--solver", "heun", "--out", "of-mar"]) is None
    edit = ["--image", "picture.png", "--grow", "0", "--keep", "top:0.5", "--out", "edited-by-mar"]
    assert main([*sample, *edit]) is None
    original = np.array(Image.open("picture.png"), int)
    assert abs(images("edited-by-mar")[:, :8] - original[:8]).max() <= 1
    words = ["evaluate", "mar", "--samples", "16", "--device", "cpu", "--lpips", "none", "--out", "mar-card"]
    assert main(words) is None
    assert "nats/latent dimension" in capsys.readouterr().out
    assert main(["sample", "mar", "--top-k", "3", "--out", "never"]) == 2
    assert "top_k does not apply to MAR; leave out top_k 3" in capsys.readouterr().err


def test_report_and_plan(place, capsys):
    assert main(["report", "prior", "--device", "cpu", "--samples", "4"]) is None
    page = (place / "prior" / "report.html").read_text()
    assert "flow-matching loss" in page and "latents of 8x12, 3 channels" in page
    assert main(["plan", *train(place, "planned")[1:]]) is None
    out = capsys.readouterr().out
    assert "as latents of 8x12, 3 channels" in out and "of latents in half precision" in out
    assert not (place / "planned").exists()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            "train prior --compressor coded --model.prior FlowMatching",
            "FlowMatching cannot model 96 codes of 1000; use a prior of codes such as Autoregressive",
        ),
        (
            "train prior --compressor vae --model.prior Masked",
            "Masked cannot model latents of 8x12, 3 channels; use the prior FlowMatching",
        ),
        ("sample prior --top-k 3 --out never", "top_k does not apply to FlowMatching"),
        (
            "train prior --compressor vae --model.prior FlowMatching --model.prior.patch 5",
            "patches of 5x5 do not divide latents of 8x12",
        ),
    ],
)
def test_what_does_not_fit_is_refused_in_one_line(words, message, capsys):
    assert main(words.split()) == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1
