"""Images of a source to batches: reading, varying, and going on where a file cannot be read."""

import signal
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from multiprocessing.connection import wait
from multiprocessing.process import BaseProcess

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from genstack.data.beside import Beside, check_alike
from genstack.data.framing import Augmentation
from genstack.data.images import Preprocessing
from genstack.data.reading import Reading, how_ended, keeping_handler, undisturbed
from genstack.data.source import Source
from genstack.errors import UserError
from genstack.inputs import ConditionInputs

MOST_UNREADABLE = 0.05


@dataclass
class Batch:
    """What training reads.

    Args:
        images: in [-1, 1].
        labels: zeros where there are no classes.
        skipped: why each unreadable image met on the way was left out, by its key.
        captions: what each shows, in words; () where nothing is known of any.
        condition_images: a picture that goes with each, in [-1, 1]; None where each goes with itself.
        crops: top, left, bottom and right edge of each in its picture, as shares; None where none is known.
    """

    images: Float[Tensor, "b c H W"]
    labels: Int[Tensor, " b"]
    skipped: dict[str, str]
    captions: tuple[str, ...] = ()
    condition_images: Float[Tensor, "b c H W"] | None = None
    crops: Float[Tensor, "b 4"] | None = None

    def __len__(self) -> int:
        return len(self.images)

    def codes(self, encode: Callable[[Tensor], Tensor]) -> Int[Tensor, "b n"]:
        """What `encode` makes of the images."""
        return encode(self.images)

    @property
    def inputs(self) -> ConditionInputs:
        """What is known of the images, for a condition to read."""
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
class CodeBatch:
    """What a prior's training reads where images have been encoded before.

    Args:
        stored: the codes.
        inputs: what is known of their images.
    """

    stored: Int[Tensor, "b n"]
    inputs: ConditionInputs

    def __len__(self) -> int:
        return len(self.stored)

    def codes(self, encode: Callable[[Tensor], Tensor]) -> Int[Tensor, "b n"]:
        """The codes; nothing is left to encode."""
        return self.stored

    def to(self, device: torch.device | str) -> "CodeBatch":
        return CodeBatch(self.stored.to(device), self.inputs.to(device))

    def pin_memory(self) -> "CodeBatch":
        return replace(self, stored=self.stored.pin_memory())


def join(samples: Sequence[Batch]) -> Batch:
    """Batches one after the other as one."""
    return Batch(
        torch.cat([sample.images for sample in samples]),
        torch.cat([sample.labels for sample in samples]),
        {key: reason for sample in samples for key, reason in sample.skipped.items()},
        tuple(caption for sample in samples for caption in sample.captions),
        joined([sample.condition_images for sample in samples]),
        joined([sample.crops for sample in samples]),
    )


def joined(tensors: Sequence[Tensor | None]) -> Tensor | None:
    """One after the other, where all are there."""
    there = [tensor for tensor in tensors if tensor is not None]
    return torch.cat(there) if len(there) == len(tensors) else None


class Samples(Dataset[Batch]):
    """Some images of a source, preprocessed, each as a batch of one; asked for by (epoch, index).

    An unreadable image is replaced by the next readable one of the same side of the split.
    """

    def __init__(
        self,
        source: Source,
        numbers: Sequence[int],
        preprocessing: Preprocessing,
        augmentation: Augmentation,
        labelled: bool,
        seed: int,
        beside: Beside | None = None,
    ):
        self.source, self.numbers, self.preprocessing = source, numbers, preprocessing
        self.augmentation, self.labelled, self.seed = augmentation, labelled, seed
        self.beside = beside
        self.reading = Reading(workers=0)

    def __len__(self) -> int:
        return len(self.numbers)

    def __getitem__(self, place: tuple[int, int]) -> Batch:
        epoch, first = place
        skipped: dict[str, str] = {}
        for step in range(len(self)):
            number = self.numbers[(first + step) % len(self)]
            try:
                with self.reading.of(number):
                    pixels = self.source.image(number, self.preprocessing)
                    other = self._beside(number, pixels)
                    label = self.source.label(number) if self.labelled else 0
                    caption = self.source.caption(number)
            except UserError as error:
                skipped[self.source.key(number)] = str(error)
                continue
            size = (self.preprocessing.height, self.preprocessing.width)
            chance = (size, self.seed, epoch, number)  # the same for both, so that they lie over one another
            height, width = pixels.shape[-2:]
            return Batch(
                self.augmentation(self.preprocessing.to_model(pixels), *chance)[None],
                torch.tensor([label]),
                skipped,
                (caption,),
                None
                if other is None
                else self.augmentation(self.preprocessing.to_model(other), *chance)[None],
                torch.tensor([self.augmentation.edges((height, width), *chance)]),
            )
        raise UserError(f"none of {len(self)} images can be read; the last: {skipped.popitem()[1]}")

    def _beside(self, number: int, pixels: Float[Tensor, "c h w"]) -> Float[Tensor, "c h2 w2"] | None:
        if self.beside is None:
            return None
        other = self.beside(number, self.preprocessing)
        check_alike(pixels, other, self.source.key(number))
        return other


class Unreadable:
    """The unreadable images met so far, of `images` in all: each warned of once, and too many refused."""

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


def stay(worker: int) -> None:
    """Leave Ctrl-C, which a terminal sends to all processes, to the training, which ends its workers."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


class Loader(DataLoader[Batch]):
    """A DataLoader that counts unreadable images where training runs, and draws from no global generator."""

    def __init__(
        self,
        samples: Samples,
        order: Iterable[tuple[int, int]],
        batch_size: int,
        workers: int,
        unreadable: Unreadable,
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
            worker_init_fn=stay,
        )
        self.unreadable = unreadable
        samples.reading = Reading(workers)
        self.samples = samples

    def __iter__(self) -> Iterator[Batch]:  # type: ignore[override]
        with keeping_handler():
            batches = super().__iter__()
        while True:
            try:
                with undisturbed():
                    batch = next(batches)
            except StopIteration:
                return
            except UserError as error:  # a worker's comes with its traceback
                raise UserError(str(error).strip().rpartition("UserError: ")[2]) from error
            except (RuntimeError, OSError, EOFError) as error:  # OSError: while a batch is handed over
                with undisturbed():
                    explained = self._explained(error, getattr(batches, "_workers", []))
                raise explained from error
            self.unreadable.add(batch.skipped)
            yield batch

    def _explained(self, error: Exception, workers: Sequence[BaseProcess]) -> Exception:
        """The error of a dead worker with the image that it died of; any other as it is."""
        dying = wait([worker.sentinel for worker in workers], timeout=1)
        for number, worker in enumerate(workers):
            if worker.sentinel in dying:
                worker.join(timeout=5)  # what it held is closed first, and how it ended is known last
                image = self.samples.reading.last(number)
                place = "between two images" if image is None else f"reading {self.samples.source.key(image)}"
                return UserError(
                    f"a loader worker {how_ended(worker)} {place}; look at that image, and at free memory: "
                    f"fewer data.workers need less"
                )
        return error
