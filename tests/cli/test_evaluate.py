"""`genstack evaluate` on small models with random weights, and on folders of pictures."""

import json
import shutil
from contextlib import contextmanager

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from genstack.checkpoints.model_file import save
from genstack.cli.main import main
from genstack.cli.verbs.doctor import Finding
from genstack.compressor import Autoencoder, Convolutional
from genstack.compressor.gaussian import Gaussian
from genstack.compressor.quantizers import MultiScale, VectorQuantizer
from genstack.conditions import ClassLabels
from genstack.data import ImageData
from genstack.data.images import Preprocessing
from genstack.data.scene import CLASSES
from genstack.evaluation import extractors
from genstack.evaluation.extractor import Extractor, Features
from genstack.evaluation.extractors.inception import FILE
from genstack.model import Model
from genstack.prior import Autoregressive
from genstack.transformer import Backbone

SIZE = (16, 24)
QUICK = ["--device", "cpu", "--lpips", "none"]
SHAPES = ["--data.source", "shapes:24", "--data.labels", "own"]


class MeanFeatures(Extractor):
    """Means of small patches."""

    name, frechet, kid, score = "Means", "FD-Means", "KID-Means", "ClassifierScore-Means"
    metadata = {"network": "means"}

    def __init__(self, device="cpu"):
        pass

    def __call__(self, images):
        means = nn.functional.adaptive_avg_pool2d(images, 2).flatten(1)
        return Features(means, means.softmax(1))


def available(device):
    return [MeanFeatures()], {"FID": "no weights"}


@pytest.fixture(scope="module")
def untrained(tmp_path_factory):
    """A folder with a compressor, a prior and a VAE with random weights."""
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("untrained")
    network = Convolutional(
        dim=6, width=8, multipliers=(1, 1, 1), blocks=1, attention=(), middle_attention=False
    )
    compressor = Autoencoder(3, network, VectorQuantizer(16, 4))
    prior = Autoregressive(compressor.layout(*SIZE), ClassLabels(CLASSES), Backbone(24, 1, 3))
    preprocessing = Preprocessing(3, *SIZE)
    save(Model(compressor, preprocessing), folder / "compressor")
    save(Model(compressor, preprocessing, CLASSES, prior), folder / "prior")
    save(Model(Autoencoder(3, network, Gaussian(4)), preprocessing), folder / "vae")
    return folder


