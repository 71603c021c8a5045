"""Training data of codes or latents that were encoded beforehand."""

from bisect import bisect_right
from collections.abc import Iterator, Sequence
from itertools import accumulate, chain, islice
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Float64, Int64
from torch.utils.data import DataLoader, Dataset

from genstack.data import ImageData
from genstack.data.batch import EncodedBatch
from genstack.data.codes.header import read
from genstack.data.codes.shard import Shard, shard_path
from genstack.data.data import Data
from genstack.data.image_data import AS_IS
from genstack.data.images import Preprocessing, from_uint8
from genstack.data.seeding import mix
from genstack.data.sources import CODES, UNFINISHED, is_archive
from genstack.data.split import hash_keys
from genstack.data.stream import Stream
from genstack.data.text import expand
from genstack.description import identity
from genstack.errors import UserError
from genstack.inputs import ConditionInputs, DataInfo
from genstack.model import Model


class Archive:
    """An archive of codes, memory-mapped. Each shard is verified once, when it is first read.

    Args:
        folder: the folder of the archive.
    """

    def __init__(self, folder: Path):
        if not (folder / CODES).is_file():
            header = read(folder / UNFINISHED)
            done = sum(shard_path(folder, number).exists() for number in range(header.count))
            raise UserError(
                f"{folder} is not finished: {done} of {header.count} shards are there; "
                f"repeat the command `genstack encode` that began it"
            )
        self.folder, self.header = folder, read(folder / CODES)
        if len(self.header.shards) != self.header.count:
            raise UserError(f"{folder / CODES} is damaged: it lists no shards; delete it and encode again")
        self.shards = [Shard(shard_path(folder, number), self.header) for number in range(self.header.count)]
        for shard, entry in zip(self.shards, self.header.shards, strict=True):
            if shard.info != entry:
                raise UserError(f"{shard.path} is another shard than {folder / CODES} says; encode again")
        self.ends = list(accumulate(map(len, self.shards)))
        self.verified: set[int] = set()

    def __len__(self) -> int:
        return self.ends[-1] if self.ends else 0

    def find(self, number: int) -> tuple[int, int]:
        """Number of the shard of an image, and its row there."""
        shard = bisect_right(self.ends, number)
        return shard, number - self.ends[shard] + len(self.shards[shard])

    def key(self, number: int) -> str:
        shard, row = self.find(number)
        return self.shards[shard].keys([row])[0]

    def keys(self) -> Iterator[str]:
        """Keys of all images."""
        return chain.from_iterable(shard.keys(range(len(shard))) for shard in self.shards)

    def key_hashes(self, count: int) -> Iterator[Float64[np.ndarray, " n"]]:
        return hash_keys(islice(self.keys(), count))

    def labels_of(self, numbers: Sequence[int]) -> Int64[np.ndarray, " n"]:
        found = np.concatenate([shard.arrays["labels"] for shard in self.shards])
        return found[np.asarray(numbers)].astype(np.int64)

    def caption(self, number: int) -> str:
        shard, row = self.find(number)
        return self.shards[shard].captions([row])[0]

    def batch(self, numbers: Sequence[int], views: Sequence[int]) -> EncodedBatch:
        """Read one view of each image."""
        places = [(*self.find(number), view) for number, view in zip(numbers, views, strict=True)]
        for number in {shard for shard, _, _ in places} - self.verified:
            self.shards[number].verify(self.header.shards[number].checksum)
            self.verified.add(number)
        storage = self.header.storage
        values = np.stack([self.shards[shard].arrays[storage.name][row, view] for shard, row, view in places])
        labels = [int(self.shards[shard].arrays["labels"][row]) for shard, row, _ in places]
        captions = [self.shards[shard].captions([row])[0] for shard, row, _ in places]
        crops = torch.tensor([self.crop(*place) for place in places])
        images = None
        if self.header.condition_images:
            stored = [self.shards[shard].arrays["condition_images"][row, view] for shard, row, view in places]
            images = from_uint8(torch.from_numpy(np.moveaxis(np.stack(stored), 1, -1)))
        inputs = ConditionInputs(torch.tensor(labels), tuple(captions), images, crops=crops)
        return EncodedBatch(storage.unpack(values), inputs)

    def crop(self, shard: int, row: int, view: int) -> tuple[float, float, float, float]:
        """Crop coordinates of a view."""
        height, width = self.shards[shard].arrays["sides"][row].tolist()
        return self.header.views[view].edges((height, width), self.header.layout.image_size)


