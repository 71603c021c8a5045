"""Batches of images: reading, augmentation, and replacement of unreadable files."""

import signal
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from multiprocessing.connection import wait
from multiprocessing.process import BaseProcess

import torch
from jaxtyping import Float, Int, Shaped
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from genstack.data.condition_images import ConditionImages, check_proportions
from genstack.data.images import Preprocessing
from genstack.data.source import Source
from genstack.data.transforms import Augmentation
from genstack.data.workers import (
    ReadingProgress,
    default_child_handler,
    describe_exit,
    restored_child_handler,
)
from genstack.errors import UserError
from genstack.inputs import ConditionInputs

MOST_UNREADABLE = 0.05


@dataclass
class Batch:
    """One batch of images with labels, captions and crops.

    Args:
        images: in [-1, 1].
        labels: zeros without classes.
        skipped: reason for each unreadable image that was replaced, by key.
        captions: one per image; () for none.
        condition_images: in [-1, 1]; None if each image is its own.
        crops: top, left, bottom and right edge of each image in its picture, as shares; None if unknown.
    """

    images: Float[Tensor, "b c H W"]
    labels: Int[Tensor, " b"]
    skipped: dict[str, str]
    captions: tuple[str, ...] = ()
    condition_images: Float[Tensor, "b c H W"] | None = None
    crops: Float[Tensor, "b 4"] | None = None

    def __len__(self) -> int:
        return len(self.images)

    def posterior(self, encode: Callable[[Tensor], Tensor]) -> Shaped[Tensor, "b ..."]:
        """Encode the images by `Compressor.posterior`."""
        return encode(self.images)

    @property
    def inputs(self) -> ConditionInputs:
        """Inputs of a condition."""
        images = self.images if self.condition_images is None else self.condition_images
        return ConditionInputs(self.labels, self.captions, images, crops=self.crops)

    def to(self, device: torch.device | str) -> "Batch":
        return self._with(lambda tensor: tensor.to(device))

    def pin_memory(self) -> "Batch":
        return self._with(lambda tensor: tensor.pin_memory())

    def _with(self, moved: Callable[[Tensor], Tensor]) -> "Batch":
        others = (self.condition_images, self.crops)
        condition_images, crops = (None if tensor is None else moved(tensor) for tensor in others)
        return replace(
            self,
            images=moved(self.images),
            labels=moved(self.labels),
            condition_images=condition_images,
            crops=crops,
        )


@dataclass
class EncodedBatch:
    """One batch of images that were encoded beforehand, with the inputs of a condition.

    `stored` holds codes, or means and deviations of latents, as `Compressor.posterior` returns them.
    """

    stored: Shaped[Tensor, "b ..."]
    inputs: ConditionInputs

    def __len__(self) -> int:
        return len(self.stored)

    def posterior(self, encode: Callable[[Tensor], Tensor]) -> Shaped[Tensor, "b ..."]:
        """Return what is stored."""
        return self.stored

    def to(self, device: torch.device | str) -> "EncodedBatch":
        return EncodedBatch(self.stored.to(device), self.inputs.to(device))

    def pin_memory(self) -> "EncodedBatch":
        return replace(self, stored=self.stored.pin_memory())


def join(samples: Sequence[Batch]) -> Batch:
    """Concatenate batches."""
    return Batch(
        torch.cat([sample.images for sample in samples]),
        torch.cat([sample.labels for sample in samples]),
        {key: reason for sample in samples for key, reason in sample.skipped.items()},
        tuple(caption for sample in samples for caption in sample.captions),
        concatenate([sample.condition_images for sample in samples]),
        concatenate([sample.crops for sample in samples]),
    )


def concatenate(tensors: Sequence[Tensor | None]) -> Tensor | None:
    """Concatenate tensors; None if any is missing."""
    present = [tensor for tensor in tensors if tensor is not None]
    return torch.cat(present) if len(present) == len(tensors) else None


@dataclass
class Picture:
    """A picture of a source at its own size, in [-1, 1], with its metadata."""

    pixels: Float[Tensor, "c h w"]
    condition: Float[Tensor, "c h2 w2"] | None
    label: int
    caption: str


@dataclass(frozen=True)
class PictureReader:
    """Reads pictures of a source by number.

    Args:
        source: the source.
        preprocessing: preprocessing of the pictures.
        labelled: False to give every picture label 0.
        condition_reader: reader of condition images; None if there are none.
    """

    source: Source
    preprocessing: Preprocessing
    labelled: bool
    condition_reader: ConditionImages | None

    def __call__(self, number: int) -> Picture:
        """Read a picture and its condition image, which must have the same proportions."""
        pixels = self.source.image(number, self.preprocessing)
        condition = None
        if self.condition_reader is not None:
            condition = self.condition_reader(number, self.preprocessing)
            check_proportions(pixels, condition, self.source.key(number))
            condition = self.preprocessing.to_model(condition)
        label = self.source.label(number) if self.labelled else 0
        return Picture(self.preprocessing.to_model(pixels), condition, label, self.source.caption(number))


