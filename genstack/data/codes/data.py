"""Training on codes that were made before: the same order and the same split as with their images."""

from bisect import bisect_right
from collections import Counter
from collections.abc import Iterator, Sequence
from functools import cached_property
from itertools import accumulate, chain, islice
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Int64
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from genstack.data import ImageData
from genstack.data.batch import CodeBatch
from genstack.data.classes import balanced, share_of_each, untrained
from genstack.data.codes.header import read
from genstack.data.codes.shard import Shard, shard_path
from genstack.data.data import Data
from genstack.data.image_data import AS_IS, without_training
from genstack.data.images import Preprocessing, from_uint8
from genstack.data.seeding import mix
from genstack.data.sources import CODES, UNFINISHED, is_archive
from genstack.data.split import Indices, Split, hashed, split
from genstack.data.stream import Stream
from genstack.description import identity
from genstack.errors import UserError
from genstack.inputs import ConditionInputs, DataInfo
from genstack.model import Model


class Archive:
    """An archive of codes, mapped into memory. Each shard is checked once, when it is first read.

    Args:
        folder: where it lies.

    Raises:
        UserError: it is unfinished, or its header or the shape of a shard is wrong.
    """

    def __init__(self, folder: Path):
        if not (folder / CODES).is_file():
            there = read(folder / UNFINISHED)
            done = sum(shard_path(folder, number).exists() for number in range(there.count))
            raise UserError(
                f"{folder} is not finished: {done} of {there.count} shards are there; "
                f"repeat the command `genstack encode` that began it"
            )
        self.folder, self.header = folder, read(folder / CODES)
        if len(self.header.shards) != self.header.count:
            raise UserError(f"{folder / CODES} is damaged: it names no shards; delete it and encode again")
        self.shards = [Shard(shard_path(folder, number), self.header) for number in range(self.header.count)]
        for shard, entry in zip(self.shards, self.header.shards, strict=True):
            if shard.info != entry:
                raise UserError(f"{shard.path} is another shard than {folder / CODES} says; encode again")
        self.ends = list(accumulate(map(len, self.shards)))
        self.checked: set[int] = set()

    def __len__(self) -> int:
        return self.ends[-1] if self.ends else 0

    def keys(self) -> Iterator[str]:
        """The name of each image."""
        return chain.from_iterable(shard.keys() for shard in self.shards)

    def places(self, numbers: Sequence[int]) -> list[tuple[int, int]]:
        """Shard and row of some images."""
        shards = [bisect_right(self.ends, number) for number in numbers]
        return [
            (shard, number - self.ends[shard] + len(self.shards[shard]))
            for shard, number in zip(shards, numbers, strict=True)
        ]

    def labels(self, numbers: Sequence[int]) -> Int64[np.ndarray, " n"]:
        """The classes of some images."""
        found = np.concatenate([shard.arrays["labels"] for shard in self.shards])
        return found[np.asarray(numbers)].astype(np.int64)

    def batch(self, numbers: Sequence[int], views: Sequence[int]) -> CodeBatch:
        """A view of each of some images."""
        where = list(zip(self.places(numbers), views, strict=True))
        for number in {shard for (shard, _), _ in where} - self.checked:
            self.shards[number].check(self.header.shards[number].checksum)
            self.checked.add(number)
        codes = np.stack([self.shards[shard].arrays["codes"][row, view] for (shard, row), view in where])
        labels = [int(self.shards[shard].arrays["labels"][row]) for (shard, row), _ in where]
        captions = [self.shards[shard].captions([row])[0] for (shard, row), _ in where]
        return CodeBatch(
            torch.from_numpy(codes.astype(np.int64)),
            ConditionInputs(
                torch.tensor(labels), tuple(captions), self.others(where), crops=self.edges(where)
            ),
        )

    def others(self, where: Sequence[tuple[tuple[int, int], int]]) -> Tensor | None:
        """The condition images, in [-1, 1]."""
        if not self.header.condition_images:
            return None
        found = [self.shards[shard].arrays["condition_images"][row, view] for (shard, row), view in where]
        return from_uint8(torch.from_numpy(np.stack([np.moveaxis(image, 0, -1) for image in found])))

    def edges(self, where: Sequence[tuple[tuple[int, int], int]]) -> Tensor:
        """Crop coordinates of each view."""
        size = self.header.layout.image_size
        found = []
        for (shard, row), view in where:
            height, width = self.shards[shard].arrays["sides"][row].tolist()
            found.append(self.header.views[view].edges((height, width), size))
        return torch.tensor(found)


class ArchiveDataset(Dataset[CodeBatch]):
    """A data set of some images of an archive, read in whole batches, indexed by (epoch, index).

    Every epoch shows another view of an image, until all have been seen; with `vary` False the first always.
    """

    def __init__(self, archive: Archive, numbers: Sequence[int], seed: int, vary: bool):
        self.archive, self.numbers, self.seed, self.vary = archive, numbers, seed, vary

    def __len__(self) -> int:
        return len(self.numbers)

    def __getitems__(self, places: Sequence[tuple[int, int]]) -> CodeBatch:
        numbers = [self.numbers[index] for _, index in places]
        views = len(self.archive.header.views) if self.vary else 1
        chosen = [
            (mix(self.seed, number) + epoch) % views
            for (epoch, _), number in zip(places, numbers, strict=True)
        ]
        return self.archive.batch(numbers, chosen)


