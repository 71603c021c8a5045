"""Training on codes: the numbers of training on images, bit for bit; what is damaged is refused."""

import json
import shutil
from collections.abc import Callable
from dataclasses import asdict, replace
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import torch
from pytorch_lightning.utilities import move_data_to_device
from safetensors.numpy import load_file, save_file

from genstack.checkpoints.model_file import load, save
from genstack.cli.main import main
from genstack.conditions import ConditionImage
from genstack.data import ImageData
from genstack.data.codes import shard as shards
from genstack.data.codes.data import Archive, CodeData
from genstack.data.codes.header import read
from genstack.data.transforms import Augmentation
from genstack.errors import UserError

SETTINGS = {"resolution": "8,12", "batch_size": 8, "validation": 0.2}
PRIOR = """--model.prior Autoregressive --model.prior.backbone.width 16 --model.prior.backbone.depth 1
    --model.prior.backbone.heads 2 --model.prior.backbone.dropout 0.1 --model.condition ClassLabels
    --model.condition.dropout 0.3 --model.optimization.learning_rate 3e-3 --model.ema 0.9 --data.batch_size 4
    --data.validation 0.2 --trainer.max_steps 6 --trainer.validate_every 3 --trainer.log_every_n_steps 1
    --trainer.accelerator cpu --log.images 4"""


@pytest.fixture
def opened(encode, model) -> Callable[..., CodeData]:
    """Codes as training reads them."""

    def data(*flags: str, **settings: object) -> CodeData:
        return CodeData(ImageData(str(encode(*flags)), **{**SETTINGS, **settings}), model)

    return data


def test_batches_agree_with_those_of_images(opened, model):
    """The same order, the same split, the same inputs; the codes are what the compressor makes."""
    codes, images = opened(), ImageData("shapes:40", **SETTINGS)
    assert codes.split == images.split and codes.class_names == images.class_names
    loaders = [
        (codes.training_loader(start=12), images.training_loader(start=12)),
        (codes.training_loader(0, 3, 1, 2), images.training_loader(0, 3, 1, 2)),
        (codes.validation_loader(rank=1, processes=2), images.validation_loader(rank=1, processes=2)),
    ]
    for stored, read_anew in loaders:
        for one, other in islice(zip(stored, read_anew, strict=True), 12):
            assert torch.equal(one.posterior(torch.neg), other.posterior(model.compressor.posterior)) and len(
                one
            ) == len(other)
            assert torch.equal(one.inputs.labels, other.inputs.labels)
            assert one.inputs.captions == other.inputs.captions
            assert torch.equal(one.inputs.crops, other.inputs.crops) and one.inputs.images is None
    held_out = codes.examples("validation", 3)
    assert torch.equal(
        held_out.stored, images.examples("validation", 3).posterior(model.compressor.posterior)
    )


def test_workers_do_not_change_batches(opened):
    alone = [batch.stored for batch in islice(opened("--views", "flip").training_loader(), 8)]
    loader = opened("--views", "flip", workers=2).training_loader()
    assert all(torch.equal(one, other.stored) for one, other in zip(alone, islice(loader, 8), strict=True))


def test_views_alternate_over_epochs(opened):
    """In as many epochs as there are views, each image shows each of them once; validation sees the first."""
    codes = opened("--views", "ten-crop")
    count, everything = len(codes.split.training), codes.archive
    seen = torch.cat([batch.stored for batch in islice(codes.training_loader(0, count), 10)])
    expected = torch.cat(
        [everything.batch(codes.split.training, [view] * count).stored for view in range(10)]
    )
    assert sorted(map(tuple, seen.tolist())) == sorted(map(tuple, expected.tolist()))
    first = everything.batch(codes.split.validation, [0] * len(codes.split.validation)).stored
    assert torch.equal(torch.cat([batch.stored for batch in codes.validation_loader()]), first)
    assert codes.info.crops_vary


def test_lightning_moves_batches(opened):
    moved = move_data_to_device(next(iter(opened().training_loader())), torch.device("meta"))
    assert (
        moved.stored.device.type
        == moved.inputs.labels.device.type
        == moved.inputs.crops.device.type
        == "meta"
    )


