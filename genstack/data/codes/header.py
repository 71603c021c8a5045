"""The header of an archive of codes: compressor, layout, views and shards.

`encoding.json` is written first and fixes how the archive is encoded. `codes.json`, which also lists the
shards, replaces it once every shard is written.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from hashlib import blake2b
from pathlib import Path
from typing import Any

import genstack
from genstack.atomic import atomic_path
from genstack.data.codes.storage import Storage, storage
from genstack.data.codes.views import View
from genstack.data.images import Preprocessing
from genstack.data.sources import CODES, UNFINISHED, is_archive
from genstack.data.text import expand
from genstack.description import build, describe
from genstack.errors import UserError
from genstack.layout import Layout

FORMAT_VERSION = 2
LARGEST = 2**26  # bytes of a header; a billion images in shards of 65,536 take 1 MB
MOST_VIEWS = 1024


@dataclass(frozen=True)
class ShardInfo:
    """Number of images in a finished shard, and the checksum of its content."""

    images: int
    checksum: str


@dataclass(frozen=True)
class Header:
    """Metadata of an archive.

    Args:
        compressor: hash of the compressor's weights, structure and preprocessing.
        layout: layout of the codes or latents of one view.
        preprocessing: preprocessing of the compressor.
        classes: class names in the order of their labels.
        views: crops of each image.
        source: `data.source` of the images, for people.
        images: number of images in the source.
        keys: hash of their keys.
        images_per_shard: images of the source in one shard, readable or not.
        condition_images: True if each view has a condition image.
        shards: the finished shards; () until all are written.
        skipped: number of images that could not be read.
    """

    compressor: str
    layout: Layout
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
    def storage(self) -> Storage:
        """Form of the codes or latents in shards."""
        return storage(self.layout)

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
        """Hash of everything fixed before encoding; all shards of an archive carry it."""
        begun = replace(self, shards=(), skipped=0)
        return blake2b(json.dumps(to_json(begun), sort_keys=True).encode(), digest_size=16).hexdigest()

    def write(self, folder: Path) -> None:
        """Write `codes.json`, or `encoding.json` while shards are missing."""
        metadata = {"format_version": FORMAT_VERSION, "genstack_version": genstack.__version__}
        with atomic_path(folder / (CODES if self.shards else UNFINISHED)) as path:
            path.write_text(json.dumps(metadata | to_json(self), indent=1) + "\n", encoding="utf-8")


def read_header(folder: Path) -> Header:
    """Read the header of an archive, complete or not."""
    folder = expand(folder)
    return read(folder / (CODES if (folder / CODES).is_file() else UNFINISHED))


def encoded_source(name: str) -> str:
    """Return the source of the images in an archive; any other name as it is."""
    return read_header(Path(name)).source if is_archive(Path(name)) else name


def read(path: Path) -> Header:
    """Read and check a header file."""
    if path.stat().st_size > LARGEST:
        raise UserError(f"{path} has {path.stat().st_size} bytes; a header has at most {LARGEST}")
    try:
        metadata = json.loads(path.read_text(encoding="utf-8"))
        version = metadata.get("format_version")
        header = from_json(metadata) if version == FORMAT_VERSION else None
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError, OverflowError) as error:
        reason = " ".join(f"{type(error).__name__} {error}".split())[:200]
        raise UserError(f"{path} is damaged or is not a header of codes: {reason}") from error
    if header is None:
        raise UserError(
            f"{path} has format version {version}, this genstack reads {FORMAT_VERSION}; "
            f"encode the images again, or use genstack {metadata.get('genstack_version')}"
        )
    return header


def to_json(header: Header) -> dict[str, Any]:
    """Convert a header to JSON's types."""
    described = {name: getattr(header, name) for name in Header.__dataclass_fields__}
    return described | {
        "layout": describe(header.layout),
        "preprocessing": asdict(header.preprocessing),
        "classes": list(header.classes),
        "views": [asdict(view) for view in header.views],
        "shards": [asdict(entry) for entry in header.shards],
    }


def from_json(metadata: Mapping[str, Any]) -> Header:
    """Inverse of `to_json`; invalid content raises one of the errors that `read` catches."""
    layout = build(metadata["layout"])
    views = tuple(
        View(float(view["zoom"]), pair(view["place"]), bool(view["mirrored"])) for view in metadata["views"]
    )
    if not isinstance(layout, Layout) or not 1 <= len(views) <= MOST_VIEWS:
        raise ValueError("invalid layout or views")
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
    if layout.image_size != (header.preprocessing.height, header.preprocessing.width):
        raise ValueError("layout and preprocessing have different sizes")
    if header.shards and len(header.shards) != header.count:
        raise ValueError(f"expected {header.count} shards, got {len(header.shards)}")
    return header


def text(value: Any) -> str:
    """Check a string."""
    if not isinstance(value, str):
        raise TypeError(f"expected text, got {str(value)[:40]}")
    return value


def number(value: Any) -> int:
    """Check a count."""
    if type(value) is not int or not 0 <= value < 2**48:
        raise TypeError(f"expected a count, got {str(value)[:40]}")
    return value


def pair(value: Any) -> tuple[float, float]:
    """Check two numbers."""
    first, second = value
    return float(first), float(second)