@pytest.fixture(autouse=True)
def place(untrained, tmp_path, monkeypatch):
    """A copy of these models, where the command works."""
    shutil.copytree(untrained, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("genstack.evaluation.networks.available_extractors", available)
    for name in ("RANK", "WORLD_SIZE", "SLURM_PROCID"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path


def pictures(folder, count, seed=0, size=SIZE, names="{}.png"):
    """Save images of noise."""
    folder.mkdir()
    chance = np.random.default_rng(seed)
    for number in range(count):
        pixels = chance.integers(0, 256, (*size, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / names.format(number))
    return str(folder)


def card(folder):
    saved = json.loads((folder / "card.json").read_text())
    return saved, {number["name"]: number for number in saved["numbers"]}


def test_compressor_card(place, capsys):
    assert main(["evaluate", "compressor", *SHAPES, *QUICK]) is None
    saved, numbers = card(place / "compressor" / "evaluation")
    assert saved["kind"] == "compressor"
    assert {"PSNR", "SSIM", "rKID-Means", "codebook usage", "perplexity", "dead codes"} <= set(numbers)
    assert numbers["pKID-Means (25%)"]["value"] != numbers["rKID-Means"]["value"]
    assert saved["protocol"]["generated"]["perturbed"] == [0.25]
    assert numbers["bits/pixel (stored)"]["value"] == 4 * (4 * 6) / (16 * 24)
    assert numbers["dead codes"]["value"] == 16 * (1 - numbers["codebook usage"]["value"])
    assert numbers["PSNR"]["interval"][0] < numbers["PSNR"]["value"] < numbers["PSNR"]["interval"][1]
    skipped = {each["name"]: each["reason"] for each in saved["skipped"]}
    assert "needs at least 2,048 images of either set, got 24" in skipped["rFD-Means"]
    assert saved["protocol"]["real"]["count"] == 24 and saved["protocol"]["real"]["split"] == "all"
    assert len(saved["images"]["worst"]) == len(saved["images"]["best"]) == 8
    worst, best = (saved["images"][name][0]["psnr"] for name in ("worst", "best"))
    assert worst < numbers["PSNR"]["value"] < best
    assert (place / "compressor" / "evaluation" / "worst.png").exists()
    out = capsys.readouterr().out.splitlines()
    assert len(out) == len(numbers) + len(skipped) + 1


def test_prior_card(place):
    assert main(["evaluate", "prior", *SHAPES, "--samples", "20", "--temperature", "0.5", *QUICK]) is None
    saved, numbers = card(place / "prior" / "evaluation")
    for name in ("nats/code", "bits/pixel (prior, exact)", "gKID-Means", "precision-Means", "recall-Means"):
        assert name in numbers
    assert {"density-Means", "coverage-Means", "ClassifierScore-Means", "agreement (oracle)"} <= set(numbers)
    assert numbers["gKID-Means"]["real"] is not None
    assert numbers["agreement (oracle)"]["real"] > 0.9
    assert saved["protocol"]["samples"]["options"]["temperature"] == 0.5
    bits = numbers["nats/code"]["value"] * 24 / np.log(2) / (16 * 24)
    assert numbers["bits/pixel (prior, exact)"]["value"] == pytest.approx(bits)
    assert {"near-copies", "gFD-Means"} <= {each["name"] for each in saved["skipped"]}


@pytest.mark.slow
def test_precision_applies_to_sampling_alone(place):
    words = ["evaluate", "prior", *SHAPES, "--samples", "16", *QUICK]
    for precision in ("fp32", "bf16"):
        assert main([*words, "--precision", precision, "--out", precision]) is None
    (plain, exact), (low, rounded) = (card(place / precision) for precision in ("fp32", "bf16"))
    assert plain["protocol"]["samples"]["precision"] == "fp32"
    assert low["protocol"]["samples"]["precision"] == "bf16"
    for name in ("PSNR", "nats/code", "rKID-Means"):
        assert exact[name] == rounded[name]


def test_codebook_usage_per_grid(place):
    """Usage of each grid matches a count by numpy, also of a grid with one code per image."""
    network = Convolutional(6, 8, (1, 1), blocks=1, attention=(), middle_attention=False)
    compressor = Autoencoder(3, network, MultiScale((1, 2, 5), 16, 4))
    model = Model(compressor.eval(), Preprocessing(3, *SIZE))
    save(model, place / "scales")
    assert main(["evaluate", "scales", "--data.source", "shapes:24", *QUICK]) is None
    numbers = card(place / "scales" / "evaluation")[1]
    data = ImageData("shapes:24", SIZE)
    images = torch.cat([data.samples(range(24))[0, index].images for index in range(24)])
    with torch.no_grad():
        codes = compressor.encode(images)
    for number, part in enumerate(model.layout.split(codes), 1):
        counts = np.unique(part.numpy(), return_counts=True)[1]
        shares = counts / counts.sum()
        name = f"(grid {number}, {part.shape[1]}x{part.shape[2]})"
        assert numbers[f"codebook usage {name}"]["value"] == len(counts) / 16
        entropy = -(shares * np.log(shares)).sum()
        assert numbers[f"perplexity {name}"]["value"] == pytest.approx(np.exp(entropy))


class Colour(nn.Module):
    """Predict the brightest channel as one of the first three classes of `shapes`."""

    def forward(self, images):
        means = images.mean((2, 3))
        return torch.cat([means, means.amin(1, keepdim=True).expand(-1, len(CLASSES) - 3) - 1], dim=1)


@pytest.mark.slow
def test_user_classifier_checks_samples(place):
    images = torch.rand(2, 3, *SIZE)
    program = torch.export.export(Colour(), (images,), dynamic_shapes=({0: torch.export.Dim.DYNAMIC},))
    torch.export.save(program, place / "colour.pt2")
    words = ["evaluate", "prior", *SHAPES, "--samples", "20", *QUICK]
    assert main([*words, "--classifier", "colour.pt2"]) is None
    saved, numbers = card(place / "prior" / "evaluation")
    data = ImageData("shapes:24", SIZE)
    found = data.samples(range(24))
    read = [int(Colour()(found[0, index].images).argmax()) for index in range(24)]
    real = np.mean([one == int(found[0, index].labels) for index, one in enumerate(read)])
    assert numbers["agreement (classifier)"]["real"] == pytest.approx(real)
    assert saved["protocol"]["samples"]["matchers"]["classifier"]["file"] == "colour.pt2"


@pytest.mark.slow
def test_batch_size_does_not_change_the_card(place):
    for size in ("5", "24"):
        words = [*SHAPES, *QUICK, "--samples", "17", "--batch-size", size, "--out", size]
        assert main(["evaluate", "prior", *words]) is None
    one, other = (card(place / size)[1] for size in ("5", "24"))
    assert one.keys() == other.keys()
    for name in one:
        assert one[name]["value"] == pytest.approx(other[name]["value"], rel=1e-3, abs=1e-3), name


def test_card_without_codes(place):
    assert main(["evaluate", "vae", "--data.source", "shapes:20", "--samples", "16", *QUICK]) is None
    numbers = card(place / "vae" / "evaluation")[1]
    assert {"PSNR", "rate", "gKID-Means"} <= set(numbers) and "codebook usage" not in numbers


def test_folder_compared_with_itself(place, capsys):
    real = pictures(place / "real", 20)
    assert main(["evaluate", real, real, *QUICK]) is None
    numbers = card(place / "real.evaluation")[1]
    assert numbers["PSNR"]["value"] == "inf" and numbers["SSIM"]["value"] == pytest.approx(1)
    assert numbers["precision-Means"]["value"] == numbers["recall-Means"]["value"] == 1
    assert numbers["KID-Means"]["value"] < 0


@pytest.mark.slow
def test_files_and_tensors_give_equal_numbers(place):
    """Compare saved reconstructions by folder, and those in memory."""
    from genstack.checkpoints.model_file import load
    from genstack.data.images import save as save_image

    data, model = ImageData("shapes:24", SIZE), load(place / "compressor")
    batch = torch.cat([data.samples(range(24))[0, index].images for index in range(24)])
    for name, images in (("real", batch), ("fake", model.reconstruct(batch))):
        (place / name).mkdir()
        for index, image in enumerate(images):
            save_image(image, place / name / f"{index}.png", model.preprocessing, {})
    assert main(["evaluate", "compressor", "--data.source", "shapes:24", *QUICK]) is None
    assert main(["evaluate", "real", "fake", *QUICK]) is None
    tensors, files = card(place / "compressor" / "evaluation")[1], card(place / "fake.evaluation")[1]
    for name, other in {"PSNR": "PSNR", "SSIM": "SSIM", "KID-Means": "rKID-Means"}.items():
        assert files[name]["value"] == pytest.approx(tensors[other]["value"], rel=1e-4, abs=1e-6), name


def test_card_holds_the_metadata_of_samples(place):
    real = pictures(place / "real", 16)
    assert main(["sample", "prior", "--count", "16", "--out", "drawn", "--device", "cpu"]) is None
    assert main(["evaluate", real, "drawn", *QUICK]) is None
    saved, numbers = card(place / "drawn.evaluation")
    assert saved["protocol"]["generated"]["sampled_by"]["seed"] == 0
    assert "PSNR" not in numbers, "samples are not pairs, in spite of equal names"


@pytest.mark.slow
def test_compiled_networks_sample_in_batches_of_one_size(place, monkeypatch):
    sizes, entered = [], []

    @contextmanager
    def compiled(model):
        entered.append(model)
        yield
        entered.append("done")

    sample = Model.sample
    monkeypatch.setattr("genstack.evaluation.samples.compiled", compiled)
    monkeypatch.setattr("genstack.cli.verbs.doctor.compiler", lambda: Finding("ok", ""))
    monkeypatch.setattr(
        Model,
        "sample",
        lambda self, inputs, options, seed, indices: (
            sizes.append((len(indices), len(entered))) or sample(self, inputs, options, seed, indices)
        ),
    )
    words = ["evaluate", "prior", *SHAPES, *QUICK, "--samples", "20", "--batch-size", "16"]
    assert main([*words, "--out", "plain"]) is None
    assert not entered and sizes[:2] == [(16, 0), (4, 0)]
    sizes.clear()
    assert main([*words, "--compile", "true", "--out", "quick"]) is None
    assert entered[1:] == ["done"] and set(sizes) == {(16, 1)}
    plain, quick = card(place / "plain"), card(place / "quick")
    assert quick[0]["protocol"]["command"]["compile"] is True
    for name, number in plain[1].items():
        assert quick[1][name]["value"] == pytest.approx(number["value"], rel=1e-3, abs=1e-5), name


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["missing", "fake"], "folder missing not found"),
        (["fake", "missing"], "folder missing not found"),
        (["fake", "empty"], "holds no pictures"),
        (["fake", "larger"], "sizes differ"),
        (["fake", "few"], "few has 3; a comparison needs at least 16"),
        (["fake", "compressor"], "compressor is a run"),
        (["fake", "fake", "--samples", "50"], "--samples applies to a run"),
        (["missing"], "missing not found"),
        (["empty"], "holds no model.safetensors"),
        (["compressor"], "--data.source"),
        (["compressor", *SHAPES, "--samples", "50"], "compressor is a compressor and has no samples"),
        (["compressor", *SHAPES, "--compile", "true"], "leave out --compile"),
        (["fake", "fake", "--compile", "true"], "--compile applies to a run"),
        (["prior", *SHAPES, "--steps", "4"], "is fixed; leave out steps 4"),
        (["prior", *SHAPES, "--samples", "3"], "samples must be at least 16, got 3"),
        (["prior", *SHAPES, "--data.resolution", "16"], "the data's width is 16, but the model expects 24"),
        (["compressor", *SHAPES, "--data.channels", "1"], "the data's channels is 1"),
        (["compressor", *SHAPES, "--classifier", "fake"], "leave out --classifier"),
        (["fake", "fake", "--classifier", "fake"], "--classifier applies to a run"),
        (["prior", *SHAPES, "--classifier", "fake"], "move them into a folder per class"),
        (
            ["prior", *SHAPES, "--classifier", "net.zip"],
            "invalid classifier net.zip: expected a .pt2 or .onnx file",
        ),
        (["compressor", *SHAPES, "--split", "validation", "--lpips", "vvg"], "unknown lpips vvg"),
    ],
)
def test_evaluate_errors_are_one_line(place, capsys, words, said):
    pictures(place / "fake", 20)
    pictures(place / "few", 3, names="few{}.png")
    pictures(place / "larger", 20, size=(20, 24))
    (place / "empty").mkdir()
    assert main(["evaluate", *words]) == 2
    message = capsys.readouterr().err
    assert said in message and message.count("\n") == 1


