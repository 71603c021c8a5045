"""A WebDataset shard: a tar file of images with labels and captions, and its cached index.

Members with the same name up to the first dot after the last slash are one sample (Aizman et al. 2019,
arXiv:2001.01858). They need not be adjacent.
"""

import json
import warnings
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from hashlib import blake2b
from io import BufferedIOBase
from pathlib import Path

import numpy as np
from jaxtyping import Float64

from genstack.atomic import atomic_path, exclusive
from genstack.data.cache import cache
from genstack.data.images import SUFFIXES, UNREAD
from genstack.data.remote import Remote, fetch
from genstack.data.source import FURTHER, MULTIFRAME, further_frames
from genstack.data.split import hash_key
from genstack.data.tar import DamagedTarError, Member, members
from genstack.errors import UserError

FORMAT_VERSION = 6
MOST_MAPPED = 4096  # indices; Linux allows a process 65,530 maps
PARTS = ("image", "condition", "caption", "json")
LONGEST = {"image": 2**28, "condition": 2**28, "caption": 2**16, "json": 2**20, "label": 2**20}
MOST_CLASSES = 2**20
NO_LABEL, BAD_LABEL = -1, -2
#: Members that are not read, as plural noun phrases; the summary of a shard counts each kind.
OMITTED = (
    "pictures whose names have further dots (a shard's names end at the first dot)",
    "names without a picture",
    "members beyond the first of a kind and name",
    "members that are too large",
    "members in formats that are not read (HEIC and others)",
    "links and sparse files (`tar --dereference --hard-dereference` stores contents)",
    ".json members that are not a JSON object",
    "members beside a picture with other endings than .txt, .cls, .json and .condition.png",
    FURTHER,
)
DOTTED, BARE, EXTRA, LARGE, UNKNOWN, LINKED, NOT_JSON, OTHER, FRAMES = range(len(OMITTED))


@dataclass
class Sample:
    """Members of one name by their roles: image, condition, caption, json and label."""

    name: str
    parts: dict[str, Member] = field(default_factory=dict)


@dataclass(frozen=True)
class Shard:
    """A tar file and the index of its samples: one row each, with name, label, and offset and size of each
    part.

    Args:
        path: path of the tar file, or the file on its server.
        name: name of the shard, for keys.
        summary: the highest label, the counts of OMITTED, and the hash of each key.
        stored: rows of `row_type`, or the file that holds them.
    """

    path: Path | Remote
    name: str
    summary: np.ndarray
    stored: np.ndarray | Path

    def __len__(self) -> int:
        return len(self.summary) - 1 - len(OMITTED)

    @property
    def omitted(self) -> np.ndarray:
        """The counts of OMITTED."""
        return self.summary[1 : 1 + len(OMITTED)]

    @property
    def key_hashes(self) -> np.ndarray:
        """Hashes in [0, 1) of the keys."""
        return self.summary[1 + len(OMITTED) :]

    @property
    def index(self) -> np.ndarray:
        """The rows, memory-mapped from their file."""
        return map_index(self.stored) if isinstance(self.stored, Path) else self.stored

    def key(self, row: int) -> str:
        return key(self.name, self.index["name"][row])

    def part(self, row: int, part: str) -> bytes | None:
        """Read a part of a sample; None if it has no such part."""
        start, size = self.index[part][row].tolist()
        if start == 0:
            return None
        if isinstance(self.path, Remote):
            return self.path.read(start, size)
        try:
            with self.path.open("rb") as file:
                return content(file, Member("", start, size))
        except OSError as error:
            raise UserError(f"{self.path} cannot be read: {error.strerror}") from error


def row_type(letters: int) -> np.dtype:
    """Type of an index row whose names have at most `letters` bytes."""
    span = [("start", "<u8"), ("size", "<u4")]
    return np.dtype([("name", f"S{letters}"), ("label", "<i4"), *((part, span) for part in PARTS)])


def key(shard: str, name: bytes) -> str:
    """Permanent name of a sample."""
    return f"{shard}/{name.decode(errors='replace')}"