@pytest.mark.slow
def test_losses_equal_those_of_encoding_on_the_fly(codes, run, tmp_path):
    """Whoever trains on codes gets the numbers, the weights and the pictures of training on images."""
    told = {}
    for name, source in (("images", "shapes:40"), ("codes", str(codes))):
        flags = ["--data.source", source, "--name", name, "--runs", str(tmp_path), "--compressor", str(run)]
        if name == "images":
            flags += ["--data.resolution", "8,12"]  # codes know it themselves
        assert main(["train", "prior", *PRIOR.split(), *flags]) is None
        folder = tmp_path / name
        metrics = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
        numbers = [
            {key: value for key, value in line.items() if key.split("/")[0] in ("step", "train", "val")}
            for line in metrics
        ]
        pictures = {path.name: path.read_bytes() for path in (folder / "images").iterdir()}
        told[name] = numbers, pictures, load(folder).modules().state_dict()
    images, codes = told["images"], told["codes"]
    assert len(codes[0]) >= 6 and codes[0] == images[0]
    assert len(codes[1]) == 2 and codes[1] == images[1]
    assert all(torch.equal(weight, codes[2][key]) for key, weight in images[2].items())


@pytest.mark.slow
def test_a_run_on_codes_resumes_and_samples(encode, run, tmp_path, capsys):
    flags = ["--data.source", str(encode("--views", "flip")), "--name", "p", "--runs", str(tmp_path)]
    assert main(["train", "prior", *PRIOR.split(), *flags, "--compressor", str(run)]) is None
    shutil.rmtree(run)
    assert main(["train", "resume", str(tmp_path / "p")]) is None
    assert "is complete" in capsys.readouterr().out
    assert main(["sample", str(tmp_path / "p"), "--count", "2", "--out", str(tmp_path / "drawn")]) is None
    capsys.readouterr()
    pictures = str(tmp_path / "reconstructions.png")
    assert (
        main(["reconstruct", str(tmp_path / "p"), "--out", pictures]) is None
    )  # of the images that were encoded
    assert "dB over 5 images" in capsys.readouterr().out


def test_another_compressor_is_refused(codes, model):
    with torch.no_grad():
        list(model.compressor.parameters())[-1].view(-1)[0] += 1e-6
    with pytest.raises(UserError, match="made by another compressor"):
        CodeData(ImageData(str(codes), **SETTINGS), model)


def test_settings_without_effect_are_rejected(codes, model):
    with pytest.raises(UserError, match=r"differs from 8,12 of the codes in"):
        CodeData(ImageData(str(codes), resolution=16), model)
    with pytest.raises(UserError, match="cannot be augmented"):
        CodeData(ImageData(str(codes), **SETTINGS, augmentation=Augmentation(flip=0.5)), model)


def test_a_compressor_does_not_train_on_codes(codes):
    with pytest.raises(UserError, match="holds codes"):
        ImageData(str(codes), **SETTINGS).split  # noqa: B018


def test_missing_condition_images_are_an_error(opened):
    with pytest.raises(UserError, match="encode again"):
        ConditionImage(patch=4).fit(opened().info)


def flip(path: Path, place: int) -> None:
    """Change one bit."""
    content = bytearray(path.read_bytes())
    content[place] ^= 1
    path.write_bytes(bytes(content))


@pytest.mark.parametrize("share", [0.02, 0.2, 0.4, 0.6, 0.8, 0.999])
def test_a_flipped_bit_is_refused(codes, share):
    path = codes / "000003.safetensors"
    flip(path, int(share * path.stat().st_size))
    with pytest.raises(UserError, match="000003") as error:
        archive = Archive(codes)
        archive.batch(range(21), [0] * 21)  # other shards can still be read
        archive.batch([22], [0])
    assert "\n" not in str(error.value)


def test_shards_are_checked_once(codes, monkeypatch):
    archive, checked = Archive(codes), []
    monkeypatch.setattr(shards, "checksum", lambda *_: checked.append(1) or archive.shards[0].checksum)
    archive.batch([0, 1], [0, 0])
    archive.batch([2, 3], [0, 0])
    assert len(checked) == 1


