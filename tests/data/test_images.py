"""Files to images and back: hostile and unusual files, ranges, 16 bits, saving."""

import json
import resource
import shutil
import struct
import zlib
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from genstack.data.images import (
    AVIF,
    SHEET,
    SUFFIXES,
    Preprocessing,
    from_uint8,
    read,
    read_mark,
    save,
    to_uint8,
    write,
)
from genstack.errors import UserError

FILES = Path(__file__).parents[1] / "golden" / "images"
EXPECTED = np.load(FILES / "images_expected.npz")
PLAIN = EXPECTED["plain_reference"]


def bytes_of(path: Path, channels: int = 3, **options) -> np.ndarray:
    """Pixels of `read` from 0 to 255, rows first."""
    return (read(path, channels, **options) * 255).numpy().transpose(1, 2, 0)


@pytest.mark.parametrize(
    "name",
    [
        "plain_reference.png",
        "UPPER.PNG",
        "png_named_as.jpg",
        "two.dots.in.name.png",
        "name with  spaces.png",
        "quote's & (brackets) [1] 100%.png",
        "ünïcödé 画像 🎨.png",
        "folder with späces/inner.png",
    ],
)
def test_names_do_not_matter(name):
    np.testing.assert_allclose(bytes_of(FILES / name), PLAIN, atol=1e-3)


@pytest.mark.parametrize(
    ("name", "tolerance"),
    [("cmyk", 12), ("exif_orientation_3", 12), ("exif_orientation_6", 12)],
)
def test_jpegs_are_rgb_and_upright(name, tolerance):
    found = bytes_of(FILES / f"{name}.jpg")
    assert found.shape == EXPECTED[name].shape
    assert abs(found - EXPECTED[name]).max() <= tolerance


@pytest.mark.parametrize("background", [(255, 255, 255), (10, 200, 90)])
@pytest.mark.parametrize(
    ("name", "key"), [("palette_transparency", "palette_transparency_rgba"), ("rgba", "rgba")]
)
def test_transparency_is_composited_over_the_background(name, key, background):
    truth = EXPECTED[key].astype(float)
    alpha = truth[..., 3:] / 255
    laid = truth[..., :3] * alpha + np.array(background) * (1 - alpha)
    assert abs(bytes_of(FILES / f"{name}.png", background=background) - laid).max() <= 1
    luma = laid @ [0.299, 0.587, 0.114]
    assert abs(bytes_of(FILES / f"{name}.png", 1, background=background)[..., 0] - luma).max() <= 2


def test_transparency_is_kept_with_four_channels():
    np.testing.assert_allclose(bytes_of(FILES / "rgba.png", 4), EXPECTED["rgba"], atol=1e-3)
    opaque = bytes_of(FILES / "plain_reference.png", 4)
    np.testing.assert_allclose(opaque[..., :3], PLAIN, atol=1e-3)
    assert (opaque[..., 3] == 255).all()


def test_grey_alpha_is_composited_over_white():
    grey, alpha = EXPECTED["grey_alpha"].astype(float).transpose(2, 0, 1)
    laid = grey * alpha / 255 + 255 - alpha
    for channels in (1, 3):
        assert abs(bytes_of(FILES / "grey_alpha.png", channels) - laid[..., None]).max() <= 1


def test_one_bit_first_frame_and_one_pixel():
    truth = EXPECTED["one_bit"].astype(float)
    np.testing.assert_array_equal(bytes_of(FILES / "one_bit.png", 1)[..., 0], truth / truth.max() * 255)
    np.testing.assert_allclose(bytes_of(FILES / "animated.gif"), EXPECTED["animated_first_frame"], atol=1e-3)
    np.testing.assert_allclose(bytes_of(FILES / "one_pixel.png"), EXPECTED["one_pixel"], atol=1e-3)
    assert read(FILES / "very_wide_3000x1.png", 3).shape == (3, 1, 3000)


