"""Places of members agree with Python's tarfile; hostile files end in one sentence, early and small."""

import io
import random
import tarfile

import pytest

from genstack.data.tar import DamagedTarError, members

CHANCE = random.Random(0)
FILES = {
    "plain.png": b"a" * 700,
    "empty.txt": b"",
    "folder/" * 20 + "long.png": CHANCE.randbytes(512),
    "x" * 300 + ".jpg": CHANCE.randbytes(1025),
    "ü/画像.png": b"b",
}


def written(layout, files=FILES):
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w", format=layout) as tar:
        for name, data in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
        for kind in (tarfile.DIRTYPE, tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE):
            member = tarfile.TarInfo(f"other {kind!r}")
            member.type, member.linkname = kind, "../../plain.png"
            tar.addfile(member)
        member = tarfile.TarInfo("last.png")
        member.size = 3
        tar.addfile(member, io.BytesIO(b"end"))
    return file.getvalue()


def listed(data):
    return [
        (each.name, data[each.start : each.start + each.size])
        for each in members(io.BytesIO(data), len(data))
    ]


@pytest.mark.parametrize("layout", [tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_members_agree_with_tarfile(layout):
    data = written(layout)
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        theirs = [(each.name, tar.extractfile(each).read()) for each in tar if each.isreg()]
    assert listed(data) == theirs == [*FILES.items(), ("last.png", b"end")]


def test_old_headers_with_prefixes():
    files = {name: data for name, data in FILES.items() if len(name) < 256 and name.isascii()}
    assert listed(written(tarfile.USTAR_FORMAT, files)) == [*files.items(), ("last.png", b"end")]


@pytest.mark.parametrize("layout", [tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_truncated_file_is_read_up_to_the_cut(layout):
    whole = [*FILES.items(), ("last.png", b"end")]
    data = written(layout)
    counts = set()
    for length in range(0, len(data) - 10240, 512 + 37):
        found = []
        with pytest.raises(DamagedTarError, match=f"byte {length}"):
            for each in members(io.BytesIO(data[:length]), length):
                found.append((each.name, data[each.start : each.start + each.size]))
        assert found == whole[: len(found)]
        counts.add(len(found))
    assert counts >= {0, 1, 2, 3, 4}


def test_changed_bytes_give_an_error_or_valid_members():
    data = bytearray(written(tarfile.PAX_FORMAT))
    for _ in range(500):
        place, value = CHANCE.randrange(len(data)), CHANCE.randrange(256)
        kept, data[place] = data[place], value
        try:
            for each in members(io.BytesIO(data), len(data)):
                assert 0 <= each.start <= each.start + each.size <= len(data)
                assert len(each.name) <= 1300
        except DamagedTarError:
            pass
        data[place] = kept


def header(size, kind=b"0", name=b"a.png"):
    block = bytearray(512)
    block[: len(name)], block[124:136], block[156:157] = name, size, kind
    block[148:156] = b" " * 8
    block[148:156] = b"%06o\0 " % sum(block)
    return bytes(block)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (header(b"77777777777\0"), "breaks off"),  # claims 8 GiB
        (header(b"\x80" + b"\xff" * 11), "breaks off"),  # claims 2**88 bytes
        (header(b"\xff" * 12), "a size of -1"),
        (header(b"-0000000001\0"), "a size of -1"),
        (
            header(b"00000200000\0", b"L") + b"a" * 65536 + header(b"0") + bytes(1024),
            "the longest name has 1024",
        ),
        (header(b"00001000000\0", b"x") + b"a" * 262144 + bytes(1024), "more than 65536"),
        (
            header(b"00000001000\0", b"x") + b"999999 path=a\n".ljust(512, b"\0") + bytes(1024),
            "no tar header",
        ),
        (header(b"00000001000\0", b"x") + b"0 path=a\n".ljust(512, b"\0") + bytes(1024), "no tar header"),
        (b"no tar at all" * 100, "no "),
        (b"", "byte 0"),
    ],
)
def test_hostile_headers(data, message):
    with pytest.raises(DamagedTarError, match=message):
        list(members(io.BytesIO(data), len(data)))


def test_links_are_not_members():
    """A link that claims a size must not hide what follows it."""
    data = (
        header(b"00000001000\0", b"2", b"link")
        + header(b"00000000003\0")
        + b"abc".ljust(512, b"\0")
        + bytes(1024)
    )
    assert listed(data) == [("a.png", b"abc")]
