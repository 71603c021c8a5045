"""WebDataset shards: the same samples as the webdataset package, exact epochs, damage, and servers."""

import json
import random
import shutil
import tarfile
import warnings
from io import BytesIO
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import torch

from genstack.data import ImageData
from genstack.data.images import Preprocessing
from genstack.data.sources import open_source
from genstack.data.sources.webdataset import shard_paths
from genstack.errors import UserError

FILES = Path(__file__).parents[2] / "golden" / "images"
SIZE = Preprocessing(3, 8, 8)


def tar(path, members):
    with tarfile.open(path, "w") as file:
        for name, data in members:
            (path.parent / "member").write_bytes(data)
            file.add(path.parent / "member", name)
    (path.parent / "member").unlink()


def shards(root, count=3, each=7):
    """Shards of different pictures with class, caption and JSON."""
    from PIL import Image

    root.mkdir(exist_ok=True)
    for shard in range(count):
        members = []
        for row in range(each):
            number = shard * each + row
            pixels = np.random.default_rng(number).integers(0, 256, (9, 11 + row, 3), np.uint8)
            Image.fromarray(pixels).save(root / "one.png")
            members += [
                (f"{number:06d}.png", (root / "one.png").read_bytes()),
                (f"{number:06d}.cls", str(number % 4).encode()),
                (f"{number:06d}.json", json.dumps({"caption": f"number {number}"}).encode()),
            ]
        tar(root / f"{shard:02d}.tar", members)
    (root / "one.png").unlink()
    return root / "{00..02}.tar"


def test_samples_agree_with_webdataset(tmp_path):
    import webdataset

    pattern = str(shards(tmp_path))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        theirs = list(webdataset.WebDataset(pattern, shardshuffle=False).decode("rgb"))
    source = open_source(pattern)
    assert len(source) == len(theirs) == 21
    for number, sample in enumerate(theirs):
        assert source.key(number) == f"{number // 7:02d}.tar/{sample['__key__']}"
        assert source.label(number) == int(sample["cls"])
        assert source.caption(number) == sample["json"]["caption"]
        seen = source.image(number, SIZE)
        np.testing.assert_allclose(seen, sample["png"].transpose(2, 0, 1), atol=1e-6)
    assert source.class_names == ("0", "1", "2", "3")


