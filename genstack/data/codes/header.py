"""The header of an archive of codes: compressor, layout, views and shards.

`codes.json` is there once every shard is. Until then its first half lies in `encoding.json`, so that an
interrupted encoding goes on only as it was begun.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from hashlib import blake2b
from pathlib import Path
from typing import Any

import numpy as np

import genstack
from genstack.atomic import replacing
from genstack.data.codes.views import View
from genstack.data.images import Preprocessing
from genstack.data.sources import CODES, UNFINISHED
from genstack.description import build, describe
from genstack.errors import UserError
from genstack.layout import CodeLayout

FORMAT_VERSION = 2
LARGEST = 2**26  # bytes of a header; that of a billion images in shards of 65,536 takes 1 MB
MOST_VIEWS = 1024


@dataclass(frozen=True)
class ShardInfo:
    """One finished shard.

    Args:
        images: how many it holds.
        checksum: of all that is in it.
    """

    images: int
    checksum: str


@dataclass(frozen=True)
class Header:
    """Metadata of an archive.

    Args:
        compressor: hash of the compressor's weights, structure and preprocessing.
        layout: of the codes of one view.
        preprocessing: what the compressor was given.
        classes: names in the order of their labels.
        views: how each image was cut.
        source: where the images come from, for people.
        images: how many the source has.
        keys: hash of their keys.
        images_per_shard: images of the source that one shard stands for.
        condition_images: whether a picture goes with each view.
        shards: what became of each shard; () until all are there.
        skipped: images that could not be read.
    """

    compressor: str
    layout: CodeLayout
    preprocessing: Preprocessing
    classes: tuple[str, ...]
    views: tuple[View, ...]
    source: str
    images: int
    keys: str
    images_per_shard: int
    condition_images: bool = False
    shards: tuple[ShardInfo, ...] = ()
    skipped: int = 0

    @property
    def dtype(self) -> np.dtype:
        """The smallest unsigned type that holds every code."""
        return np.min_scalar_type(self.layout.codebook_size - 1)

    @property
    def count(self) -> int:
        """Number of shards."""
        return -(-self.images // self.images_per_shard)

    @property
    def views_of_each(self) -> str:
        """Number of views of each image, in words."""
        return f"{len(self.views)} view{'s' * (len(self.views) > 1)} of each"

    @property
    def plan(self) -> str:
        """A hash of all that is known before encoding begins; shards of another plan do not belong."""
        begun = replace(self, shards=(), skipped=0)
        return blake2b(json.dumps(to_json(begun), sort_keys=True).encode(), digest_size=16).hexdigest()

    def write(self, folder: Path) -> None:
        """Into its file, there whole or not at all."""
        metadata = {"format_version": FORMAT_VERSION, "genstack_version": genstack.__version__}
        with replacing(folder / (CODES if self.shards else UNFINISHED)) as path:
            path.write_text(json.dumps(metadata | to_json(self), indent=1) + "\n", encoding="utf-8")


def header_in(folder: Path) -> Header:
    """Read the header of an archive, complete or not."""
    folder = folder.expanduser()
    return read(folder / (CODES if (folder / CODES).is_file() else UNFINISHED))


def read(path: Path) -> Header:
    """The header in a file.

    Raises:
        UserError: it is damaged, from another version, or says what cannot be.
    """
    if path.stat().st_size > LARGEST:
        raise UserError(f"{path} has {path.stat().st_size} bytes, and no header is over {LARGEST}")
    try:
        metadata = json.loads(path.read_text(encoding="utf-8"))
        version = metadata.get("format_version")
        header = from_json(metadata) if version == FORMAT_VERSION else None
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError, OverflowError) as error:
        reason = " ".join(f"{type(error).__name__} {error}".split())[:200]
        raise UserError(f"{path} is damaged, or no header of codes: {reason}") from error
    if header is None:
        raise UserError(
            f"{path} has format version {version}, this genstack reads {FORMAT_VERSION}; "
            f"encode the images again, or use genstack {metadata.get('genstack_version')}"
        )
    return header


def to_json(header: Header) -> dict[str, Any]:
    """A header as JSON holds it."""
    described = {name: getattr(header, name) for name in Header.__dataclass_fields__}
    return described | {
        "layout": describe(header.layout),
        "preprocessing": asdict(header.preprocessing),
        "classes": list(header.classes),
        "views": [asdict(view) for view in header.views],
        "shards": [asdict(entry) for entry in header.shards],
    }


def from_json(metadata: Mapping[str, Any]) -> Header:
    """The way back from `to_json`; whatever is wrong in it raises an error of one kind or another."""
    layout = build(metadata["layout"])
    views = tuple(
        View(float(view["zoom"]), pair(view["place"]), bool(view["mirrored"])) for view in metadata["views"]
    )
    header = Header(
        compressor=text(metadata["compressor"]),
        layout=layout,
        preprocessing=Preprocessing(**metadata["preprocessing"]),
        classes=tuple(text(name) for name in metadata["classes"]),
        views=views,
        source=text(metadata["source"]),
        images=number(metadata["images"]),
        keys=text(metadata["keys"]),
        images_per_shard=max(1, number(metadata["images_per_shard"])),
        condition_images=metadata["condition_images"] is True,
        shards=tuple(
            ShardInfo(number(entry["images"]), text(entry["checksum"])) for entry in metadata["shards"]
        ),
        skipped=number(metadata["skipped"]),
    )
    if not isinstance(layout, CodeLayout) or not 1 <= len(views) <= MOST_VIEWS:
        raise ValueError("invalid layout or views")
    if layout.image_size != (header.preprocessing.height, header.preprocessing.width):
        raise ValueError("layout and preprocessing are of different sizes")
    if header.shards and len(header.shards) != header.count:
        raise ValueError(f"{len(header.shards)} shards are there, and {header.count} are counted")
    return header


def text(value: Any) -> str:
    """A string, and nothing else."""
    if not isinstance(value, str):
        raise TypeError(f"expected text, got {str(value)[:40]}")
    return value


def number(value: Any) -> int:
    """A count, and nothing else."""
    if type(value) is not int or not 0 <= value < 2**48:
        raise TypeError(f"expected a count, got {str(value)[:40]}")
    return value


def pair(value: Any) -> tuple[float, float]:
    """Two numbers."""
    first, second = value
    return float(first), float(second)