@pytest.mark.parametrize("flags", [[], ["--data.resolution", "16,24"]], ids=["as they are", "scaled"])
@pytest.mark.parametrize("kept", [4, 0.7], ids=["no picture", "cut off"])
def test_unreadable_images_of_both_folders_are_listed(place, capsys, flags, kept):
    """No image is silently left out or replaced."""
    for name in ("real", "fake"):
        pictures(place / name, 20)
    for path in (place / "real" / "3.png", place / "real" / "17.png", place / "fake" / "17.png"):
        content = path.read_bytes()
        path.write_bytes(content[: kept if kept > 1 else int(kept * len(content))])
    assert main(["evaluate", "real", "fake", *flags, *QUICK]) == 2
    message = capsys.readouterr().err
    assert "cannot read 3 of 40 images" in message and message.count("\n") == 1
    assert all(name in message for name in ("real/3.png", "real/17.png", "fake/17.png"))
    assert not (place / "fake.evaluation" / "card.json").exists()


@pytest.mark.filterwarnings("ignore:skipped")
def test_card_lists_unreadable_images(place):
    """The next image replaces an unreadable one; of 25 images, one may be unreadable."""
    folder = pictures(place / "real", 25)
    damaged = place / "real" / "3.png"
    damaged.write_bytes(damaged.read_bytes()[:40])
    words = ["--data.source", folder, "--split", "all", *QUICK]
    assert main(["evaluate", "compressor", *words]) is None
    unreadable = card(place / "compressor" / "evaluation")[0]["protocol"]["real"]["unreadable"]
    assert list(unreadable) == ["3.png"] and "3.png" in unreadable["3.png"]
    damaged.unlink()
    assert main(["evaluate", "compressor", *words]) is None
    assert card(place / "compressor" / "evaluation")[0]["protocol"]["real"]["unreadable"] == {}