def open_shard(path: Path, name: str) -> Shard:
    """Open a shard; its index is read from the cache, or built and cached."""
    try:
        status = path.stat()
    except OSError as error:
        raise UserError(f"shard {path} cannot be read: {error.strerror}") from error
    cached = index_path(str(path.resolve()), status.st_size, status.st_mtime_ns, name)
    if (summary := read_summary(cached)) is not None:
        return Shard(path, name, summary, cached)
    found, omitted, damage = index(path, status.st_size)
    summary = summarize(found, name, omitted)
    if damage:
        warnings.warn(f"shard {path} is damaged, {damage}; {len(found)} images before it", stacklevel=2)
        return Shard(path, name, summary, found)
    return Shard(path, name, summary, cached if write(cached, found, summary) else found)


def open_remote(remote: Remote, name: str, folder: Path) -> Shard:
    """Open a shard that stays on its server; to build its index, it is downloaded once and deleted."""
    cached = index_path(remote.url, remote.length, remote.version, name)
    with exclusive(cached.with_suffix(".lock")):
        if (summary := read_summary(cached)) is not None:
            return Shard(remote, name, summary, cached)
        path = fetch(remote.url, folder)
        found, omitted, damage = index(path, remote.length)
        path.unlink()
        summary = summarize(found, name, omitted)
        if damage:
            raise UserError(f"shard {remote} is damaged, {damage}; leave it out")
        return Shard(remote, name, summary, cached if write(cached, found, summary) else found)


def index_path(*what: object) -> Path:
    """File in the cache for the index of one version of a shard."""
    digest = blake2b(repr((FORMAT_VERSION, *what)).encode(), digest_size=16).hexdigest()
    return cache() / "shards" / f"{digest}.npy"


def summarize(rows: np.ndarray, name: str, omitted: Sequence[int]) -> Float64[np.ndarray, " n"]:
    """Summary of a shard: the highest label, the counts of OMITTED, and the hash of each key."""
    hashes = [hash_key(key(name, sample)) for sample in rows["name"]]
    return np.array([rows["label"].max(initial=NO_LABEL), *omitted, *hashes], np.float64)


def summary_path(cached: Path) -> Path:
    """File of the summary beside an index."""
    return cached.with_suffix(".places.npy")


@lru_cache(MOST_MAPPED)
def map_index(cached: Path) -> np.ndarray:
    """Memory-map an index."""
    found = read(cached)
    if found is None:
        raise UserError(f"{cached}, the index of a shard, was deleted; start again to build it")
    return found


def read_summary(cached: Path) -> np.ndarray | None:
    """Read the summary of an index; None unless both files are valid."""
    return None if read(cached) is None else read(summary_path(cached))


def read(path: Path) -> np.ndarray | None:
    """Memory-map an index or a summary; None if it is missing or damaged."""
    try:
        found = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError):
        return None
    names = found.dtype.names
    rows = names and "name" in names and found.dtype == row_type(found.dtype["name"].itemsize)
    return found if found.ndim == 1 and (rows or found.dtype == np.float64) else None


def write(cached: Path, found: np.ndarray, summary: np.ndarray) -> bool:
    """Write an index and its summary; return False, with a warning, if that fails."""
    try:
        for path, array in ((cached, found), (summary_path(cached), summary)):
            with atomic_path(path) as partial, partial.open("wb") as file:
                np.save(file, array, allow_pickle=False)
    except OSError as error:
        warnings.warn(
            f"the index of a shard could not be written to {cached.parent}: {error.strerror}", stacklevel=2
        )
        return False
    return True


def index(path: Path, length: int) -> tuple[np.ndarray, list[int], str]:
    """Index a tar file: rows of samples with an image, counts of OMITTED, and any damage ("" for none)."""
    damage, found = "", []
    with path.open("rb") as file:
        whole: list[Member] = []
        links: list[str] = []
        try:
            whole.extend(members(file, length, links))
        except DamagedTarError as error:
            damage = str(error)
        grouped, omitted = samples(whole)
        images = [sample.parts["image"] for sample in grouped]
        several = (image for image in images if image.name.lower().endswith(MULTIFRAME))
        omitted[FRAMES] = further_frames((content(file, image), image.name) for image in several)
        omitted[LINKED] = sum(bool(role_of(split_name(name)[1])) for name in links)
        for sample in grouped:
            known = parse_json(content(file, sample.parts["json"])) if "json" in sample.parts else {}
            omitted[NOT_JSON] += known is None
            number = label(file, sample, known or {})
            found.append((sample.name.encode(errors="replace"), number, sample.parts))
    rows = np.zeros(len(found), row_type(max((len(name) for name, *_ in found), default=1)))
    for row, (name, number, parts) in zip(rows, found, strict=True):
        row["name"], row["label"] = name, number
        for part in parts.keys() & {*PARTS}:
            row[part] = (parts[part].start, parts[part].size)
    return rows, omitted, damage