def test_sixteen_bits_are_not_clipped():
    grey = read(FILES / "grey16.png", 1)[0].double().numpy() * 65535
    np.testing.assert_allclose(grey, EXPECTED["grey16_values"], atol=0.01)
    colour = read(FILES / "rgb16.png", 3).double().numpy() * 65535
    np.testing.assert_allclose(colour, EXPECTED["rgb16_values"].transpose(2, 0, 1), atol=0.01)
    repeated = read(FILES / "grey16.png", 4)
    assert torch.equal(repeated[0], repeated[2]) and (repeated[3] == 1).all()


@pytest.mark.parametrize(
    "name", ["truncated.png", "truncated.jpg", "text.jpg", "empty.png", "empty.jpg", "claims_60000x60000.png"]
)
def test_damaged_pictures_are_rejected_by_name(name):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(UserError, match=name) as error:
        read(FILES / name, 3)
    assert "\n" not in str(error.value)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 50_000  # kilobytes


def test_large_pictures_below_pillows_limit_are_rejected(tmp_path, monkeypatch):
    monkeypatch.setattr("genstack.data.images.MOST_PIXELS", 100)
    with pytest.raises(UserError, match=r"40 x 24"):
        read(FILES / "plain_reference.png", 3)


def test_a_wrong_checksum_is_read_or_refused():
    try:
        assert read(FILES / "bad_crc.png", 3).shape == (3, 4, 4)
    except UserError as error:
        assert "bad_crc.png" in str(error)


@pytest.mark.parametrize("suffix", [".webp", ".tif", ".bmp"])
def test_other_kinds_of_lossless_file(tmp_path, suffix):
    path = tmp_path / f"a{suffix}"
    Image.fromarray(PLAIN).save(path, **({"lossless": True} if suffix == ".webp" else {}))
    np.testing.assert_allclose(bytes_of(path), PLAIN, atol=1e-3)


def test_formats_that_run_programs_are_rejected(tmp_path):
    path = tmp_path / "a.png"
    Image.fromarray(PLAIN).save(path, format="EPS")
    with pytest.raises(UserError, match=r"a\.png"):
        read(path, 3)


def test_all_bytes_round_trip():
    every = torch.arange(256, dtype=torch.uint8).reshape(1, 8, 32, 1)
    images = from_uint8(every)
    assert images.shape == (1, 1, 8, 32) and images.min() == -1 and images.max() == 1
    assert torch.equal(to_uint8(images), every)
    read_back = Preprocessing(1, 8, 32).to_model(every.permute(0, 3, 1, 2) / 255)
    assert torch.equal(read_back, images)


def test_bytes_are_clamped_and_rounded_half_away():
    values = torch.tensor([-7.0, -1.0, 1.0, 7.0, 2 * 0.4999 / 255 - 1, 2 * 0.5 / 255 - 1 + 1e-7])
    assert to_uint8(values.reshape(1, 1, 1, 6)).flatten().tolist() == [0, 0, 255, 255, 0, 1]


@pytest.mark.parametrize("suffix", [".png", ".tif"])
@pytest.mark.parametrize("window", [None, (0.0, 65535.0)])
def test_all_sixteen_bit_levels_round_trip(tmp_path, window, suffix):
    ramp = np.arange(65536, dtype=np.uint16).reshape(128, 512)
    Image.fromarray(ramp).save(tmp_path / f"ramp{suffix}")
    preprocessing = Preprocessing(1, 128, 512, window=window, bits=16)
    image = preprocessing.to_model(read(tmp_path / f"ramp{suffix}", 1, raw=window is not None))
    assert image.unique().numel() == 65536 and image.min() == -1 and image.max() == 1
    save(image, tmp_path / "back.png", preprocessing)
    with Image.open(tmp_path / "back.png") as picture:
        assert picture.mode == "I;16"
        np.testing.assert_array_equal(np.array(picture), ramp)


