"""WebDataset shards as a source: images are read by number, so epochs are exact."""

import glob
import re
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import product
from math import prod

import numpy as np
from jaxtyping import Float64, Int64

from genstack.data.cache import Quota, cache, limit
from genstack.data.remote import Remote, fetch, local_path
from genstack.data.source import FileSource
from genstack.data.tar_shard import (
    BAD_LABEL,
    LONGEST,
    NO_LABEL,
    OMITTED,
    Shard,
    open_remote,
    open_shard,
    parse_json,
)
from genstack.data.text import clean, existing, expand
from genstack.errors import UserError

MOST_SHARDS = 2**20
SCHEMES = ("http", "https")
DOWNLOADS = 4  # at once


class WebDatasetSource(FileSource):
    """`shards/{0000..0009}.tar`: tar files with pictures (`.jpg`, `.png`, `.webp`) and metadata of the same
    names.

    `.cls` holds a class number, `.txt` a caption, `.condition.png` a condition image; `.json` may hold
    `label` and `caption` instead. Patterns may contain {0..9} and {a,b}, and * for local files. URLs (http,
    https) are downloaded once into $GENSTACK_DATA or ~/.cache/genstack/data, which also holds the index of
    each shard. $GENSTACK_DATA_GB limits the size of downloads; images of further shards are read from the
    server.
    """

    def __init__(self, name: str):
        self.name = name
        paths = shard_paths(name)
        common = len(re.split(r"[{*?\[]", name)[0].rpartition("/")[0])
        names = [path[common:].lstrip("/") for path in paths]
        if "://" in name:
            quota = Quota(cache() / "fetched", limit())
            with ThreadPoolExecutor(DOWNLOADS) as pool:
                self.shards = list(pool.map(partial(open_url, quota=quota), paths, names))
        else:
            self.shards = [
                open_shard(existing(expand(path)), each) for path, each in zip(paths, names, strict=True)
            ]
        self.ends = np.cumsum([len(shard) for shard in self.shards])
        if not self.ends[-1]:
            omitted = "".join(f"; {count} {what} are not read" for what, count in self.omitted.items())
            raise UserError(f"{name} holds no pictures; expected members like 0001.jpg, 0001.cls{omitted}")
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
            found["pictures without a class number (.cls)"] = without
        elif bad := sum(int((shard.index["label"] == BAD_LABEL).sum()) for shard in self.shards):
            found["classes that are not numbers below a million (.cls, or label in .json)"] = bad
        return found

    def labels_of(self, numbers: Sequence[int]) -> Int64[np.ndarray, " n"]:
        if not self.class_names:
            return np.zeros(len(numbers), np.int64)
        found = np.concatenate([shard.index["label"] for shard in self.shards])
        return np.maximum(found[np.asarray(numbers)].astype(np.int64), -1)

    def key(self, number: int) -> str:
        shard, row = self._find(number)
        return shard.key(row)

    def key_hashes(self, count: int) -> Iterator[Float64[np.ndarray, " n"]]:
        for shard in self.shards:
            yield shard.key_hashes[:count]
            count = max(0, count - len(shard))

    def label(self, number: int) -> int:
        shard, row = self._find(number)
        label = int(shard.index["label"][row])
        if label < 0 and self.class_names:
            what = "no class" if label == NO_LABEL else "a class that is not a number below a million"
            raise UserError(f"{shard.path}: {shard.key(row)} has {what}, but other images have one (.cls)")
        return max(0, label)

    def caption(self, number: int) -> str:
        shard, row = self._find(number)
        caption = shard.part(row, "caption")
        if caption is not None:
            return caption.decode("utf-8-sig", errors="replace").strip()
        known = parse_json(shard.part(row, "json") or b"") or {}
        stated = next((known[key] for key in ("caption", "text") if key in known), "")
        if isinstance(stated, list):  # several captions: the first
            stated = next(iter(stated), "")
        return clean(str(stated)[: LONGEST["caption"]]) if isinstance(stated, str | int | float) else ""

    def file(self, number: int) -> tuple[bytes, str]:
        return self._part(number, "image")

    def condition_file(self, number: int) -> tuple[bytes, str]:
        return self._part(number, "condition")

    def _find(self, number: int) -> tuple[Shard, int]:
        shard = int(np.searchsorted(self.ends, number, side="right"))
        return self.shards[shard], number - (int(self.ends[shard - 1]) if shard else 0)

    def _part(self, number: int, part: str) -> tuple[bytes, str]:
        shard, row = self._find(number)
        data, name = shard.part(row, part), f"{shard.path}: {shard.key(row)}"
        if data is None:
            raise UserError(f"{name} has no condition image; add one beside it, named .condition.png")
        return data, name


def shard_paths(pattern: str) -> list[str]:
    """Expand a pattern to the paths or URLs of shards, in order."""
    if pattern.startswith("pipe:"):
        raise UserError(f"{pattern[:60]} is a program; give paths or http(s) URLs of shards")
    scheme = re.match(r"([\w+.-]+)://", pattern)
    if scheme and scheme[1] not in SCHEMES:
        raise UserError(f"{pattern}: {scheme[1]}:// is not supported; give http(s) URLs or local files")
    if not (pattern.split("?", maxsplit=1)[0] if scheme else pattern).endswith(".tar"):
        raise UserError(f"{pattern}: expected .tar files that are not compressed")
    choices = [alternatives(part) for part in re.split(r"(\{[^{}]*\})", pattern)]
    if prod(map(len, choices)) > MOST_SHARDS:
        raise UserError(f"{pattern} names more than {MOST_SHARDS} shards; name fewer by {{first..last}}")
    names = ["".join(parts) for parts in product(*choices)]
    if scheme:
        return names
    found = [path for name in names for path in ([name] if is_file(name) else matches(name))]
    missing = [path for path in found if not is_file(path)]
    if missing:
        raise UserError(f"{len(missing)} of {len(found)} shards are missing: {', '.join(missing[:3])}")
    if not found:
        raise UserError(f"{pattern} matches no file; give shards such as shards/{{0000..0009}}.tar")
    return found


def is_file(path: str) -> bool:
    return existing(expand(path)).is_file()


def matches(name: str) -> list[str]:
    """Files that match a name with *, ? or [a-z]; the name itself if it has no such pattern."""
    return sorted(glob.glob(name)) if re.search(r"[*?\[]", name) else [name]  # noqa: PTH207


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


def open_url(url: str, name: str, quota: Quota) -> Shard:
    """Open a shard on a server: download it if it fits the quota, or else read it there."""
    folder = cache() / "fetched"
    path = local_path(url, folder)
    if quota.limit is not None:
        remote = None if path.exists() else Remote.open(url)
        size = path.stat().st_size if remote is None else remote.length
        if not quota.reserve(path, size) and remote is not None:
            return open_remote(remote, name, folder / "passing")
    return open_shard(fetch(url, folder), name)