def samples(whole: Sequence[Member]) -> tuple[list[Sample], list[int]]:
    """Group members into samples with an image, in the order of the file, and count the others by OMITTED."""
    omitted = [0] * len(OMITTED)
    names: dict[str, list[tuple[str, Member]]] = {}
    others: list[str] = []  # names of members of no role
    for member in whole:
        name, ending = split_name(member.name)
        role = role_of(ending)
        if role and member.size <= LONGEST[role]:
            names.setdefault(name, []).append((ending, member))
        elif role:
            omitted[LARGE] += 1
        elif member.name.lower().endswith(SUFFIXES):
            omitted[DOTTED] += 1
        elif UNREAD.search(member.name):
            omitted[UNKNOWN] += 1
        else:
            others.append(name)
    found = []
    for name, alike in names.items():
        for group in repetitions(alike):
            sample = Sample(name)
            for ending, member in group:
                sample.parts.setdefault(role_of(ending), member)
            if "image" in sample.parts:
                found.append(sample)
                omitted[EXTRA] += len(group) - len(sample.parts)
            else:
                omitted[BARE] += 1
    pictured = {sample.name for sample in found}
    omitted[OTHER] = sum(name in pictured for name in others)
    return sorted(found, key=lambda sample: min(part.start for part in sample.parts.values())), omitted


def repetitions(members: Sequence[tuple[str, Member]]) -> list[list[tuple[str, Member]]]:
    """Split the members of one name into samples where the name is repeated.

    If all endings are equally frequent, the nth members of each form a sample. Otherwise a repeated ending
    starts the next sample.
    """
    counts = Counter(ending for ending, _ in members)
    groups: list[list[tuple[str, Member]]] = [[]]
    if len({*counts.values()}) == 1:
        groups = [[] for _ in range(counts[members[0][0]])]
        nth: Counter[str] = Counter()
        for ending, member in members:
            groups[nth[ending]].append((ending, member))
            nth[ending] += 1
        return groups
    for ending, member in members:
        if ending in (before for before, _ in groups[-1]):
            groups.append([])
        groups[-1].append((ending, member))
    return groups


def split_name(name: str) -> tuple[str, str]:
    """Name of the sample of a member, and its ending."""
    folder, slash, file = name.rpartition("/")
    stem, _, ending = file.partition(".")
    return folder + slash + stem, ending.lower()


def role_of(ending: str) -> str:
    """Role of a member by its ending; "" if unknown."""
    if f".{ending}" in SUFFIXES:
        return "image"
    if ending.startswith("condition.") and ending.removeprefix("condition") in SUFFIXES:
        return "condition"
    return {"txt": "caption", "json": "json", "cls": "label"}.get(ending, "")


def label(file: BufferedIOBase, sample: Sample, known: Mapping[str, object]) -> int:
    """Class number from `.cls`, or from `label` or `cls` in `.json`; NO_LABEL or BAD_LABEL without one."""
    if "label" in sample.parts:
        stated = content(file, sample.parts["label"], 32).decode(errors="replace").strip()
    else:
        value = next((known[key] for key in ("label", "cls") if key in known), None)
        if value is None:
            return NO_LABEL
        stated = str(value)
    good = stated.isascii() and stated.isdigit() and len(stated) < 10 and int(stated) < MOST_CLASSES
    return int(stated) if good else BAD_LABEL


def parse_json(data: bytes) -> dict[str, object] | None:
    """Parse a `.json` member; None if it is not a JSON object."""
    try:
        known = json.loads(data)
    except (ValueError, RecursionError):
        return None
    return known if isinstance(known, dict) else None


def content(file: BufferedIOBase, member: Member, most: int | None = None) -> bytes:
    """Read the content of a member, at most `most` bytes."""
    file.seek(member.start)
    return file.read(member.size if most is None else min(member.size, most))