def test_epochs_are_exact_and_shared_by_processes_and_workers(tmp_path):
    """Every image once an epoch over two processes, whatever the workers, and from the middle."""

    def captions(workers, rank, processes, start=0, count=7):
        data = ImageData(str(tmp_path / "{00..02}.tar"), 8, batch_size=3, validation=0.0, workers=workers)
        assert len(data.split.training) == 20  # one is laid aside
        loader = data.training_loader(start, 20 // 2 // 5, rank, processes)
        return [caption for batch in islice(loader, count) for caption in batch.captions]

    shards(tmp_path)
    whole = [captions(0, rank, 2, count=5) for rank in (0, 1)]
    assert len({*whole[0], *whole[1]}) == 20
    assert captions(2, 1, 2, count=5) == whole[1]
    assert captions(0, 1, 2, start=8, count=3) == whole[1][4:]


def test_second_opening_reads_only_the_index(tmp_path, monkeypatch):
    pattern = str(shards(tmp_path))
    first = open_source(pattern)
    monkeypatch.setattr("genstack.data.tar_shard.members", None)  # what reads headers
    again = open_source(pattern)
    assert [again.key(n) for n in range(21)] == [first.key(n) for n in range(21)]
    assert torch.equal(again.image(20, SIZE), first.image(20, SIZE))


def test_changed_shards_and_damaged_indices_are_indexed_again(tmp_path, home):
    pattern = str(shards(tmp_path))
    open_source(pattern)
    kept = sorted(Path("~/.cache/genstack/data/shards").expanduser().iterdir())
    assert len(kept) == 6  # rows, and the places of their keys
    kept[0].write_bytes(kept[0].read_bytes()[:-5])
    kept[2].write_bytes(b"")
    np.save(kept[4], np.zeros((4, 2)))
    kept[5].unlink()
    assert open_source(pattern).key(20) == "02.tar/000020"
    tar(tmp_path / "01.tar", [("other.png", (FILES / "plain_reference.png").read_bytes())])
    assert [open_source(pattern).key(n) for n in (7, 8)] == ["01.tar/other", "02.tar/000014"]


def test_a_truncated_shard_is_read_up_to_the_damage(tmp_path):
    pattern = str(shards(tmp_path))
    whole = (tmp_path / "01.tar").read_bytes()
    (tmp_path / "01.tar").write_bytes(whole[: len(whole) // 4])
    for _ in range(2):  # each time, for the damage stays
        with pytest.warns(
            UserWarning, match=r"01\.tar is damaged, it breaks off at byte \d+.*; [123] images"
        ):
            source = open_source(pattern)
    assert 14 < len(source) < 21
    assert source.key(len(source) - 1) == "02.tar/000020"


def test_corrupt_members_are_skipped_and_counted(tmp_path):
    good = (FILES / "plain_reference.png").read_bytes()
    members = [(f"{number}.png", good) for number in range(60)]
    tar(tmp_path / "a.tar", [*members[:7], ("bad.png", good[:40]), *members[7:]])
    data = ImageData(str(tmp_path / "a.tar"), 8, validation=0.0)
    with pytest.warns(
        UserWarning, match=r"skipped: .*a\.tar: a\.tar/bad cannot be read as a picture"
    ) as warned:
        list(islice(data.training_loader(), 4))
    assert len(warned) == 1


def test_unusual_members(tmp_path):
    good = (FILES / "plain_reference.png").read_bytes()
    tar(
        tmp_path / "a.tar",
        [
            ("x/1.PNG", good),
            ("x/1.txt", b" a caption\n"),
            ("x/1.json", b"{broken"),
            ("x/2.json", b'{"label": 5}'),
            ("x/2.condition.jpg", good),
            ("x/2.png", good),
            ("x/3.webp", (FILES / "rgba.png").read_bytes()),
            ("x/3.cls", b"cat"),
            ("x/4.txt", b"no picture"),
            ("../../5.png", good),
            ("5.cls", b"99999999999999999999"),
        ],
    )
    source = open_source(str(tmp_path / "a.tar"))
    assert [source.key(n) for n in range(4)] == ["a.tar/x/1", "a.tar/x/2", "a.tar/x/3", "a.tar/../../5"]
    assert source.caption(0) == "a caption" and len(source.class_names) == 6 and source.label(1) == 5
    assert torch.equal(source.condition_image(1, SIZE), source.image(0, SIZE))
    with pytest.raises(UserError, match="x/1 has no condition image"):
        source.condition_image(0, SIZE)
    with pytest.raises(UserError, match=r"x/1 has no class.*\.cls"):
        source.label(0)
    with pytest.raises(UserError, match="x/3 has a class that is not a number"):
        source.label(2)


def test_images_without_their_class_are_skipped_only_where_classes_are_read(tmp_path):
    good = (FILES / "plain_reference.png").read_bytes()
    members = [(f"{n}.{ending}", data) for n in range(40) for ending, data in (("png", good), ("cls", b"1"))]
    tar(tmp_path / "a.tar", [*members, ("last.png", good)])
    of = ImageData(str(tmp_path / "a.tar"), 8, validation=0.0)
    with pytest.warns(UserWarning, match="last has no class"):
        labels = {label for batch in islice(of.training_loader(), 4) for label in batch.labels.tolist()}
    assert labels == {1} and "1 1: 40" in of.report()
    unlabelled = ImageData(str(tmp_path / "a.tar"), 8, validation=0.0, labels="none")
    list(islice(unlabelled.training_loader(), 4))


@pytest.mark.parametrize(
    ("pattern", "places"),
    [
        (
            "http://h/{08..11}.tar",
            ["http://h/08.tar", "http://h/09.tar", "http://h/10.tar", "http://h/11.tar"],
        ),
        (
            "https://h/{a,b}{1..2}.tar",
            ["https://h/a1.tar", "https://h/a2.tar", "https://h/b1.tar", "https://h/b2.tar"],
        ),
        ("http://h/{9..10}.tar?key=1", ["http://h/9.tar?key=1", "http://h/10.tar?key=1"]),
    ],
)
def test_patterns(pattern, places):
    assert shard_paths(pattern) == places


def test_stars_and_brackets_in_names(tmp_path):
    shards(tmp_path / "a [1]")
    shutil.copytree(tmp_path / "a [1]", tmp_path / "b")
    assert len(open_source(str(tmp_path / "b" / "*.tar"))) == 21
    assert len(open_source(str(tmp_path / "a [1]" / "{00..01}.tar"))) == 14
    both = open_source(str(tmp_path / "{a [[]1],b}" / "00.tar"))
    assert len(both) == 14 and both.key(0) != both.key(7)


@pytest.mark.parametrize(
    ("pattern", "message"),
    [
        ("pipe:curl http://host/a.tar", "is a program"),
        ("s3://bucket/{0..9}.tar", "s3:// is not supported"),
        ("file:///etc/a.tar", "file:// is not supported"),
        ("shards/{0000..0003}.tar", "4 of 4 shards are missing: shards/0000.tar"),
        ("none/*.tar", "1 of 1 shards|matches no file"),
        ("shards/a.tar.gz", "not compressed"),
        ("http://h/{0..999999999}.tar", "more than 1048576 shards"),
        ("http://h/{0..999999}{0..999999}.tar", "more than 1048576 shards"),
        ("http://h/a.zip", "expected .tar"),
    ],
)
def test_invalid_patterns_are_rejected(tmp_path, monkeypatch, pattern, message):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=message) as error:
        open_source(pattern)
    assert "\n" not in str(error.value)


def test_shards_without_pictures_are_refused(tmp_path):
    tar(tmp_path / "a.tar", [("1.txt", b"words")])
    with pytest.raises(UserError, match="holds no pictures"):
        open_source(str(tmp_path / "a.tar"))


def picture(number):
    from PIL import Image

    file = BytesIO()
    Image.new("RGB", (9, 9), (number, 0, 0)).save(file, "PNG")
    return file.getvalue()


def shades(source):
    """Red of every image with its label."""
    return [
        (round(source.image(number, SIZE)[0, 0, 0].item() * 255), source.label(number))
        for number in range(len(source))
    ]


PAIRS = [(f"{n:03d}.{ending}", data) for n in range(9) for ending, data in (("png", n), ("cls", n % 3))]


@pytest.mark.parametrize("order", ["pairs", "labels last", "labels first", "shuffled"])
def test_members_need_not_lie_next_to_one_another(tmp_path, order):
    members = [(name, picture(data) if name.endswith("png") else str(data).encode()) for name, data in PAIRS]
    if order == "shuffled":
        random.Random(0).shuffle(members)
    elif order != "pairs":
        members.sort(key=lambda member: member[0].endswith("cls" if order == "labels last" else "png"))
    tar(tmp_path / "a.tar", members)
    source = open_source(str(tmp_path / "a.tar"))
    assert sorted(shades(source)) == [(n, n % 3) for n in range(9)] and source.omitted == {}


@pytest.mark.parametrize("apart", [False, True])
def test_repeated_names_are_separate_images(tmp_path, apart):
    members = [
        (f"{n // 2}.{end}", data) for n in range(8) for end, data in (("png", picture(n)), ("cls", b"%d" % n))
    ]
    if apart:
        members.sort(key=lambda member: member[0].endswith("cls"))
    tar(tmp_path / "a.tar", members)
    assert sorted(shades(open_source(str(tmp_path / "a.tar")))) == [(n, n) for n in range(8)]


def test_repeated_name_does_not_share_its_class(tmp_path):
    tar(
        tmp_path / "a.tar",
        [("0.png", picture(1)), ("0.cls", b"1"), ("0.png", picture(2)), ("1.png", picture(3))],
    )
    source = open_source(str(tmp_path / "a.tar"))
    assert source.labels_of(range(3)).tolist() == [1, -1, -1]
    assert source.omitted == {"pictures without a class number (.cls)": 2}


@pytest.mark.parametrize("member", [("cls", b"caf\xe9"), ("cls", b""), ("json", b'{"label": "cat"}')])
def test_classes_that_are_no_numbers_are_counted(tmp_path, member):
    ending, content = member
    tar(tmp_path / "a.tar", [("0.png", picture(1)), (f"0.{ending}", content), ("1.png", picture(2))])
    source = open_source(str(tmp_path / "a.tar"))
    assert source.class_names == ()
    assert source.omitted == {"classes that are not numbers below a million (.cls, or label in .json)": 1}


def test_unread_members_are_counted(tmp_path):
    good = picture(1)
    members = [
        ("1.png", good),
        ("1.jpg", good),  # another rendition of the same sample
        ("1.cls", b"0"),
        ("cam.000.png", good),
        ("cam.000.cls", b"0"),
        ("2.txt", b"no picture"),
        ("3.heic", good),
        ("README.md", b""),
    ]
    tar(tmp_path / "a.tar", members)
    for _ in range(2):  # read, and from the index
        source = open_source(str(tmp_path / "a.tar"))
        assert len(source) == 1 and source.label(0) == 0
        counts = {what.split(" (")[0]: count for what, count in source.omitted.items()}
        assert counts == {
            "pictures whose names have further dots": 1,
            "names without a picture": 1,
            "members beyond the first of a kind and name": 1,
            "members in formats that are not read": 1,
        }
    tar(tmp_path / "dots.tar", [(f"22.{n:02d}.png", good) for n in range(12)])
    with pytest.raises(UserError, match=r"12 pictures whose names have further dots.*are not read"):
        open_source(str(tmp_path / "dots.tar"))


@pytest.mark.parametrize(
    ("stated", "expected"),
    [(b"null", ""), (b'["a cat", "a pet"]', "a cat"), (b"[]", ""), (b"7", "7"), (b"{}", "")],
)
def test_json_captions_of_other_types(stated, expected, tmp_path):
    tar(tmp_path / "a.tar", [("1.png", picture(1)), ("1.json", b'{"caption": ' + stated + b"}")])
    assert open_source(str(tmp_path / "a.tar")).caption(0) == expected


def test_captions_have_no_byte_order_mark(tmp_path):
    tar(tmp_path / "a.tar", [("1.png", picture(1)), ("1.txt", b"\xef\xbb\xbfa cat")])
    assert open_source(str(tmp_path / "a.tar")).caption(0) == "a cat"


def test_json_captions_have_no_surrogates(tmp_path):
    tar(tmp_path / "a.tar", [("1.png", picture(1)), ("1.json", b'{"caption": "a cat \\ud83d"}')])
    assert open_source(str(tmp_path / "a.tar")).caption(0) == "a cat \ufffd"


def test_links_and_damaged_json_are_counted(tmp_path):
    with tarfile.open(tmp_path / "a.tar", "w") as file:
        for name, data in (("1.png", picture(1)), ("1.json", b'{"label": 1,')):
            member = tarfile.TarInfo(name)
            member.size = len(data)
            file.addfile(member, BytesIO(data))
        for name, kind in (
            ("2.png", tarfile.SYMTYPE),
            ("3.png", tarfile.LNKTYPE),
            ("notes", tarfile.SYMTYPE),
        ):
            member = tarfile.TarInfo(name)
            member.type, member.linkname = kind, "1.png"
            file.addfile(member)
    source = open_source(str(tmp_path / "a.tar"))
    assert len(source) == 1
    assert source.omitted == {
        "links and sparse files (`tar --dereference --hard-dereference` stores contents)": 2,
        ".json members that are not a JSON object": 1,
    }


def test_members_of_unknown_endings_are_counted(tmp_path):
    """Labels and captions of such names would be missed."""
    with tarfile.open(tmp_path / "a.tar", "w") as file:
        for name, data in (("1.png", picture(1)), ("1.label", b"3"), ("1.caption", b"a cat"), ("notes", b"")):
            member = tarfile.TarInfo(name)
            member.size = len(data)
            file.addfile(member, BytesIO(data))
    assert open_source(str(tmp_path / "a.tar")).omitted == {
        "members beside a picture with other endings than .txt, .cls, .json and .condition.png": 2
    }
