"""Encoding: codes are those of the compressor, small, whole, complete, and go on where they were left."""

import json
from dataclasses import replace
from math import prod
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from genstack.checkpoints.model_file import save
from genstack.cli.main import main
from genstack.cli.verbs.encode import summary
from genstack.data import ImageData
from genstack.data.codes.data import Archive
from genstack.data.codes.encoding import Encoding
from genstack.data.codes.header import Header, ShardInfo, read
from genstack.data.codes.views import VIEWS
from genstack.layout import CodeLayout

SETTINGS = {"source": "shapes:40", "resolution": "8,12", "batch_size": 8}


def stamps(folder: Path) -> dict[str, int]:
    return {path.name: path.stat().st_mtime_ns for path in folder.glob("*.safetensors")}


@pytest.mark.slow
@pytest.mark.parametrize("views", VIEWS)
def test_codes_agree_with_encoding_each_view(encode, model, views, capsys):
    archive = Archive(encode("--views", views))
    data = ImageData(**SETTINGS)
    assert list(archive.keys()) == [data.catalog.key(number) for number in range(40)]
    for number in (0, 6, 7, 39):
        image = data.preprocessing.to_model(data.catalog.image(number, data.preprocessing))
        for place, view in enumerate(VIEWS[views]):
            batch = archive.batch([number], [place])
            expected = model.compressor.encode(view(image, data.size)[None])
            assert torch.equal(batch.stored, expected)
            assert batch.inputs.labels.tolist() == [data.catalog.label(number)]
            assert batch.inputs.captions == (data.catalog.caption(number),)
            assert batch.inputs.crops[0].tolist() == pytest.approx(view.edges((8, 12), data.size))
    assert "40 images" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("codebook_size", "dtype"),
    [(2, "u1"), (256, "u1"), (257, "u2"), (65536, "u2"), (65537, "u4"), (2**33, "u8")],
)
def test_the_smallest_type_that_fits(codebook_size, dtype, model):
    layout = CodeLayout((8, 12), codebook_size, ((4, 6),))
    header = Header("", layout, model.preprocessing, (), VIEWS["center"], "", 1, "", 1)
    assert header.storage.dtype == np.dtype(dtype)


def test_ten_crops_of_imagenet_at_384_take_less_than_15_gigabytes(tmp_path, model):
    """1,281,167 images, ten views of 24 x 24 codes of two bytes, and what lies beside them."""
    layout = CodeLayout((384, 384), 16384, ((24, 24),))
    header = Header("", layout, model.preprocessing, (), VIEWS["ten-crop"], "", 1_281_167, "", 4096)
    codes = header.images * len(header.views) * layout.length * header.storage.dtype.itemsize
    beside = header.images * (4 + 2 * 4 + 8 + len("n01440764/n01440764_10026.JPEG"))
    assert codes == 14_759_043_840 and codes + beside < 15e9
    assert 4 * codes == pytest.approx(59e9, rel=0.01), "as int64"
    Path(tmp_path / "one.safetensors").write_bytes(bytes(1000))
    assert "1000 bytes an image" in summary(replace(header, shards=(ShardInfo(1, ""),)), tmp_path)[1]


def test_bytes_beside_the_codes_are_few(encode):
    archive = Archive(encode("--images_per_shard", "40"))
    size = (archive.folder / "000000.safetensors").stat().st_size
    assert size - 40 * archive.header.layout.length * 2 < 1000 + 40 * (4 + 8 + 8 + 10 + 8 + 40)


def test_interrupted_encoding_resumes(encode, monkeypatch, capsys):
    whole = encode(out="straight")
    written = 0
    before = Encoding.arrays

    def killed(self, rows):
        nonlocal written
        written += 1
        if written == 4:
            raise KeyboardInterrupt
        return before(self, rows)

    monkeypatch.setattr(Encoding, "arrays", killed)
    folder = encode(code=130)
    monkeypatch.undo()
    assert sorted(stamps(folder)) == ["000000.safetensors", "000001.safetensors", "000002.safetensors"]
    kept = stamps(folder)
    (folder / ".000003.safetensors.abc.writing").touch()  # as it is after SIGKILL
    encode()
    assert stamps(folder).items() >= kept.items(), "what was there is not made again"
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == {
        path.name: path.read_bytes() for path in whole.iterdir()
    }
    capsys.readouterr()
    encode()
    assert "encoded" not in capsys.readouterr().out, "nothing is left to do"


def test_processes_share_the_work(encode, monkeypatch, capsys):
    whole = encode(out="alone")
    monkeypatch.setenv("WORLD_SIZE", "3")
    for rank in (2, 0, 1):
        monkeypatch.setenv("RANK", str(rank))
        folder = encode()
        if rank == 2:
            assert sorted(stamps(folder)) == ["000002.safetensors", "000005.safetensors"]
            assert "2 of 6 shards exist" in capsys.readouterr().out
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == {
        path.name: path.read_bytes() for path in whole.iterdir()
    }