def test_a_window_is_undone():
    preprocessing = Preprocessing(1, 1, 5, window=(1000.0, 3000.0), bits=16)
    raw = torch.tensor([0.0, 1000.0, 2000.0, 3000.0, 65535.0]).reshape(1, 1, 1, 5)
    image = preprocessing.to_model(raw)
    assert image.flatten().tolist() == [-1, -1, 0, 1, 1]
    assert preprocessing.to_file(image).flatten().tolist() == [1000, 1000, 2000, 3000, 3000]


def test_float_files_need_a_window(tmp_path):
    fractions = np.linspace(0, 1, 12, dtype=np.float32).reshape(3, 4)
    Image.fromarray(fractions).save(tmp_path / "f.tif")
    with pytest.raises(UserError, match="window"):
        read(tmp_path / "f.tif", 1)
    np.testing.assert_array_equal(read(tmp_path / "f.tif", 1, raw=True)[0], fractions)
    Image.fromarray(fractions * 65535).save(tmp_path / "f.tif")
    np.testing.assert_allclose(read(tmp_path / "f.tif", 1)[0], fractions, atol=1e-6)


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_a_saved_picture_holds_the_bytes_of_its_image(tmp_path, channels):
    image = torch.randn(channels, 5, 9, generator=torch.Generator().manual_seed(0))
    path = tmp_path / "new" / "a.png"
    save(image, path, Preprocessing(channels, 5, 9), {"settings": '{"class": "画像"}'})
    with Image.open(path) as picture:
        found = np.array(picture).reshape(5, 9, channels)
        assert picture.text["settings"] == '{"class": "画像"}'
    np.testing.assert_array_equal(found, to_uint8(image[None])[0])
    assert [entry.name for entry in path.parent.iterdir()] == ["a.png"]


def test_a_failed_save_leaves_the_old_picture(tmp_path, monkeypatch):
    path = tmp_path / "a.png"
    shutil.copy(FILES / "plain_reference.png", path)

    def half(self, file, **_):
        Path(file).write_bytes(b"half")
        raise OSError("disk full")

    monkeypatch.setattr(Image.Image, "save", half)
    with pytest.raises(OSError, match="disk full"):
        save(torch.zeros(3, 4, 4), path, Preprocessing(3, 4, 4))
    assert path.read_bytes() == (FILES / "plain_reference.png").read_bytes()
    assert len(list(tmp_path.iterdir())) == 1


def test_preprocessing_survives_json():
    preprocessing = Preprocessing(1, 48, 64, window=(10.0, 4000.0), bits=16, background=(1, 2, 3))
    assert Preprocessing(**json.loads(json.dumps(asdict(preprocessing)))) == preprocessing


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"channels": 2}, "got 2"),
        ({"height": 0}, "0 x 8"),
        ({"bits": 16}, "use 8"),
        ({"window": (0.0, 4000.0)}, "0 to 255"),
        ({"window": (9.0, 9.0)}, "must rise"),
    ],
)
def test_invalid_preprocessing_is_rejected(changed, message):
    with pytest.raises(UserError, match=message):
        Preprocessing(**{"channels": 3, "height": 8, "width": 8, **changed})


def deep_png(path, values):
    """A 16-bit RGBA file, written here chunk by chunk."""
    height, width, _ = values.shape
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)
    header = struct.pack(">IIBBBBB", width, height, 16, 6, 0, 0, 0)
    chunks = ((b"IHDR", header), (b"IDAT", zlib.compress(rows)), (b"IEND", b""))
    path.write_bytes(
        b"\x89PNG\r\n\x1a\n"
        + b"".join(
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
            for kind, data in chunks
        )
    )


