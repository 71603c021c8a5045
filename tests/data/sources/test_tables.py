"""Parquet, Arrow and saved data sets: columns, classes, keys, and mistakes in one line."""

import shutil
from pathlib import Path

import pytest
import torch

from genstack.data.images import Preprocessing
from genstack.data.sources import open_source
from genstack.errors import UserError

FILES = Path(__file__).parents[2] / "golden" / "images"
SIZE = Preprocessing(3, 8, 8)


def parquet(path, **columns):
    import pyarrow
    from pyarrow.parquet import write_table

    write_table(pyarrow.table(columns), path, row_group_size=2)
    return str(path)


@pytest.mark.parametrize("kind", ["HubSource", "ParquetSource"])
def test_rows_round_trip(kind, example):
    source, folder = open_source(example(kind)), open_source(example("WebDatasetSource"))
    assert len(source) == len(folder) == 6
    assert source.class_names == (("one", "other") if kind == "HubSource" else ("0", "1"))
    for number in range(6):
        assert torch.equal(source.image(number, SIZE), folder.image(number, SIZE))
        assert torch.equal(source.condition_image(number, SIZE), folder.image(number, SIZE))
        assert (source.label(number), source.caption(number)) == (number % 2, f"picture {number}")


def test_datasets_as_parquet_keep_their_class_names(example, tmp_path):
    import datasets

    saved = datasets.load_from_disk(example("HubSource").removeprefix("hf:"))
    for part in range(2):
        saved.select(range(part * 3, part * 3 + 3)).to_parquet(tmp_path / "set" / f"part-{part}.parquet")
    source = open_source(str(tmp_path / "set"))
    assert source.class_names == ("one", "other") and source.label(5) == 1
    assert [source.key(number) for number in (2, 3)] == ["part-0.parquet/2", "part-1.parquet/0"]
    in_place = open_source(example("HubSource").removeprefix("hf:"))  # its Arrow files, in their place
    assert in_place.class_names == ("one", "other") and len(in_place) == 6


def test_columns_of_other_names_and_kinds(tmp_path):
    good = (FILES / "plain_reference.png").read_bytes()
    name = parquet(
        tmp_path / "a.parquet", jpg=[good, None, b"no"], cls=["10", "2", None], text=["a", None, "c"]
    )
    source = open_source(name)
    assert source.class_names == ("2", "10") and source.label(0) == 1
    assert [source.caption(number) for number in range(3)] == ["a", "", "c"]
    assert source.image(0, SIZE).shape[0] == 3
    for number, message in ((1, "row 1 has no image"), (2, "row 2 cannot be read as a picture")):
        with pytest.raises(UserError, match=message):
            source.image(number, SIZE)
    with pytest.raises(UserError, match="row 2 has no class"):
        source.label(2)
    with pytest.raises(UserError, match="no column condition_image"):
        source.condition_image(0, SIZE)


def test_row_may_hold_a_path(tmp_path):
    path = FILES / "plain_reference.png"
    rows = [{"bytes": path.read_bytes(), "path": None}, {"bytes": None, "path": str(path)}]
    source = open_source(parquet(tmp_path / "a.parquet", image=rows))
    assert torch.equal(source.image(1, SIZE), source.image(0, SIZE))


def test_mistakes_give_one_line(tmp_path, example):
    whole = Path(example("ParquetSource")).read_bytes()
    (tmp_path / "cut.parquet").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "text.arrow").write_text("no table")
    parquet(tmp_path / "plain.parquet", label=[1], caption=["a"])
    parquet(tmp_path / "empty.parquet", image=[b"a"][:0], label=[1][:0])
    (tmp_path / "mixed").mkdir()
    shutil.copy(tmp_path / "plain.parquet", tmp_path / "mixed")
    (tmp_path / "mixed" / "other.parquet").write_bytes(whole)
    for name, message in (
        ("cut.parquet", "cut.parquet cannot be read"),
        ("text.arrow", "text.arrow cannot be read"),
        ("none.parquet", "not found"),
        ("plain.parquet", "no column of image files among label, caption"),
        ("empty.parquet", "holds no rows"),
        ("mixed", "other columns"),
    ):
        with pytest.raises(UserError, match=message) as error:
            open_source(str(tmp_path / name))
        assert "\n" not in str(error.value)
    with pytest.raises(UserError, match="not found"):
        open_source("hf:./none")


def test_hub_without_network_gives_one_line(monkeypatch):
    import datasets
    import huggingface_hub

    # read from the environment when they were imported
    for read in (huggingface_hub.constants, datasets.config):
        monkeypatch.setattr(read, "HF_HUB_OFFLINE", True)
    with pytest.raises(UserError, match="hf:nobody/nothing cannot be opened") as error:
        open_source("hf:nobody/nothing")
    assert "\n" not in str(error.value)


def test_table_beside_pictures_is_not_a_source(tmp_path):
    parquet(tmp_path / "metadata.parquet", file_name=["a.png"], text=["a cat"])
    shutil.copy(FILES / "plain_reference.png", tmp_path / "a.png")
    source = open_source(str(tmp_path))
    assert source.key(0) == "a.png" and source.omitted == {".parquet files": 1}