@pytest.mark.parametrize("damage", ["cut", "missing", "empty", "swapped", "other"])
def test_damaged_shards_are_refused(encode, codes, damage):
    path = codes / "000002.safetensors"
    if damage == "cut":
        path.write_bytes(path.read_bytes()[:-1])
    if damage == "missing":
        path.unlink()
    if damage == "empty":
        path.write_bytes(b"")
    if damage == "swapped":
        shutil.copy(codes / "000001.safetensors", path)
    if damage == "other":
        shutil.copy(encode("--views", "flip", out="others") / "000002.safetensors", path)
    with pytest.raises(UserError, match="000002"):
        Archive(codes)


def test_unfinished_codes_are_refused(encode, monkeypatch, model):
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", "1")
    with pytest.raises(UserError, match="not finished: 3 of 6 shards"):
        CodeData(ImageData(str(encode()), **SETTINGS), model)


@pytest.mark.parametrize(
    "change",
    [
        {"format_version": 3},
        {"images": 10**30},
        {"images": -1},
        {"images": 50},
        {"images_per_shard": 0},
        {"images_per_shard": "many"},
        {"views": []},
        {"views": [{"zoom": 1e300, "place": [0, 0], "mirrored": False}]},
        {"views": "ten-crop"},
        {"layout": {"class": "CodeLayout", "image_size": [8, 12], "codebook_size": 2**40, "grids": [[4, 6]]}},
        {"layout": {"class": "VectorQuantizer"}},
        {"layout": None},
        {"classes": [1, 2]},
        {"classes": None},
        {"shards": []},
        {"shards": [{"images": 7, "checksum": "0"}] * 6},
        {"shards": [{}] * 6},
        {"preprocessing": {"channels": 3, "height": 2**20, "width": 2**20}},
        {"preprocessing": []},
    ],
    ids=str,
)
def test_hostile_headers_are_refused(codes, change):
    """In one line, before anything is allocated."""
    said = json.loads((codes / "codes.json").read_text())
    (codes / "codes.json").write_text(json.dumps(said | change))
    with pytest.raises(UserError, match="codes") as error:
        Archive(codes)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("content", [b"", b"\xff", b"[]", b"[" * 100_000, b"null", b"{}"])
def test_invalid_headers_are_rejected(codes, content):
    (codes / "codes.json").write_bytes(content)
    with pytest.raises(UserError, match=r"codes\.json"):
        Archive(codes)


@pytest.mark.parametrize("change", ["codes", "labels", "ends", "shape", "type", "extra"])
def test_hostile_shards_are_refused(codes, change):
    """Whoever writes a shard can write its checksum too: what is in it is looked at all the same."""
    path = codes / "000000.safetensors"
    header, arrays = read(codes / "codes.json"), dict(load_file(path))
    if change == "codes":
        arrays["codes"][0, 0, 0] = 300
    if change == "labels":
        arrays["labels"][0] = -1
    if change == "ends":
        arrays["key_ends"][0] = 2**40
    if change == "shape":
        arrays["codes"] = arrays["codes"][:, :, :-1].copy()
    if change == "type":
        arrays["codes"] = arrays["codes"].astype(np.uint8)
    if change == "extra":
        arrays["more"] = np.zeros(3, np.uint8)
    checksum = shards.checksum(arrays, header.plan, {})
    told = {"genstack": json.dumps({"plan": header.plan, "skipped": {}, "checksum": checksum})}
    save_file(arrays, path, metadata=told)
    entries = (replace(header.shards[0], checksum=checksum), *header.shards[1:])
    replace(header, shards=entries).write(codes)
    with pytest.raises(UserError, match="000000"):
        Archive(codes).batch([0], [0])


def test_headers_round_trip(encode):
    header = Archive(encode("--views", "ten-crop")).header
    assert replace(header, shards=()).plan == header.plan
    assert len({asdict(view)["place"] for view in header.views}) == 5


def test_the_report_counts(opened):
    lines = opened().report().splitlines()
    assert not opened().info.crops_vary
    assert "8 x 12" in lines[0] and lines[0].endswith("1 view of each") and len(lines) == 34
    assert "of 32 classes have no training image" in lines[1]


def test_saved_compressor_has_the_same_identity(codes, run, model, tmp_path):
    """Codes fit the copy of the compressor that a prior's run holds."""
    save(load(run), tmp_path / "copy")
    CodeData(ImageData(str(codes), **SETTINGS), load(tmp_path / "copy"))
