"""WebDataset shards as images by number: the epoch is exact, any image is read on its own."""

import glob
import re
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property, partial
from itertools import product
from math import prod
from pathlib import Path

import numpy as np
from jaxtyping import Float, Float64, Int64
from torch import Tensor

from genstack.data.cache import Room, cache, limit
from genstack.data.download import fetch, local_path
from genstack.data.images import Preprocessing, read
from genstack.data.remote import probe
from genstack.data.shard import LONGEST, NO_LABEL, OMITTED, Shard, open_remote, open_shard, read_json
from genstack.data.source import PictureInfo, Source, bits_of_first, read_info
from genstack.data.text import clean, existing
from genstack.errors import UserError

MOST_SHARDS = 2**20
SCHEMES = ("http", "https")
AT_ONCE = 4  # shards that are fetched


class ShardSource(Source):
    """`shards/{0000..0009}.tar`: tar files of `.jpg`, `.png`, `.webp` and, by the same names, what is known.

    `.cls` is a class number, `.txt` a caption, `.condition.png` a condition image; `.json` may say `label`
    and `caption` instead. Patterns may have {0..9}, {a,b}, and * on this machine; http:// and https:// are
    fetched once into $GENSTACK_DATA or ~/.cache/genstack/data, where the index of each shard is kept as well.
    With $GENSTACK_DATA_GB they take no more than that; the others stay on their server, and each image of
    theirs is asked for when it is read.
    """

    def __init__(self, name: str):
        self.name = name
        places = shard_paths(name)
        common = len(re.split(r"[{*?\[]", name)[0].rpartition("/")[0])
        names = [place[common:].lstrip("/") for place in places]
        if "://" in name:
            room = Room(cache() / "fetched", limit())
            with ThreadPoolExecutor(AT_ONCE) as several:
                self.shards = list(several.map(partial(open_url, room=room), places, names))
        else:
            self.shards = [
                open_shard(existing(Path(place).expanduser()), each)
                for place, each in zip(places, names, strict=True)
            ]
        self.ends = np.cumsum([len(shard) for shard in self.shards])
        if not self.ends[-1]:
            left_out = "".join(f"; {count} {what} are not read" for what, count in self.omitted.items())
            raise UserError(f"{name} holds no pictures; expected members like 0001.jpg, 0001.cls{left_out}")
        highest = max(int(shard.summary[0]) for shard in self.shards)
        self.class_names = tuple(str(label) for label in range(highest + 1))

    @classmethod
    def names(cls) -> tuple[str, ...]:
        return ("shards/{0000..0009}.tar",)

    @classmethod
    def claims(cls, name: str) -> bool:
        return re.search(r"\.(tar|tgz|tar\.\w+)$|^pipe:|://", name) is not None

    def __len__(self) -> int:
        return int(self.ends[-1])

    @property
    def omitted(self) -> dict[str, int]:
        counts = np.sum([shard.omitted for shard in self.shards], axis=0)
        found = {what: int(count) for what, count in zip(OMITTED, counts, strict=True) if count}
        without = sum(int((shard.index["label"] < 0).sum()) for shard in self.shards)
        if without and self.class_names:
            found["pictures without a class number (.cls), which others have"] = without
        return found

    def labels_of(self, numbers: Sequence[int]) -> Int64[np.ndarray, " n"]:
        if not self.class_names:
            return np.zeros(len(numbers), np.int64)
        found = np.concatenate([shard.index["label"] for shard in self.shards])
        return np.maximum(found[np.asarray(numbers)].astype(np.int64), -1)

    @cached_property
    def bits(self) -> int:  # type: ignore[override]
        return bits_of_first(self)

    def key(self, number: int) -> str:
        shard, row = self._find(number)
        return shard.key(row)

    def key_hashes(self, count: int) -> Iterator[Float64[np.ndarray, " n"]]:
        for shard in self.shards:
            yield shard.key_hashes[:count]
            count = max(0, count - len(shard))

    def label(self, number: int) -> int:
        """The image's class.

        Raises:
            UserError: it has none, or no number, where others have one.
        """
        shard, row = self._find(number)
        label = int(shard.index["label"][row])
        if label < 0 and self.class_names:
            what = "no class" if label == NO_LABEL else "a class that is not a number below a million"
            raise UserError(f"{shard.path}: {shard.key(row)} has {what}, where other images have one (.cls)")
        return max(0, label)

    def caption(self, number: int) -> str:
        shard, row = self._find(number)
        caption = shard.part(row, "caption")
        if caption is not None:
            return caption.decode(errors="replace").strip()
        known = read_json(shard.part(row, "json") or b"")
        stated = next((known[key] for key in ("caption", "text") if key in known), "")
        return clean(str(stated)[: LONGEST["caption"]])

    def info(self, number: int) -> PictureInfo:
        return read_info(*self._bytes(number, "image"))

    def image(self, number: int, preprocessing: Preprocessing) -> Float[Tensor, "c h w"]:
        return self._read(number, "image", preprocessing)

    def condition_image(self, number: int, preprocessing: Preprocessing) -> Float[Tensor, "c h w"]:
        return self._read(number, "condition", preprocessing)

    def _find(self, number: int) -> tuple[Shard, int]:
        place = int(np.searchsorted(self.ends, number, side="right"))
        return self.shards[place], number - (int(self.ends[place - 1]) if place else 0)

    def _bytes(self, number: int, part: str) -> tuple[bytes, str]:
        """A part of a sample, and its name for messages."""
        shard, row = self._find(number)
        data, name = shard.part(row, part), f"{shard.path}: {shard.key(row)}"
        if data is None:
            raise UserError(f"{name} has no condition image; put one beside it, named .condition.png")
        return data, name

    def _read(self, number: int, part: str, preprocessing: Preprocessing) -> Float[Tensor, "c h w"]:
        data, name = self._bytes(number, part)
        raw = preprocessing.window is not None
        return read(data, preprocessing.channels, preprocessing.background, raw, name)


