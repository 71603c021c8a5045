"""Images to an archive of codes, shard by shard: what is there is kept, and processes share the rest."""

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
from genstack.data.condition_images import check_proportions
from genstack.data.images import to_uint8
from genstack.data.sources import CODES, UNFINISHED
from genstack.description import identity
from genstack.errors import UserError
from genstack.model import Model


@dataclass(frozen=True)
class EncodedPicture:
    """All views of one picture with its metadata; `reason` says why it cannot be read.

    Args:
        key: its name in the source.
        views: what the compressor reads, in [-1, 1].
        others: the same views of the picture that goes with it, where there is one.
        sides: height and width as it is kept.
        label: its class.
        caption: what it shows.
        reason: why there is nothing of it; "" where there is.
    """

    key: str
    views: Float[Tensor, "v c H W"] | None = None
    others: Float[Tensor, "v c H W"] | None = None
    sides: tuple[int, int] = (1, 1)
    label: int = 0
    caption: str = ""
    reason: str = ""


class PictureViews(Dataset[EncodedPicture]):
    """The images of a source by number, each in all its views."""

    def __init__(self, data: ImageData, views: Sequence[View]):
        self.data, self.views = data, views

    def __getitem__(self, number: int) -> EncodedPicture:
        data, source = self.data, self.data.opened
        key = source.key(number)
        try:
            pixels = source.image(number, data.preprocessing)
            other = (
                None if data.condition_reader is None else data.condition_reader(number, data.preprocessing)
            )
            if other is not None:
                check_proportions(pixels, other, key)
            label, caption = source.label(number) if data.class_names else 0, source.caption(number)
        except UserError as error:
            return EncodedPicture(key, reason=str(error))
        height, width = pixels.shape[-2:]
        return EncodedPicture(
            key,
            self.cut(pixels),
            None if other is None else self.cut(other),
            (height, width),
            label,
            caption,
        )

    def cut(self, pixels: Float[Tensor, "c h w"]) -> Float[Tensor, "v c H W"]:
        """Every view of a picture."""
        image = self.data.preprocessing.to_model(pixels)
        return torch.stack([view(image, self.data.size) for view in self.views])