class CodeData(Data):
    """Codes to train a prior on.

    Args:
        data: what the settings say; its source is the folder of an archive.
        compressor: the one that has made the codes.

    Raises:
        UserError: another one has, or the settings ask for what cannot be changed any more.
    """

    def __init__(self, data: ImageData, compressor: Model):
        self.settings, self.source, self.batch_size = data, data.source, data.batch_size
        self.archive = Archive(Path(data.source).expanduser())
        header = self.archive.header
        made, here = header.compressor, identity(compressor)
        if made != here:
            raise UserError(
                f"the codes in {data.source} were made by another compressor ({made[:8]}) than this one "
                f"({here[:8]}); name that one by --compressor, or encode the images again"
            )
        if header.layout != compressor.compressor.layout(*header.layout.image_size):
            raise UserError(f"{Path(data.source) / CODES} says another layout than that of its compressor")
        if data.size != header.layout.image_size:
            height, width = header.layout.image_size
            raise UserError(
                f"data.resolution {data.resolution} is not that of the codes in {data.source}, "
                f"{height},{width}; leave it out, or encode the images again"
            )
        if data.augmentation != AS_IS:
            raise UserError(
                "codes are not varied any more; leave out data.augmentation, or encode several views of each "
                "image: genstack encode --views ten-crop"
            )

    @property
    def preprocessing(self) -> Preprocessing:
        return self.archive.header.preprocessing

    @property
    def class_names(self) -> tuple[str, ...]:
        return () if self.settings.labels == "none" else self.archive.header.classes

    @property
    def info(self) -> DataInfo:
        header = self.archive.header
        return DataInfo(
            self.class_names,
            captions=lambda: (self.caption(number) for number in self.split.training),
            image_shape=self.preprocessing.shape if header.condition_images else (0, 0, 0),
            crops_vary=len({(view.zoom, view.place) for view in header.views}) > 1,
            untrained=self.untrained,
        )

    def caption(self, number: int) -> str:
        """Caption of one image."""
        ((shard, row),) = self.archive.places([number])
        return self.archive.shards[shard].captions([row])[0]

    @cached_property
    def split(self) -> Split:
        """Numbers of the training and of the validation images."""
        limit, share, whole = self.settings.limit, self.settings.validation, len(self.archive)
        if limit is None or limit >= whole or not self.class_names:
            return split(hashed(islice(self.archive.keys(), limit)), share)
        chosen = share_of_each(self.archive.labels(range(whole)), limit)
        keys, kept = self.archive.keys(), {*chosen.tolist()}
        return split(hashed(key for number, key in enumerate(keys) if number in kept), share).of(
            Indices(chosen)
        )

    @cached_property
    def repeated(self) -> Sequence[int]:
        """The numbers of the training images; with `balance` those of rare classes come several times."""
        training, balance = self.split.training, self.settings.balance
        if not balance:
            return training
        if not self.class_names:
            raise UserError(f"data.balance {balance} needs classes, and {self.source} has none")
        return Indices(np.array(training)[balanced(self.archive.labels(training), balance)])

    @cached_property
    def untrained(self) -> tuple[int, ...]:
        """Labels of the classes without a training image."""
        classes = len(self.class_names)
        return untrained(self.archive.labels, self.split.training, classes) if classes else ()

    def notices(self) -> list[str]:
        return without_training(self.untrained, self.class_names)

    def training_loader(
        self, start: int = 0, batch_size: int | None = None, rank: int = 0, processes: int = 1
    ) -> DataLoader:
        batch_size, numbers = batch_size or self.batch_size, self.repeated
        order = Stream(len(numbers), batch_size, mix(self.settings.seed, 0), start, rank, processes)
        return self.loader(
            ArchiveDataset(self.archive, numbers, mix(self.settings.seed, 1), True), order, batch_size
        )

    def validation_loader(
        self, batch_size: int | None = None, rank: int = 0, processes: int = 1
    ) -> DataLoader:
        numbers = self.split.validation
        places = [(0, index) for index in range(rank, len(numbers), processes)]
        return self.loader(
            ArchiveDataset(self.archive, numbers, 0, False), places, batch_size or self.batch_size
        )

    def loader(
        self, codes: ArchiveDataset, order: Stream | list[tuple[int, int]], batch_size: int
    ) -> DataLoader:
        """Batches of codes in this order."""
        return DataLoader(
            codes,
            batch_size,
            sampler=order,
            num_workers=self.settings.workers,
            collate_fn=identity_collate,
            pin_memory=torch.cuda.is_available(),
            generator=torch.Generator().manual_seed(codes.seed),
            persistent_workers=self.settings.workers > 0,
        )

    def examples(self, side: Literal["training", "validation"], count: int | None = None) -> CodeBatch:
        numbers = self.split.training if side == "training" else self.split.validation
        return self.archive.batch(numbers[:count], [0] * len(numbers[:count]))

    def summary(self) -> str:
        header, (height, width) = self.archive.header, self.archive.header.layout.image_size
        return (
            f"{self.source}: codes of {len(self.split.training)} training and {len(self.split.validation)} "
            f"validation images at {height} x {width}, {header.views_of_each}"
        )

    def report(self) -> str:
        lines = [self.summary(), *self.notices()]
        if self.class_names:
            counts = Counter(self.archive.labels(range(len(self.archive))).tolist())
            lines += [f"  #{label} {name}: {counts[label]}" for label, name in enumerate(self.class_names)]
        return "\n".join(lines)


def identity_collate(batch: Any) -> Any:
    """A batch of codes comes as one: nothing is left to join."""
    return batch


def codes_or_images(data: ImageData, compressor: Model) -> Data:
    """The codes that the settings name, or else the images."""
    return CodeData(data, compressor) if is_archive(Path(data.source)) else data