def shard_paths(pattern: str) -> list[str]:
    """The shards that a pattern names, in order.

    Raises:
        UserError: it names a program, a server of another kind, a compressed file, or nothing.
    """
    if pattern.startswith("pipe:"):
        raise UserError(
            f"{pattern[:60]} is a program, and none is run; give the shards, or their http(s) URLs"
        )
    scheme = re.match(r"([\w+.-]+)://", pattern)
    if scheme and scheme[1] not in SCHEMES:
        raise UserError(
            f"{pattern}: {scheme[1]}:// cannot be read; give http(s) URLs, or copy the shards here"
        )
    if not (pattern.split("?", maxsplit=1)[0] if scheme else pattern).endswith(".tar"):
        raise UserError(f"{pattern} names no .tar files; shards are tar files that are not compressed")
    choices = [alternatives(part) for part in re.split(r"(\{[^{}]*\})", pattern)]
    if prod(map(len, choices)) > MOST_SHARDS:
        raise UserError(f"{pattern} names more than {MOST_SHARDS} shards; name fewer by {{first..last}}")
    places = ["".join(parts) for parts in product(*choices)]
    if scheme:
        return places
    found = [path for place in places for path in ([place] if is_file(place) else matches(place))]
    missing = [place for place in found if not is_file(place)]
    if missing:
        raise UserError(f"{len(missing)} of {len(found)} shards are missing: {', '.join(missing[:3])}")
    if not found:
        raise UserError(f"{pattern} names no file; give the shards, such as shards/{{0000..0009}}.tar")
    return found


def is_file(place: str) -> bool:
    return existing(Path(place).expanduser()).is_file()


def matches(place: str) -> list[str]:
    """The files that a name with *, ? or [a-z] means, or the name itself."""
    return sorted(glob.glob(place)) if re.search(r"[*?\[]", place) else [place]  # noqa: PTH207


def alternatives(part: str) -> list[str]:
    """Expand one part of a pattern: {08..11}, {a,b}, or plain text."""
    if not part.startswith("{"):
        return [part]
    between = re.fullmatch(r"\{(\d{1,9})\.\.(\d{1,9})\}", part)
    if between is None:
        return part[1:-1].split(",")
    first, last = between.groups()
    if int(last) - int(first) >= MOST_SHARDS:
        raise UserError(f"{part} is more than {MOST_SHARDS} shards; name fewer by {{first..last}}")
    digits = len(first) if first.startswith("0") or len(first) == len(last) else 0
    return [f"{number:0{digits}d}" for number in range(int(first), int(last) + 1)]


def open_url(url: str, name: str, room: Room) -> Shard:
    """A shard on a server: fetched as long as there is room for it, or else left there."""
    folder = cache() / "fetched"
    place = local_path(url, folder)
    if room.most is not None:
        remote = None if place.exists() else probe(url)
        size = place.stat().st_size if remote is None else remote.length
        if not room.take(place, size) and remote is not None:
            return open_remote(remote, name, folder / "passing")
    return open_shard(fetch(url, folder), name)
