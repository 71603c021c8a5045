"""Encodes images into an archive of codes, shard by shard; finished shards are kept."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from hashlib import blake2b
from pathlib import Path

import numpy as np
import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from genstack.atomic import flush_folder
from genstack.data import ImageData
from genstack.data.batch import UnreadableImages
from genstack.data.codes.header import Header, ShardInfo, read
from genstack.data.codes.shard import Shard, pack, shard_path, write
from genstack.data.codes.views import View
from genstack.data.images import to_uint8
from genstack.data.sources import CODES, UNFINISHED
from genstack.description import identity
from genstack.errors import UserError
from genstack.model import Model


@dataclass(frozen=True)
class PictureViews:
    """All views of a picture, with its metadata.

    Args:
        key: key of the picture in its source.
        images: the views, in [-1, 1]; None if the picture cannot be read, or once it is encoded.
        condition_images: the same views of its condition image; None without one.
        sides: height and width of the picture.
        label: class label.
        caption: caption.
        reason: error of an unreadable picture; "" otherwise.
    """

    key: str
    images: Float[Tensor, "v c H W"] | None = None
    condition_images: Float[Tensor, "v c H W"] | None = None
    sides: tuple[int, int] = (1, 1)
    label: int = 0
    caption: str = ""
    reason: str = ""


class ViewDataset(Dataset[PictureViews]):
    """A map-style data set of pictures by number, each in all its views."""

    def __init__(self, data: ImageData, views: Sequence[View]):
        self.read, self.size, self.views = data.read, data.size, views

    def __getitem__(self, number: int) -> PictureViews:
        key = self.read.source.key(number)
        try:
            picture = self.read(number)
        except UserError as error:
            return PictureViews(key, reason=str(error))
        height, width = picture.pixels.shape[-2:]
        condition = None if picture.condition is None else self.cut(picture.condition)
        images = self.cut(picture.pixels)
        return PictureViews(key, images, condition, (height, width), picture.label, picture.caption)

    def cut(self, image: Float[Tensor, "c h w"]) -> Float[Tensor, "v c H W"]:
        """Cut every view out of an image."""
        return torch.stack([view(image, self.size) for view in self.views])


class Encoding:
    """Encoding of images into an archive, which may be shared by processes and resumed.

    Args:
        model: model whose compressor encodes, on its device.
        data: the images.
        folder: folder of the archive.
        views: views of each image; validation reads the first one.
        images_per_shard: images of the source in one shard.
    """

    def __init__(
        self, model: Model, data: ImageData, folder: Path, views: tuple[View, ...], images_per_shard: int
    ):
        if images_per_shard < 1:
            raise UserError(f"images_per_shard must be at least 1, got {images_per_shard}")
        model.check_preprocessing(data.preprocessing)
        self.model, self.data, self.folder = model, data, folder
        self.images = len(data.numbers)
        self.header = Header(
            compressor=identity(model),
            layout=model.compressor.layout(*data.size),
            preprocessing=data.preprocessing,
            classes=data.class_names,
            views=views,
            source=data.source,
            images=self.images,
            keys=digest(map(data.catalog.key, data.numbers)),
            images_per_shard=images_per_shard,
            condition_images=data.condition_reader is not None,
        )
        self.claim()

    def claim(self) -> None:
        """Write the header, or check it against the one that the folder holds."""
        for name in (CODES, UNFINISHED):
            if (self.folder / name).is_file():
                existing = read(self.folder / name)
                if differences := differing_fields(existing, self.header):
                    raise UserError(
                        f"{self.folder} holds codes with other settings ({', '.join(differences)}); "
                        f"choose another --out"
                    )
                self.header = replace(self.header, source=existing.source)
                return
        if foreign := [path.name for path in visible(self.folder) if path.suffix != ".safetensors"]:
            raise UserError(f"{self.folder} holds other files, such as {foreign[0]}; choose another --out")
        self.header.write(self.folder)

    @property
    def missing(self) -> list[int]:
        """Numbers of the shards that are not written yet."""
        return [number for number in range(self.header.count) if not shard_path(self.folder, number).exists()]

    def write(self, shards: Sequence[int], done: Callable[[int], None] = lambda images: None) -> int:
        """Encode shards and return the number of images in them; `done` receives the size of each batch."""
        batch_size = max(1, self.data.batch_size // len(self.header.views))
        batches = [list(part) for shard in shards for part in batches_of(self.numbers(shard), batch_size)]
        loader = iter(
            DataLoader(
                ViewDataset(self.data, self.header.views),
                batch_sampler=batches,
                num_workers=self.data.workers,
                collate_fn=list,
                generator=torch.Generator(),
            )
        )
        unreadable, images = UnreadableImages(self.images), 0
        for shard in shards:
            rows: list[tuple[PictureViews, np.ndarray]] = []
            skipped: dict[str, str] = {}
            for _ in batches_of(self.numbers(shard), batch_size):
                pictures = next(loader)
                skipped |= {picture.key: picture.reason for picture in pictures if picture.reason}
                rows += self.encode([picture for picture in pictures if not picture.reason])
                done(len(pictures))
            unreadable.add(skipped)
            write(shard_path(self.folder, shard), self.arrays(rows), self.header.plan, skipped)
            images += len(rows)
        return images

    def numbers(self, shard: int) -> Sequence[int]:
        """Numbers of the images of a shard."""
        first = shard * self.header.images_per_shard
        return self.data.numbers[first : first + self.header.images_per_shard]

    @torch.no_grad()
    def encode(self, pictures: Sequence[PictureViews]) -> Iterator[tuple[PictureViews, np.ndarray]]:
        """Encode every view of some pictures; the images are dropped."""
        if not pictures:
            return
        views = torch.cat([picture.images for picture in pictures if picture.images is not None])
        posterior = self.model.compressor.posterior(views.to(self.model.device))
        values = self.header.storage.pack(posterior)
        grouped = rearrange(values, "(b v) ... -> b v ...", b=len(pictures))
        for picture, own in zip(pictures, grouped, strict=True):
            yield replace(picture, images=None), own

    def arrays(self, rows: Sequence[tuple[PictureViews, np.ndarray]]) -> dict[str, np.ndarray]:
        """Collect the arrays of a shard."""
        pictures = [picture for picture, _ in rows]
        storage = self.header.storage
        nothing = np.empty((0, len(self.header.views), *storage.shape), storage.dtype)
        keys, key_ends = pack([picture.key for picture in pictures])
        arrays = {
            storage.name: np.stack([values for _, values in rows]) if rows else nothing,
            "labels": np.array([picture.label for picture in pictures], np.int32),
            "sides": np.array([picture.sides for picture in pictures], np.int32).reshape(-1, 2),
            "keys": keys,
            "key_ends": key_ends,
        }
        classes = self.header.classes
        if any(picture.caption != (classes[picture.label] if classes else "") for picture in pictures):
            captions, caption_ends = pack([picture.caption for picture in pictures])
            arrays |= {"captions": captions, "caption_ends": caption_ends}
        if self.header.condition_images:
            stored = [
                picture.condition_images for picture in pictures if picture.condition_images is not None
            ]
            nothing = np.empty((0, len(self.header.views), *self.header.preprocessing.shape), np.uint8)
            arrays["condition_images"] = np.stack([to_bytes(each) for each in stored]) if stored else nothing
        return arrays

    def finish(self) -> Header:
        """Write the final header, once every shard is written and enough images could be read."""
        shards = [Shard(shard_path(self.folder, number), self.header) for number in range(self.header.count)]
        entries: tuple[ShardInfo, ...] = tuple(shard.info for shard in shards)
        unreadable = UnreadableImages(self.images)
        unreadable.reasons = {key: reason for shard in shards for key, reason in shard.skipped.items()}
        unreadable.add({})  # checks the count of all processes together
        header = replace(self.header, shards=entries, skipped=sum(len(shard.skipped) for shard in shards))
        header.write(self.folder)
        (self.folder / UNFINISHED).unlink(missing_ok=True)
        flush_folder(self.folder)
        return header


def to_bytes(images: Float[Tensor, "v c H W"]) -> np.ndarray:
    """Convert images, [-1, 1], to bytes."""
    return np.ascontiguousarray(rearrange(to_uint8(images).numpy(), "v h w c -> v c h w"))


def batches_of(numbers: Sequence[int], size: int) -> Iterator[Sequence[int]]:
    """Split a sequence into parts of a size; the last may be smaller."""
    return (numbers[first : first + size] for first in range(0, len(numbers), size))


def digest(keys: Iterator[str]) -> str:
    """Hash keys in their order."""
    total = blake2b(digest_size=16)
    for key in keys:
        total.update(key.encode(errors="surrogateescape") + b"\0")
    return total.hexdigest()


def differing_fields(one: Header, other: Header) -> list[str]:
    """List the fields in which two encodings differ; the source may be given by another path."""
    names = [name for name in Header.__dataclass_fields__ if name not in ("shards", "skipped", "source")]
    return [name for name in names if getattr(one, name) != getattr(other, name)]


def visible(folder: Path) -> list[Path]:
    """Files and folders in a folder whose names do not begin with a dot."""
    return [path for path in folder.iterdir() if path.name[0] != "."] if folder.is_dir() else []