class Encoding:
    """The images of `data` on their way into an archive.

    Args:
        model: whose compressor encodes, where its weights lie.
        data: the images.
        folder: of the archive.
        views: how each image is cut; validation sees the first one.
        images_per_shard: images of the source in one shard.

    Raises:
        UserError: the images are not what the compressor reads, or the folder holds other codes.
    """

    def __init__(
        self, model: Model, data: ImageData, folder: Path, views: tuple[View, ...], images_per_shard: int
    ):
        if images_per_shard < 1:
            raise UserError(f"images_per_shard {images_per_shard} is too small; it must be at least 1")
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
            keys=digest(map(data.opened.key, data.numbers)),
            images_per_shard=images_per_shard,
            condition_images=data.condition_reader is not None,
        )
        self.claim()

    def claim(self) -> None:
        """Make the folder this archive's.

        Raises:
            UserError: it is another one's.
        """
        for name in (CODES, UNFINISHED):
            if (self.folder / name).is_file():
                there = read(self.folder / name)
                differences = differing_fields(there, self.header)
                if differences:
                    raise UserError(
                        f"{self.folder} holds codes that were made otherwise ({', '.join(differences)}); "
                        f"choose another --out"
                    )
                self.header = replace(self.header, source=there.source)
                return
        self.header.write(self.folder)

    @property
    def missing(self) -> list[int]:
        """Numbers of the shards that are not there yet."""
        return [number for number in range(self.header.count) if not shard_path(self.folder, number).exists()]

    def write(self, shards: Sequence[int], done: Callable[[int], None] = lambda images: None) -> int:
        """Encode some shards; the number of images in them. `done` hears of every few images."""
        batch_size = max(1, self.data.batch_size // len(self.header.views))
        batches = [list(part) for shard in shards for part in batches_of(self.numbers(shard), batch_size)]
        loader = iter(
            DataLoader(
                PictureViews(self.data, self.header.views),
                batch_sampler=batches,
                num_workers=self.data.workers,
                collate_fn=list,
                generator=torch.Generator(),
            )
        )
        unreadable, images = UnreadableImages(self.images), 0
        for shard in shards:
            rows: list[tuple[EncodedPicture, np.ndarray]] = []
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
        """The images of a shard."""
        first = shard * self.header.images_per_shard
        return self.data.numbers[first : first + self.header.images_per_shard]

    @torch.no_grad()
    def encode(self, pictures: Sequence[EncodedPicture]) -> Iterator[tuple[EncodedPicture, np.ndarray]]:
        """The codes of every view of some pictures, without the pixels they were made of."""
        if not pictures:
            return
        views = torch.cat([picture.views for picture in pictures if picture.views is not None])
        codes = self.model.compressor.encode(views.to(self.model.device)).cpu().numpy()
        of_each = rearrange(codes, "(b v) n -> b v n", b=len(pictures)).astype(self.header.dtype)
        for picture, one in zip(pictures, of_each, strict=True):
            yield replace(picture, views=None), one

    def arrays(self, rows: Sequence[tuple[EncodedPicture, np.ndarray]]) -> dict[str, np.ndarray]:
        """The arrays of a shard of these images."""
        pictures = [picture for picture, _ in rows]
        nothing = np.empty((0, len(self.header.views), self.header.layout.length), self.header.dtype)
        keys, key_ends = pack([picture.key for picture in pictures])
        arrays = {
            "codes": np.stack([codes for _, codes in rows]) if rows else nothing,
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
            others = [bytes_of(picture.others) for picture in pictures if picture.others is not None]
            nothing = np.empty((0, len(self.header.views), *self.header.preprocessing.shape), np.uint8)
            arrays["condition_images"] = np.stack(others) if others else nothing
        return arrays

    def finish(self) -> Header:
        """Write the header of the whole, once every shard is there.

        Raises:
            UserError: a shard is damaged, or too few images could be read.
        """
        shards = [Shard(shard_path(self.folder, number), self.header) for number in range(self.header.count)]
        entries: tuple[ShardInfo, ...] = tuple(shard.info for shard in shards)
        unreadable = UnreadableImages(self.images)
        unreadable.reasons = {key: reason for shard in shards for key, reason in shard.skipped.items()}
        unreadable.add({})  # nothing new; but of all processes together there may be too many
        whole = replace(self.header, shards=entries, skipped=sum(len(shard.skipped) for shard in shards))
        whole.write(self.folder)
        (self.folder / UNFINISHED).unlink(missing_ok=True)
        flush_folder(self.folder)
        return whole


def bytes_of(images: Float[Tensor, "v c H W"]) -> np.ndarray:
    """Condition images, [-1, 1], as bytes."""
    return np.ascontiguousarray(rearrange(to_uint8(images).numpy(), "v h w c -> v c h w"))


def batches_of(numbers: Sequence[int], size: int) -> Iterator[Sequence[int]]:
    """Parts of a sequence, each so long but for the last."""
    return (numbers[first : first + size] for first in range(0, len(numbers), size))


def digest(keys: Iterator[str]) -> str:
    """A hash of the names of all images, in their order."""
    total = blake2b(digest_size=16)
    for key in keys:
        total.update(key.encode(errors="surrogateescape") + b"\0")
    return total.hexdigest()


def differing_fields(one: Header, other: Header) -> list[str]:
    """The names of what two encodings do not have in common."""
    told = ("shards", "skipped", "source")  # the same images may be named by another path
    names = [name for name in Header.__dataclass_fields__ if name not in told]
    return [name for name in names if getattr(one, name) != getattr(other, name)]
