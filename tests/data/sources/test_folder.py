"""Folders of any nesting, links, names and mistakes."""

import random
import re
import shutil
from pathlib import Path

import pytest

from genstack.data.sources import open_source
from genstack.data.sources.folder import natural
from genstack.data.split import hashed, split
from genstack.errors import UserError

PICTURE = Path(__file__).parents[2] / "golden" / "images" / "plain_reference.png"


def put(root: Path, *names: str) -> Path:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(PICTURE, root / name)
    return root


def keys(source):
    return [source.key(number) for number in range(len(source))]


def test_any_nesting_in_natural_order(tmp_path):
    put(tmp_path, "10.png", "2.png", "b/c/d.JPG", "b/1.webp", "b 2/x.png", "ü/画像 🎨.png")
    (tmp_path / "notes.txt").write_text("no picture")
    put(tmp_path, ".hidden.png", ".cache/a.png")
    assert keys(open_source(str(tmp_path))) == [
        "2.png",
        "10.png",
        "b/1.webp",
        "b/c/d.JPG",
        "b 2/x.png",
        "ü/画像 🎨.png",
    ]


def test_the_order_of_names_is_that_of_their_parts():
    """A number by its value and before letters, `/` before every other letter, text as it is."""

    def parts(name):
        return [
            (0, int(part), "") if part.isdecimal() else (1, 0, part)
            for part in re.split(r"(\d+)", name.replace("/", "\0"))
        ]

    chance = random.Random(0)
    names = {"".join(chance.choices("a.-/01290é", k=chance.randint(1, 9))) for _ in range(3000)}
    found = sorted(names, key=natural)
    assert [parts(name) for name in found] == sorted(map(parts, names))


def test_links_are_followed_and_loops_end(tmp_path):
    put(tmp_path / "elsewhere", "x/a.png")
    put(tmp_path / "set", "b.png")
    (tmp_path / "set" / "linked").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "set" / "file.png").symlink_to(PICTURE)
    (tmp_path / "set" / "loop").symlink_to(tmp_path / "set")
    assert keys(open_source(str(tmp_path / "set"))) == ["b.png", "file.png", "linked/x/a.png"]


def test_equal_names_in_different_folders_are_different_images(tmp_path):
    put(tmp_path, *(f"{folder}/a.png" for folder in range(40)))
    source = open_source(str(tmp_path))
    assert len(set(keys(source))) == 40
    sides = split(hashed(keys(source)), 0.3)
    assert 1 < len(sides.validation) < 39


def test_first_level_folders_are_classes(tmp_path):
    put(tmp_path, "class 10/a.png", "class 2/deep/er/b.png", "class 2/c.png")
    (tmp_path / "empty").mkdir()
    source = open_source(str(tmp_path), labels="folder")
    assert source.class_names == ("class 2", "class 10")
    assert [source.label(number) for number in range(3)] == [0, 0, 1]
    assert source.caption(2) == "class 10"
    assert open_source(str(tmp_path)).class_names == ()


def test_pictures_without_a_class_are_an_error(tmp_path):
    put(tmp_path, "a/b.png", "stray.png")
    with pytest.raises(UserError, match=r"stray\.png.*leave out"):
        open_source(str(tmp_path), labels="folder")


def test_an_empty_folder_is_named(tmp_path):
    (tmp_path / "inner").mkdir()
    with pytest.raises(UserError, match=str(tmp_path)):
        open_source(str(tmp_path))


def test_a_file_is_no_folder():
    with pytest.raises(UserError, match="give the folder"):
        open_source(str(PICTURE))


@pytest.mark.parametrize(
    ("name", "near"),
    [
        ("digit", "digits"),
        ("shape", "shapes"),
        ("flowres", "flowers"),
        ("torchvison:MNIST", "torchvision:MNIST"),
    ],
)
def test_the_nearest_name_is_offered(tmp_path, monkeypatch, name, near):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "flowers").mkdir()
    with pytest.raises(UserError, match=f"did you mean {near}"):
        open_source(name)