def test_sixteen_bit_transparency_is_composited(tmp_path):
    values = np.random.default_rng(0).integers(0, 65536, (3, 5, 4), np.uint16)
    deep_png(tmp_path / "deep.png", values)
    shares = values.transpose(2, 0, 1) / 65535
    behind = np.array([10, 20, 30]).reshape(3, 1, 1) / 255
    expected = shares[:3] * shares[3:] + behind * (1 - shares[3:])
    np.testing.assert_allclose(read(tmp_path / "deep.png", 3, (10, 20, 30)), expected, atol=1e-6)
    np.testing.assert_allclose(read(tmp_path / "deep.png", 4), shares, atol=1e-6)
    windowed = read((tmp_path / "deep.png").read_bytes(), 4, raw=True)
    np.testing.assert_allclose(windowed, shares * 255, atol=1e-3)


def test_truncated_sixteen_bit_files_are_rejected_by_name(tmp_path):
    whole = (FILES / "rgb16.png").read_bytes()
    with pytest.raises(UserError, match="shard/7 cannot be read") as error:
        read(whole[: len(whole) // 2], 3, name="shard/7")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("background", [(0, 0), (0, 0, 256), (-1, 0, 0)])
def test_invalid_backgrounds_are_rejected(background):
    with pytest.raises(UserError, match="background"):
        Preprocessing(3, 4, 4, background=background)


def test_large_dimensions_need_a_large_file(tmp_path):
    """One bit a pixel, all of it there and all of one colour, is as small as pictures get."""
    Image.new("1", (8192, 4096), 1).save(tmp_path / "whole.png")
    assert read(tmp_path / "whole.png", 1).shape == (1, 4096, 8192)
    content = bytearray((tmp_path / "whole.png").read_bytes()[:200])
    content[16:24] = struct.pack(">II", 9000, 9000)
    content[29:33] = struct.pack(">I", zlib.crc32(content[12:29]))
    with pytest.raises(UserError, match=r"9000 x 9000 pixels, which 200 bytes cannot hold"):
        read(bytes(content), 1)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("raw", [False, True])
def test_pixels_that_are_not_numbers_make_a_file_unreadable(tmp_path, value, raw):
    values = np.full((9, 11), 0.5, np.float32)
    values[3, :5] = value
    Image.fromarray(values).save(tmp_path / "a.tif")
    with pytest.raises(UserError, match=r"a\.tif cannot be read .*5 of its 99 pixels are not finite"):
        read(tmp_path / "a.tif", 1, raw=raw)


@pytest.mark.parametrize("suffix", [".jfif", ".jpe", ".avif", ".apng"])
def test_other_endings_of_the_formats_are_read(tmp_path, suffix):
    formats = {".jfif": "JPEG", ".jpe": "JPEG", ".avif": "AVIF", ".apng": "PNG"}
    if suffix == ".avif" and not AVIF:
        pytest.skip("Pillow reads no AVIF here")
    Image.new("RGB", (20, 10), (255, 0, 0)).save(tmp_path / f"a{suffix}", formats[suffix])
    pixels = read(tmp_path / f"a{suffix}", 3)
    assert suffix in SUFFIXES and pixels.shape == (3, 10, 20)
    assert (pixels.mean((1, 2)) - torch.tensor([1.0, 0, 0])).abs().max() < 0.05


def test_written_files_are_marked(tmp_path):
    write(Image.new("L", (3, 3)), tmp_path / "sheet.png")
    save(torch.zeros(3, 4, 4), tmp_path / "sample.png", Preprocessing(3, 4, 4), {"genstack": "ü" * 9000})
    save(torch.zeros(3, 4, 4), tmp_path / "image.png", Preprocessing(3, 4, 4))
    Image.new("L", (3, 3)).save(tmp_path / "other.png")
    assert read_mark(tmp_path / "sheet.png") == SHEET
    assert read_mark(tmp_path / "image.png") not in (None, SHEET)
    assert read_mark(tmp_path / "sample.png") is not None
    assert read_mark(tmp_path / "other.png") is read_mark(tmp_path / "none.png") is None
