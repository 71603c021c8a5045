"""Folders of any nesting, links, names and mistakes."""

import os
import random
import re
import shutil
import tarfile
from pathlib import Path
from unicodedata import normalize

import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from genstack.data import ImageData
from genstack.data.images import Preprocessing, write
from genstack.data.sources import open_source
from genstack.data.split import hash_keys, split
from genstack.data.text import natural_key
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
    put(tmp_path, ".hidden.png", "._2.png", ".cache/a.png")
    source = open_source(str(tmp_path))
    assert source.omitted == {"hidden pictures (names that begin with a dot)": 2}
    assert keys(source) == [
        "2.png",
        "10.png",
        "b/1.webp",
        "b/c/d.JPG",
        "b 2/x.png",
        "ü/画像 🎨.png",
    ]


def test_names_are_sorted_by_their_parts():
    """A number by its value and before letters, `/` before every other letter, text as it is."""

    def parts(name):
        return [
            (0, int(part), "") if part.isdecimal() else (1, 0, part)
            for part in re.split(r"(\d+)", name.replace("/", "\0"))
        ]

    chance = random.Random(0)
    names = {"".join(chance.choices("a.-/01290é", k=chance.randint(1, 9))) for _ in range(3000)}
    found = sorted(names, key=natural_key)
    assert [parts(name) for name in found] == sorted(map(parts, names))


def test_links_are_followed_without_loops(tmp_path):
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
    sides = split(hash_keys(keys(source)), 0.3)
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


def test_error_names_empty_folder(tmp_path):
    (tmp_path / "inner").mkdir()
    with pytest.raises(UserError, match=str(tmp_path)):
        open_source(str(tmp_path))


def test_file_instead_of_folder_is_rejected():
    with pytest.raises(UserError, match="expected a folder"):
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
def test_error_suggests_nearest_name(tmp_path, monkeypatch, name, near):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "flowers").mkdir()
    with pytest.raises(UserError, match=f"did you mean {near}"):
        open_source(name)


def test_error_lists_names_as_examples(tmp_path, monkeypatch):
    """Some of them stand for names of one's own, such as pictures.csv."""
    monkeypatch.chdir(tmp_path)
    with pytest.raises(
        UserError, match=r"data source xyzzy not found; give a folder, or a name such as shapes, "
    ):
        open_source("xyzzy")


def test_pictures_of_genstack_are_left_out_and_counted(tmp_path):
    put(tmp_path, "1.png", "2.jpg", "a/3.png")
    for name in ("data-check.png", "samples/grid.png"):  # sheets
        write(Image.new("RGB", (9, 9)), tmp_path / name)
    for name in ("samples/00000.png", "00001.png"):  # samples
        write(Image.new("RGB", (9, 9)), tmp_path / name, {"genstack": '{"file": "00000.png"}'})
    put(tmp_path, "runs/x/images/7.png", "runs/x/config.yaml", "runs/x/metrics.jsonl", "runs/x/wandb/a.png")
    put(tmp_path, "exported/images/8.png", "exported/model.json", "exported/model.safetensors")
    source = open_source(str(tmp_path))
    assert keys(source) == ["1.png", "2.jpg", "a/3.png"]
    assert source.omitted == {"pictures that genstack wrote": 7} and not source.generated


def test_a_folder_of_samples_is_read_but_not_trained_on(tmp_path):
    write(Image.new("RGB", (9, 9)), tmp_path / "grid.png")
    for name in "ab":
        write(Image.new("RGB", (9, 9)), tmp_path / f"{name}.png", {"genstack": "{}"})
    source = open_source(str(tmp_path))
    assert keys(source) == ["a.png", "b.png"] and source.generated
    assert source.omitted == {"pictures that genstack wrote": 1}
    with pytest.raises(UserError, match="were made by genstack; train on other pictures"):
        ImageData(str(tmp_path), 8).training_loader()


def test_text_chunks_of_other_programs_are_not_marks(tmp_path):
    chunks = PngInfo()
    chunks.add_text("Comment", "genstack")
    chunks.add_itxt("genstack2", "x")
    for name in ("a.png", "b.png"):
        Image.new("L", (9, 9)).save(tmp_path / name, pnginfo=chunks)
    (tmp_path / "c.png").write_bytes(PICTURE.read_bytes()[:20])
    (tmp_path / "d.png").write_bytes(b"")
    source = open_source(str(tmp_path))
    assert len(source) == 4 and source.omitted == {}


def test_unread_picture_formats_are_counted(tmp_path):
    put(
        tmp_path,
        "1.png",
        "2.jfif",
        "3.JPE",
        "a/4.HEIC",
        "a/5.heic",
        "6.cr2",
        "notes.txt",
        "7.parquet",
        ".8.heic",
    )
    source = open_source(str(tmp_path))
    assert keys(source) == ["1.png", "2.jfif", "3.JPE"]
    assert source.omitted == {".heic files": 2, ".cr2 files": 1, ".parquet files": 1}
    (line,) = ImageData(str(tmp_path), 8).notices()
    assert (
        line.startswith(f"{tmp_path} also holds, unread: ") and "2 .heic files" in line and "\n" not in line
    )