class ImageDataset(Dataset[Batch]):
    """A map-style data set of preprocessed images, each a batch of one, indexed by (epoch, index).

    An unreadable image is replaced by the next readable one of the same side of the split.
    """

    def __init__(self, read: PictureReader, numbers: Sequence[int], augmentation: Augmentation, seed: int):
        self.read, self.numbers, self.augmentation, self.seed = read, numbers, augmentation, seed
        self.reading = ReadingProgress(workers=0)

    def __len__(self) -> int:
        return len(self.numbers)

    def __getitem__(self, epoch_and_index: tuple[int, int]) -> Batch:
        epoch, first = epoch_and_index
        size = (self.read.preprocessing.height, self.read.preprocessing.width)
        skipped: dict[str, str] = {}
        for step in range(len(self)):
            number = self.numbers[(first + step) % len(self)]
            try:
                with self.reading.of(number):
                    picture = self.read(number)
            except UserError as error:
                skipped[self.read.source.key(number)] = str(error)
                continue
            crop = (size, self.seed, epoch, number)  # the same for both, so that they stay aligned
            condition = picture.condition
            height, width = picture.pixels.shape[-2:]
            return Batch(
                self.augmentation(picture.pixels, *crop)[None],
                torch.tensor([picture.label]),
                skipped,
                (picture.caption,),
                None if condition is None else self.augmentation(condition, *crop)[None],
                torch.tensor([self.augmentation.edges((height, width), *crop)]),
            )
        raise UserError(f"none of {len(self)} images can be read; the last error: {skipped.popitem()[1]}")


class UnreadableImages:
    """Counts unreadable images: warns once about each, raises an error at over 5% of `images`."""

    def __init__(self, images: int):
        self.images = images
        self.reasons: dict[str, str] = {}

    def add(self, skipped: dict[str, str]) -> None:
        for key, reason in skipped.items():
            if key not in self.reasons:
                self.reasons[key] = reason
                warnings.warn(f"skipped: {reason}", stacklevel=2)
        if len(self.reasons) > MOST_UNREADABLE * self.images:
            raise UserError(
                f"{len(self.reasons)} of {self.images} images cannot be read, over {MOST_UNREADABLE:.0%}: "
                f"{', '.join(sorted(self.reasons)[:5])}; `genstack data check` lists all"
            )


def ignore_interrupts(worker: int) -> None:
    """Ignore Ctrl-C in a worker, which the training process ends itself."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


class Loader(DataLoader[Batch]):
    """A DataLoader that counts unreadable images in the training process and uses no global generator."""

    def __init__(
        self,
        samples: ImageDataset,
        order: Iterable[tuple[int, int]],
        batch_size: int,
        workers: int,
        unreadable: UnreadableImages,
    ):
        super().__init__(
            samples,
            batch_size,
            sampler=order,
            num_workers=workers,
            collate_fn=join,
            pin_memory=torch.cuda.is_available(),
            generator=torch.Generator().manual_seed(samples.seed),
            persistent_workers=workers > 0,
            worker_init_fn=ignore_interrupts,
        )
        self.unreadable = unreadable
        samples.reading = ReadingProgress(workers)
        self.samples = samples

    def __iter__(self) -> Iterator[Batch]:  # type: ignore[override]
        with restored_child_handler():
            batches = super().__iter__()
        while True:
            try:
                with default_child_handler():
                    batch = next(batches)
            except StopIteration:
                return
            except UserError as error:  # a worker's message contains its traceback
                raise UserError(str(error).strip().rpartition("UserError: ")[2]) from error
            except (RuntimeError, OSError, EOFError) as error:  # OSError: in the transfer of a batch
                with default_child_handler():
                    explained = self._explain(error, getattr(batches, "_workers", []))
                raise explained from error
            self.unreadable.add(batch.skipped)
            yield batch

    def _explain(self, error: Exception, workers: Sequence[BaseProcess]) -> Exception:
        """Return an error that names the image a dead worker was reading; any other error unchanged."""
        dying = wait([worker.sentinel for worker in workers], timeout=1)
        for number, worker in enumerate(workers):
            if worker.sentinel in dying:
                worker.join(timeout=5)  # its exit code is known a little later
                image = self.samples.reading.last(number)
                place = (
                    "between two images"
                    if image is None
                    else f"reading {self.samples.read.source.key(image)}"
                )
                return UserError(
                    f"a loader worker {describe_exit(worker)} {place}; check that image and the free memory, "
                    f"or lower data.workers"
                )
        return error