def test_resolution_scales_images_of_other_sizes(place):
    pictures(place / "fake", 20)
    pictures(place / "larger", 20, size=(20, 24), names="other{}.png")
    assert main(["evaluate", "larger", "fake", "--data.resolution", "16,24", *QUICK]) is None
    assert card(place / "fake.evaluation")[0]["protocol"]["real"]["height"] == 16


@pytest.mark.slow
@pytest.mark.parametrize("source", ["images", "archive"])
def test_trained_run_is_compared_with_its_training_images(place, capsys, source):
    words = """train compressor --data.source shapes --data.resolution 16,24 --data.limit 120
        --data.validation 0.3 --data.batch_size 4 --model.compressor Autoencoder
        --model.compressor.network Convolutional --model.compressor.network.width 8
        --model.compressor.network.dim 8 --model.compressor.network.blocks 1
        --model.compressor.network.multipliers 1,2,2 --model.compressor.network.attention []
        --model.compressor.network.middle_attention false --model.compressor.quantizer FSQ
        --trainer.max_steps 2 --trainer.accelerator cpu --log.images 2 --name stage --runs ."""
    assert main(words.split()) is None
    words = """train prior --compressor stage --model.prior Autoregressive --model.prior.backbone.width 16
        --model.prior.backbone.depth 1 --model.prior.backbone.heads 2 --trainer.max_steps 2
        --trainer.accelerator cpu --log.images 2 --name drawn --runs ."""
    if source == "archive":  # its run is evaluated on the images that were encoded
        assert main(["encode", "stage", "--out", "codes"]) is None
        words += " --data.source codes"
    assert main(words.split()) is None
    assert main(["evaluate", "drawn", "--samples", "16", "--training", "50", *QUICK]) is None
    saved, numbers = card(place / "drawn" / "evaluation")
    assert {"near-copies", "agreement (neighbours)", "nats/code (training)"} <= set(numbers)
    assert {"near-copies-Means", "agreement (neighbours-Means)"} <= set(numbers)
    assert saved["protocol"]["real"]["split"] == "validation"
    assert "50 training images" in numbers["near-copies"]["meaning"]
    for name in ("nearest", "nearest-Means"):
        assert len(saved["images"][name]) == 12
        assert (place / "drawn" / "evaluation" / f"{name}.png").exists()
    capsys.readouterr()
    assert main(["evaluate", "drawn", "--data.validation", "0.6", *QUICK]) == 2
    assert "as held out; use at most 0.3" in capsys.readouterr().err


def test_missing_inception_weights_error_names_the_cache(place, monkeypatch):
    found, missing = extractors.available_extractors("cpu")
    assert [extractor.kid for extractor in found] == ["KID-EffLite0"]
    assert "weights-inception-2015-12-05-6726825d.pth" in missing["FID"] and "\n" not in missing["FID"]
    monkeypatch.setenv("GENSTACK_WEIGHTS", str(place))
    torch.save({"weight": torch.zeros(3)}, place / FILE)
    assert "expected SHA-256" in extractors.available_extractors("cpu")[1]["FID"]


FEW = ["evaluate", "prior", "--data.source", "shapes:40", "--samples", "20", "--batch-size", "8", *QUICK]


def evaluate_share(rank):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("genstack.evaluation.networks.available_extractors", available)
        return main([*FEW, "--out", "two"])


@pytest.mark.distributed
def test_two_processes_match_one(place, in_processes):
    assert in_processes(evaluate_share) == [None, None]
    assert main([*FEW, "--out", "one"]) is None
    one, two = (card(place / name) for name in ("one", "two"))
    assert one[1] == two[1]
    assert one[0]["images"] == two[0]["images"]
    assert two[0]["protocol"]["processes"] == 2
