"""Contact sheets: pixels stay squares, labels have room."""

import numpy as np
import pytest
import torch
from PIL import Image, ImageFont

from genstack.data.sheet import GAP, LINE, MOST_LINES, TEXT, fit, sheet, table, wrap


def test_tiles_are_the_images_enlarged_by_a_whole_factor():
    images = torch.rand(5, 3, 16, 24, generator=torch.Generator().manual_seed(0)) * 2 - 1
    page = np.asarray(sheet(images, columns=3, labels=[str(i) for i in range(5)], title="a\nb"))
    top, left = GAP + 2 * LINE + (64 + GAP + LINE), GAP + 96 + GAP
    tile = page[top : top + 64, left : left + 96]
    expected = ((images[4] + 1) * 127.5 + 0.5).floor().numpy().astype(np.uint8).transpose(1, 2, 0)
    np.testing.assert_array_equal(tile, expected.repeat(4, 0).repeat(4, 1))


def test_titles_and_labels_do_not_cover_images():
    images = torch.ones(2, 1, 8, 8)
    plain = np.asarray(sheet(images, 2))
    assert plain.min() == 255
    labelled = np.asarray(sheet(images, 2, ["seven", "a very long name of a class that does not fit"]))
    assert labelled[: GAP + 64].min() == 255 and labelled[GAP + 64 :].min() < 100
    assert np.asarray(sheet(images, 2, title="title"))[: GAP + LINE].min() < 100


def test_long_labels_wrap_and_all_tiles_have_room():
    font = ImageFont.load_default(TEXT)
    words = "a red circle left of a blue square"
    lines = wrap(words, 64, font)
    assert " ".join(lines) == words
    assert all(font.getlength(line) <= 64 for line in lines)
    assert 1 < len(lines) <= MOST_LINES
    page = sheet(torch.ones(3, 1, 8, 8), 2, [words, "one", ""])
    assert page.height == GAP + 2 * (64 + GAP + LINE * len(lines))
    cut = wrap(words * 5, 64, font)
    assert len(cut) == MOST_LINES
    assert cut[-1].endswith("…")


def test_large_images_keep_their_size_and_transparency_is_white():
    images = torch.ones(1, 4, 70, 130)
    images[:, :3] = -1
    images[:, 3, :, :65] = -1
    page = np.asarray(sheet(images, 1))
    assert page.shape == (70 + 2 * GAP, 130 + 2 * GAP, 3)
    assert page[GAP + 5, GAP + 10].tolist() == [255, 255, 255]
    assert page[GAP + 5, GAP + 100].tolist() == [0, 0, 0]


def test_number_of_labels_is_checked():
    with pytest.raises(ValueError, match="1 labels for 2"):
        sheet(torch.zeros(2, 3, 4, 4), 2, ["a"])


def test_table_has_row_and_column_names():
    shades = [[0, 50, 100], [150, 200, 250]]
    cells = [[Image.new("RGB", (70, 30), (shade,) * 3) for shade in row] for row in shades]
    page = np.asarray(table(cells, ["warm", "cold"], ["a", "b", "c"]))[..., 0]
    body = page[LINE + GAP :, -3 * 70 :]
    np.testing.assert_array_equal(body, np.array(shades).repeat(30, 0).repeat(70, 1))
    margin = page[LINE + GAP :, : -3 * 70]
    for above, below in ((0, 30), (30, 60)):
        assert margin[above:below].min() < 100, "the name of the row"
    for column in range(3):
        assert page[: LINE + GAP, page.shape[1] - (3 - column) * 70 :][:, :70].min() < 100


@pytest.mark.parametrize("text", ["word " * 5000, "w" * 10**6, "\u0301" * 10**5, "i " * 10**5])
def test_long_labels_are_fitted_quickly(text, monkeypatch):
    font = ImageFont.load_default(TEXT)
    measured, getlength = [], font.getlength

    def count(text, *rest):
        measured.append(len(text))
        return getlength(text, *rest)

    monkeypatch.setattr(font, "getlength", count)
    lines = wrap(text, 64, font)
    assert len(lines) <= MOST_LINES and lines[-1].endswith("…")
    assert len(measured) < 100 and sum(measured) < 10_000


def test_a_line_is_cut_where_the_next_letter_does_not_fit():
    font = ImageFont.load_default(TEXT)
    for width in (1, 20, 64, 200):
        line = fit("iiiwwwmmm" * 10, width, font)
        assert line == "…" or font.getlength(line) <= width
        longer = ("iiiwwwmmm" * 10)[: len(line)] + "…"
        assert font.getlength(longer) > width
