"""`genstack data check`: counts, reasons, duplicates and a contact sheet of what a model sees."""

import shlex
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from genstack.cli.verbs.data import check
from genstack.data import ImageData
from genstack.data.sheet import GAP, LINE
from genstack.errors import UserError

FILES = Path(__file__).parents[1] / "golden" / "images"


def test_check_reports_contents(tmp_path, capsys):
    check(str(FILES), "24,40", out=str(tmp_path / "sheet.png"))
    said = capsys.readouterr().out
    assert "6 unreadable" in said
    for name in ("claims_60000x60000.png", "truncated.jpg", "empty.png", "text.jpg"):
        assert f"{name} cannot be read" in said
    assert "RGBA 1" in said and "CMYK 1" in said and "I;16 1" in said
    assert "UPPER.PNG = folder with späces/inner.png" in said
    assert str(tmp_path / "sheet.png") in said
    assert said.endswith(f"Next:  genstack plan {shlex.quote(str(FILES))}\n")


def test_sheet_shows_preprocessed_images(tmp_path):
    for name in ("a", "b", "c"):
        shutil.copy(FILES / "plain_reference.png", tmp_path / f"{name}.png")
    (tmp_path / "broken.png").write_text("no picture")
    check(str(tmp_path), 64, out=str(tmp_path / "out" / "sheet.png"))
    with Image.open(tmp_path / "out" / "sheet.png") as picture:
        page = np.asarray(picture)
    assert page.shape[0] == GAP + LINE + 2 * (64 + GAP + LINE)
    assert page.shape[1] == GAP + 3 * (64 + GAP)
    (tmp_path / "broken.png").unlink()
    seen = ImageData(str(tmp_path), 64).examples("training", 1).images[0]
    expected = ((seen + 1) * 127.5 + 0.5).floor().to(torch.uint8).permute(1, 2, 0).numpy()
    tile = page[GAP + LINE : GAP + LINE + 64, GAP : GAP + 64]
    np.testing.assert_array_equal(tile, expected)


def test_classes_are_counted(tmp_path, capsys):
    check("digits", 8, 1, out=str(tmp_path / "sheet.png"))
    said = capsys.readouterr().out
    assert "#3 3: 183" in said and "0 unreadable" in said and "1 different, from 8 x 8 to 8 x 8" in said


def test_no_readable_image_is_an_error(tmp_path):
    for name in ("a.png", "b.png"):
        (tmp_path / name).write_text("no picture")
    with pytest.raises(UserError, match="no image"):
        check(str(tmp_path), out=str(tmp_path / "sheet.png"))
