"""Lists of pictures: columns, paths, and mistakes by their line."""

import json
import shutil
from pathlib import Path
from unicodedata import normalize

import pytest
import torch

from genstack.data import ImageData
from genstack.data.images import Preprocessing
from genstack.data.sources import open_source
from genstack.errors import UserError

FILES = Path(__file__).parents[2] / "golden" / "images"


@pytest.fixture
def root(tmp_path):
    (tmp_path / "pictures").mkdir()
    for name in ("plain_reference.png", "rgba.png"):
        shutil.copy(FILES / name, tmp_path / "pictures" / name)
    return tmp_path


def listed(root, text, suffix=".csv"):
    (root / f"list{suffix}").write_text(text)
    return open_source(str(root / f"list{suffix}"))


def test_columns(root):
    source = listed(
        root,
        "caption,path,label,width,condition_image\n"
        '"a ""red"" thing,\nin two lines",pictures/plain_reference.png,rose 10,7,pictures/rgba.png\n'
        ",pictures/rgba.png,rose 2,,\n",
    )
    assert source.class_names == ("rose 2", "rose 10")
    assert [source.label(number) for number in (0, 1)] == [1, 0]
    assert [source.caption(number) for number in (0, 1)] == ['a "red" thing,\nin two lines', "rose 2"]
    assert source.key(1) == "pictures/rgba.png"
    preprocessing = Preprocessing(3, 8, 8)
    condition = source.condition_image(0, preprocessing)
    assert torch.equal(condition, source.image(1, preprocessing))
    with pytest.raises(UserError, match=r"list\.csv line 4 has no condition_image"):
        source.condition_image(1, preprocessing)


def test_csv_and_jsonl_agree(root):
    entry = {"path": "pictures/rgba.png", "label": 3, "caption": "ü", "condition_image": None}
    json_lines = listed(root, json.dumps(entry) + "\n\n", ".jsonl")
    table = listed(root, "\ufeffpath,label,caption\r\npictures/rgba.png,3,ü\r\n")
    for source in (json_lines, table):
        assert source.class_names == ("3",)
        assert (source.key(0), source.label(0), source.caption(0)) == ("pictures/rgba.png", 0, "ü")


def test_batches_have_captions_and_condition_images(root):
    (root / "list.csv").write_text(
        "path,caption,condition_image\n"
        + "pictures/plain_reference.png,first,pictures/plain_reference.png\n" * 2
        + "pictures/rgba.png,second,pictures/rgba.png\n" * 2
    )
    data = ImageData(str(root / "list.csv"), 8, condition_images="own", validation=0.5, batch_size=2)
    seen = [data.examples(side) for side in ("training", "validation")]
    assert [batch.captions for batch in seen] in (
        [("first",) * 2, ("second",) * 2],
        [("second",) * 2, ("first",) * 2],
    )
    assert all(torch.equal(batch.condition_images, batch.images) for batch in seen)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("path,label\na.png,x\nb.png\n", "line 3 has 1 columns"),
        ("path,label\n,x\na.png,y\n", "line 2 has no path"),
        ("path,label\na.png,x\na.png,\n", "no label.*line 3"),
        ("file,label\na.png,x\n", "has columns file, label, but no path"),
        ("path,captoin\na.png,x\n", "did you mean caption"),
        ("path\nhttp://host/a.png\n", "line 2 .*not a file"),
        ("path\n", "lists no pictures"),
        ("", "but no path"),
        ('path\n"a.png\n', "line 2 cannot be read"),
        ("path\n" + ",\n" * 9, "and 4 more"),
        ("path," + "x" * 2**20, "1048576 letters"),
    ],
)
def test_bad_rows_of_tables_are_named_by_their_line(root, text, message):
    with pytest.raises(UserError, match=message) as error:
        listed(root, text)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"path": "a.png"}\n{"path": \n', "line 2 is not JSON"),
        ('{"path": "a.png"}\n[1]\n', "line 2 is not a JSON object"),
        ('{"path": ["a.png"]}\n', "line 1 has a list as its path"),
        ('{"path": "a.png"}\n{"pth": "b.png"}\n', "line 2 .*did you mean path"),
        ("[" * 100_000, "line 1 is not JSON"),
    ],
)
def test_bad_rows_of_json_are_named_by_their_line(root, text, message):
    with pytest.raises(UserError, match=message) as error:
        listed(root, text, ".jsonl")
    assert "\n" not in str(error.value)