def test_error_of_empty_folder_counts_unread_files(tmp_path):
    put(tmp_path, "a.heic", "b.heic")
    with pytest.raises(UserError, match=r"holds no pictures.*2 \.heic files are not read"):
        open_source(str(tmp_path))


@pytest.mark.parametrize("name", ["", "list.csv", "shard.tar"])
def test_additional_pages_and_frames_are_counted(name, tmp_path):
    pages = [Image.new("L", (9, 9), shade) for shade in range(5)]
    pages[0].save(tmp_path / "a.tif", save_all=True, append_images=pages[1:])
    pages[0].save(tmp_path / "b.gif", save_all=True, append_images=[Image.new("L", (9, 9), 200)])
    put(tmp_path, "c.png")
    files = ["a.tif", "b.gif", "c.png"]
    with tarfile.open(tmp_path / "shard.tar", "w") as shard:
        for file in files:
            shard.add(tmp_path / file, file)
    (tmp_path / "list.csv").write_text("\n".join(["path", *files]))
    further = "further pages or frames (the first of a file is read)"
    assert open_source(str(tmp_path / name)).omitted.get(further) == 5


def test_classes_whose_names_are_not_utf8_have_a_name(tmp_path):
    put(tmp_path, "b/1.png")
    folder = tmp_path / os.fsdecode(b"caf\xe9")
    shutil.copytree(tmp_path / "b", folder)
    source = open_source(str(tmp_path), labels="folder")
    assert source.class_names == ("b", "café") and source.label(1) == 1
    source.caption(1).encode()
    assert source.image(1, Preprocessing(3, 8, 8)).shape[0] == 3


@pytest.mark.parametrize("form", ["NFC", "NFD"])
def test_a_folder_is_found_in_either_form_of_unicode(tmp_path, form):
    other = {"NFC": "NFD", "NFD": "NFC"}[form]
    put(tmp_path / normalize(form, "Größe") / normalize(other, "é"), "a.png")
    assert len(open_source(str(tmp_path / normalize(other, "Größe") / normalize(form, "é")))) == 1


def test_a_real_folder_keeps_its_pictures_beside_links_to_it(tmp_path):
    put(tmp_path, "a/1.png", "b/2.png")
    (tmp_path / "a" / "more").symlink_to("../b")
    (tmp_path / "c").symlink_to("b")
    source = open_source(str(tmp_path), labels="folder")
    assert keys(source) == ["a/1.png", "b/2.png"] and source.class_names == ("a", "b")
    assert source.omitted["links to folders that are read already"] == 2


def test_links_to_folders_elsewhere_and_to_their_parents_are_followed_once(tmp_path):
    put(tmp_path / "elsewhere", "x/1.png")
    root = put(tmp_path / "root", "2.png")
    (root / "linked").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "elsewhere" / "x" / "up").symlink_to(tmp_path / "root")
    source = open_source(str(root))
    assert keys(source) == ["2.png", "linked/x/1.png"]
    assert source.omitted == {"links to folders that are read already": 1}


def test_folders_that_cannot_be_read_or_are_empty_are_counted(tmp_path, monkeypatch):
    put(tmp_path, "a/1.png", "locked/2.png")
    (tmp_path / "empty").mkdir()
    scan = os.scandir

    def refuse(path):
        if Path(path).name == "locked":
            raise PermissionError(13, "Permission denied", str(path))
        return scan(path)

    monkeypatch.setattr(os, "scandir", refuse)
    source = open_source(str(tmp_path), labels="folder")
    assert source.omitted == {
        "folders that cannot be read (check their permissions)": 1,
        "folders of classes without a picture": 2,
    }


def test_a_pipe_with_the_name_of_a_picture_is_unreadable(tmp_path):
    put(tmp_path, "1.png")
    os.mkfifo(tmp_path / "2.png")
    source = open_source(str(tmp_path))
    with pytest.raises(UserError, match=r"2\.png cannot be read as a picture: not a regular file"):
        source.image(1, Preprocessing(3, 8, 8))


def test_frames_of_animated_webp_and_apng_are_counted(tmp_path):
    first, second = (Image.new("RGB", (8, 8), colour) for colour in ("red", "blue"))
    for name in ("a.webp", "b.apng"):
        form = {"format": "PNG"} if name == "b.apng" else {}
        first.save(tmp_path / name, save_all=True, append_images=[second], **form)
    source = open_source(str(tmp_path))
    assert source.omitted == {"further pages or frames (the first of a file is read)": 2}