@pytest.mark.parametrize(
    ("flag", "value", "told"),
    [
        ("--views", "flip", "views"),
        ("--data.resolution", "16,12", "layout"),
        ("--data.source", "shapes:41", "images, keys"),
        ("--images_per_shard", "8", "images_per_shard"),
    ],
)
def test_other_settings_are_rejected(encode, flag, value, told, capsys):
    folder = encode()
    before = {path: path.read_bytes() for path in folder.iterdir()}
    encode(flag, value, code=2)
    message = capsys.readouterr().err
    assert told in message and "choose another --out" in message and message.count("\n") == 1
    assert {path: path.read_bytes() for path in folder.iterdir()} == before


def test_another_compressor_is_rejected_when_resuming(encode, run, model, capsys):
    encode()
    with torch.no_grad():
        next(model.compressor.parameters()).view(-1)[0] += 1e-3
    save(model, run)
    encode(code=2)
    assert "(compressor)" in capsys.readouterr().err


@pytest.fixture
def pictures(tmp_path):
    """25 pictures of unequal sizes, one of them damaged."""
    chance = np.random.default_rng(0)
    for number in range(25):
        path = tmp_path / "pictures" / "abc"[number % 3] / f"{number} ü.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        sides = tuple(chance.integers(9, 40, 2))
        Image.fromarray(chance.integers(0, 256, (*sides, 3), np.uint8)).save(path)
    path.write_bytes(path.read_bytes()[:100])
    return tmp_path / "pictures"


def test_unreadable_picture_is_skipped_and_counted(encode, pictures, capsys):
    with pytest.warns(UserWarning, match="24 ü.png"):
        folder = encode("--data.source", str(pictures), "--data.labels", "folder", "--views", "flip")
    archive = Archive(folder)
    assert len(archive) == 24 and archive.header.skipped == 1 and archive.header.classes == ("a", "b", "c")
    assert not any(key.endswith("24 ü.png") for key in list(archive.keys()))
    assert "1 images could not be read" in capsys.readouterr().out
    assert archive.batch(range(24), [0] * 24).inputs.labels.tolist() == [
        "abc".index(key[0]) for key in list(archive.keys())
    ]
    sides = {tuple(row) for shard in archive.shards for row in shard.arrays["sides"].tolist()}
    assert len(sides) > 20


def test_too_many_unreadable_pictures_are_refused(encode, pictures, capsys):
    for path in sorted(pictures.rglob("*.png"))[:4]:
        path.write_text("no picture")
    with pytest.warns(UserWarning, match="skipped"):
        folder = encode("--data.source", str(pictures), code=2)
    assert "over 5%" in capsys.readouterr().err and not (folder / "codes.json").exists()


def test_archives_hold_condition_images(encode):
    archive = Archive(encode("--data.condition_images", "own", "--views", "flip"))
    data = ImageData(**SETTINGS, condition_images="own")
    for view in VIEWS["flip"]:
        map_of = data.preprocessing.to_model(data.catalog.condition_image(9, data.preprocessing))
        found = archive.batch([9], [archive.header.views.index(view)]).inputs.images
        torch.testing.assert_close(found[0], view(map_of, data.size), atol=1 / 255, rtol=0)


def test_header_describes_the_archive(encode, model):
    folder = encode("--views", "flip")
    said = json.loads((folder / "codes.json").read_text())
    assert said["format_version"] == 2 and said["images"] == 40 and len(said["shards"]) == 6
    assert said["layout"]["grids"] == [[4, 6]] and said["classes"][0] == "red circle"
    header = read(folder / "codes.json")
    assert header.layout == model.compressor.layout(8, 12)
    assert prod((40, 2, header.layout.length)) == sum(
        shard.arrays["codes"].size for shard in Archive(folder).shards
    )
    names = [*(f"{number:06d}.safetensors" for number in range(6)), "codes.json"]
    assert sorted(path.name for path in folder.iterdir()) == names


def test_encoding_rejects_augmentation(encode, capsys):
    encode("--data.augmentation.flip", "0.5", code=2)
    assert "leave out data.augmentation" in capsys.readouterr().err


def test_encode_rejects_an_empty_out(run, tmp_path, monkeypatch, capsys):
    """An empty word, such as of a variable that is not set, is not the folder at hand."""
    monkeypatch.chdir(tmp_path)
    before = sorted(tmp_path.iterdir())
    assert main(["encode", str(run), "--out", "", "--data.source", "shapes:40"]) == 2
    assert "--out is empty; expected path" in capsys.readouterr().err
    assert sorted(tmp_path.iterdir()) == before