class ArchiveDataset(Dataset[EncodedBatch]):
    """A map-style data set of images of an archive, indexed by (epoch, index) and read in whole batches.

    With `vary`, an image cycles through its views, one an epoch; otherwise it keeps the first view.
    """

    def __init__(self, archive: Archive, numbers: Sequence[int], seed: int, vary: bool):
        self.archive, self.numbers, self.seed, self.vary = archive, numbers, seed, vary

    def __len__(self) -> int:
        return len(self.numbers)

    def __getitems__(self, indices: Sequence[tuple[int, int]]) -> EncodedBatch:
        numbers = [self.numbers[index] for _, index in indices]
        views = len(self.archive.header.views) if self.vary else 1
        epochs = [epoch for epoch, _ in indices]
        chosen = [
            (mix(self.seed, number) + epoch) % views for epoch, number in zip(epochs, numbers, strict=True)
        ]
        return self.archive.batch(numbers, chosen)


class CodeData(Data):
    """Codes to train a prior on, in the order and the split of their images.

    Args:
        data: the settings; the source is the folder of an archive.
        compressor: the compressor that the codes were made with.
    """

    encoded = True

    def __init__(self, data: ImageData, compressor: Model):
        self.settings, self.source, self.batch_size = data, data.source, data.batch_size
        self.limit, self.validation, self.balance = data.limit, data.validation, data.balance
        self.archive = Archive(expand(data.source))
        header = self.archive.header
        made, here = header.compressor, identity(compressor)
        if made != here:
            raise UserError(
                f"the codes in {data.source} were made by another compressor ({made[:8]}) than this one "
                f"({here[:8]}); give that one as --compressor, or encode the images again"
            )
        if header.layout != compressor.compressor.layout(*header.layout.image_size):
            raise UserError(f"{Path(data.source) / CODES} has another layout than its compressor")
        if data.size != header.layout.image_size:
            height, width = header.layout.image_size
            raise UserError(
                f"data.resolution {data.resolution} differs from {height},{width} of the codes in "
                f"{data.source}; leave it out, or encode the images again"
            )
        if data.augmentation != AS_IS:
            raise UserError(
                "codes cannot be augmented; leave out data.augmentation, or encode several views of each "
                "image: genstack encode --views ten-crop"
            )

    @property
    def catalog(self) -> Archive:
        return self.archive

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
            captions=lambda: (self.archive.caption(number) for number in self.split.training),
            image_shape=self.preprocessing.shape if header.condition_images else (0, 0, 0),
            crops_vary=len({(view.zoom, view.place) for view in header.views}) > 1,
            untrained=self.untrained,
        )

    def training_loader(
        self, start: int = 0, batch_size: int | None = None, rank: int = 0, processes: int = 1
    ) -> DataLoader:
        batch_size, numbers = batch_size or self.batch_size, self.training_numbers
        order = Stream(len(numbers), batch_size, mix(self.settings.seed, 0), start, rank, processes)
        codes = ArchiveDataset(self.archive, numbers, mix(self.settings.seed, 1), vary=True)
        return self.loader(codes, order, batch_size)

    def validation_loader(
        self, batch_size: int | None = None, rank: int = 0, processes: int = 1
    ) -> DataLoader:
        numbers = self.split.validation
        order = [(0, index) for index in range(rank, len(numbers), processes)]
        codes = ArchiveDataset(self.archive, numbers, seed=0, vary=False)
        return self.loader(codes, order, batch_size or self.batch_size)

    def loader(
        self, codes: ArchiveDataset, order: Stream | list[tuple[int, int]], batch_size: int
    ) -> DataLoader:
        """Batches of codes in this order."""
        return DataLoader(
            codes,
            batch_size,
            sampler=order,
            num_workers=self.settings.workers,
            collate_fn=keep,
            pin_memory=torch.cuda.is_available(),
            generator=torch.Generator().manual_seed(codes.seed),
            persistent_workers=self.settings.workers > 0,
        )

    def examples(self, side: Literal["training", "validation"], count: int | None = None) -> EncodedBatch:
        numbers = self.split.training if side == "training" else self.split.validation
        return self.archive.batch(numbers[:count], [0] * len(numbers[:count]))

    def summary(self) -> str:
        header, (height, width) = self.archive.header, self.archive.header.layout.image_size
        return (
            f"{self.source}: codes of {len(self.split.training)} training and {len(self.split.validation)} "
            f"validation images at {height} x {width}, {header.views_of_each}"
        )


def keep(batch: Any) -> Any:
    """Return a batch unchanged: `ArchiveDataset` reads whole batches, so nothing is left to collate."""
    return batch


def open_data(data: ImageData, compressor: Model) -> Data:
    """Return the archive of codes that the settings name, or the images themselves."""
    return CodeData(data, compressor) if is_archive(Path(data.source)) else data