def test_missing_picture_is_reported_by_line(root):
    source = listed(root, "path\npictures/rgba.png\npictures/none.png\n")
    with pytest.raises(UserError, match=r"list\.csv line 3: .*none\.png cannot be read"):
        source.image(1, Preprocessing(3, 8, 8))


def test_other_encodings_are_rejected(root):
    (root / "list.csv").write_bytes("path\nü.png\n".encode("latin-1"))
    with pytest.raises(UserError, match="UTF-8"):
        open_source(str(root / "list.csv"))


def test_missing_list_is_rejected(root):
    with pytest.raises(UserError, match="not found"):
        open_source(str(root / "none.csv"))


@pytest.mark.parametrize("disk", ["NFC", "NFD"])
@pytest.mark.parametrize("written", ["NFC", "NFD"])
def test_paths_match_either_unicode_form(root, disk, written):
    name = "Größe_é.png"
    shutil.copy(FILES / "rgba.png", root / normalize(disk, name))
    source = listed(root, f"path,condition_image\n{normalize(written, name)},{normalize(written, name)}\n")
    assert source.image(0, Preprocessing(3, 8, 8)).shape[0] == 3
    assert source.condition_image(0, Preprocessing(3, 8, 8)).shape[0] == 3
    assert source.key(0) == normalize("NFC", name)  # the same side of the split, whatever the form


def test_surrogates_are_replaced_in_captions_and_rejected_in_paths(root):
    half = "a cat \\ud83d"
    line = f'{{"path": "pictures/rgba.png", "label": "{half}", "caption": "{half}"}}\n'
    source = listed(root, line, ".jsonl")
    assert source.class_names == ("a cat \ufffd",) and source.caption(0) == "a cat \ufffd"
    with pytest.raises(UserError, match=r"line 1 has .* as its path, which is not valid Unicode"):
        listed(root, '{"path": "\\ud83d.png"}\n', ".jsonl")


def test_labels_are_stripped(root):
    rows = 'path,label\npictures/rgba.png, cat\npictures/rgba.png,cat \npictures/rgba.png,"c\nat"\n'
    assert listed(root, rows).class_names == ("c at", "cat")
    with pytest.raises(UserError, match="no label, but other lines have one: line 3"):
        listed(root, "path,label\npictures/rgba.png,cat\npictures/rgba.png, \n")


@pytest.mark.parametrize(
    ("text", "suffix", "message"),
    [
        ("path,caption,caption\npictures/rgba.png,a,\n", ".csv", "has two columns caption; keep one"),
        ("path,LABEL\npictures/rgba.png,a\n", ".csv", "has a column LABEL; did you mean label?"),
        ('{"path": "pictures/rgba.png", "lable": "a"}', ".jsonl", "has a column lable; did you mean label?"),
        (
            '{"path": "a.png", "label": "a", "label": "b"}',
            ".jsonl",
            "line 1 is not JSON: label is given twice",
        ),
    ],
)
def test_columns_are_unique_and_spelled_right(root, text, suffix, message):
    with pytest.raises(UserError) as error:
        listed(root, text, suffix)
    assert message in str(error.value)


def test_pictures_without_a_caption_are_counted(root):
    with pytest.warns(UserWarning, match="1 of 2 pictures have no caption"):
        listed(root, "path,caption\npictures/rgba.png,a\npictures/rgba.png,\n")


def test_values_of_json_are_spelled_once(root):
    """1 and 1.0, which pandas writes beside missing values, are one class."""
    lines = [f'{{"path": "pictures/rgba.png", "label": {value}}}\n' for value in ("1", "1.0", '"1"', "true")]
    assert listed(root, "".join(lines), ".jsonl").class_names == ("1", "true")
