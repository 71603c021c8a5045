"""Images for training and validation, as a config describes them."""

import re
from collections.abc import Sequence
from functools import cached_property
from typing import Any, Literal

from genstack.data.batch import Batch, ImageDataset, Loader, PictureReader, UnreadableImages, join
from genstack.data.condition_images import ConditionImages
from genstack.data.data import Data
from genstack.data.images import Preprocessing
from genstack.data.seeding import mix
from genstack.data.source import Source
from genstack.data.sources import open_source
from genstack.data.stream import Stream
from genstack.data.text import encodable
from genstack.data.transforms import Augmentation
from genstack.errors import UserError
from genstack.inputs import DataInfo

AS_IS = Augmentation()


class ImageData(Data):
    """Images for training and validation.

    Args:
        source: folder of images (any nesting), or a name such as `digits`, `shapes`, `torchvision:MNIST` or
            `hf:user/name`. Also `shapes:pairs`, a list (`pictures.csv`, `.jsonl`), WebDataset shards
            (`"shards/{0000..0009}.tar"`, or their URLs), `images.parquet` or `hf:./folder`.
        resolution: side of the images that the model sees, or height and width: 64, or 48,64.
        channels: 1 grey, 3 colour, 4 colour and transparency.
        labels: classes: own (the source's), folder (first-level folders), or none.
        condition_images: condition images, for ConditionImage and ImageCodes. null: the training images
            themselves; own: from the data source (`shapes` has segmentation maps); or a folder whose files
            have the same names as the images.
        augmentation: augmentation of training images.
        validation: share of the images used for validation, chosen by a hash of their names.
        background: red, green and blue, 0 to 255, behind transparent pictures.
        window: values of 16-bit files that become black and white; null for 0 and 65535.
        batch_size: images per optimizer step, over all processes and accumulated batches.
        workers: loader processes for each training process; 0 loads images in the training process.
        limit: maximum number of images, the first ones of each class in proportion; null for all.
        seed: seed of the order of images and of their augmentation.
        balance: oversampling of rare classes: 0 for none, 1 to make all classes equally frequent.
    """

    def __init__(  # noqa: PLR0913, PLR0917 - each is a line of the config
        self,
        source: str,
        resolution: int | tuple[int, int] | str = 64,
        channels: Literal[1, 3, 4] = 3,
        labels: Literal["own", "folder", "none"] = "own",
        augmentation: Augmentation = AS_IS,
        validation: float = 0.05,
        window: tuple[float, float] | None = None,
        batch_size: int = 32,
        workers: int = 0,
        limit: int | None = None,
        seed: int = 0,
        condition_images: str | None = None,
        background: tuple[int, int, int] = (255, 255, 255),
        balance: float = 0.0,
    ):
        if not encodable(source):
            raise UserError(f"data source {source} is not valid UTF-8; rename it")
        if not 0 <= balance <= 1:
            raise UserError(f"balance must be from 0 to 1, got {balance}")
        for name, value, least in (
            ("batch_size", batch_size, 1),
            ("workers", workers, 0),
            ("limit", limit, 1),
        ):
            if value is not None and value < least:
                raise UserError(f"{name} must be at least {least}, got {value}")
        self.source, self.resolution, self.channels, self.labels = source, resolution, channels, labels
        self.augmentation, self.validation, self.window = augmentation, validation, window
        self.batch_size, self.workers, self.limit, self.seed = batch_size, workers, limit, seed
        self.condition_images, self.background, self.balance = condition_images, background, balance
        self.size = height_and_width(resolution)

    @classmethod
    def for_model(
        cls, preprocessing: Preprocessing, source: str, labels: Literal["own", "folder", "none"] = "none"
    ) -> "ImageData":
        """Read other images with the preprocessing of a model."""
        settings = preprocessing.settings.items()  # with lists instead of tuples
        given: dict[str, Any] = {
            name: tuple(value) if isinstance(value, list) else value for name, value in settings
        }
        data = cls(source, labels=labels, **given)
        data.preprocessing = preprocessing
        return data

    @cached_property
    def catalog(self) -> Source:
        """The source, opened on first use."""
        return open_source(self.source, self.labels)

    @cached_property
    def preprocessing(self) -> Preprocessing:
        bits = self.catalog.bits if self.channels == 1 else 8
        return Preprocessing(self.channels, *self.size, self.window, bits, self.background)

    @property
    def class_names(self) -> tuple[str, ...]:
        return () if self.labels == "none" else self.catalog.class_names

    @property
    def info(self) -> DataInfo:
        return DataInfo(
            self.class_names,
            captions=lambda: (self.catalog.caption(number) for number in self.split.training),
            image_shape=self.preprocessing.shape,
            crops_vary=self.augmentation.moves_crop,
            untrained=self.untrained,
        )

    @cached_property
    def condition_reader(self) -> ConditionImages | None:
        """Reader of condition images; None if each image is its own."""
        return None if self.condition_images is None else ConditionImages(self.catalog, self.condition_images)

    @cached_property
    def read(self) -> PictureReader:
        """Reader of the pictures."""
        return PictureReader(self.catalog, self.preprocessing, bool(self.class_names), self.condition_reader)

    @cached_property
    def unreadable(self) -> UnreadableImages:
        """Unreadable images so far, on both sides of the split."""
        return UnreadableImages(len(self.numbers))

    def training_loader(
        self, start: int = 0, batch_size: int | None = None, rank: int = 0, processes: int = 1
    ) -> Loader:
        batch_size = batch_size or self.batch_size
        if self.catalog.generated:
            raise UserError(f"all pictures of {self.source} were made by genstack; train on other pictures")
        samples = self.samples(self.training_numbers, self.augmentation)
        order = Stream(len(samples), batch_size, mix(self.seed, 0), start, rank, processes)
        return Loader(samples, order, batch_size, self.workers, self.unreadable)

    def validation_loader(self, batch_size: int | None = None, rank: int = 0, processes: int = 1) -> Loader:
        samples = self.samples(self.split.validation)
        places = [(0, index) for index in range(rank, len(samples), processes)]
        return Loader(samples, places, batch_size or self.batch_size, self.workers, self.unreadable)

    def examples(self, side: Literal["training", "validation"], count: int | None = None) -> Batch:
        samples = self.samples(self.split.training if side == "training" else self.split.validation)
        return join([samples[0, index] for index in range(len(samples))[:count]])

    def samples(self, numbers: Sequence[int], augmentation: Augmentation = AS_IS) -> ImageDataset:
        """A data set of some images, indexed by (epoch, index)."""
        return ImageDataset(self.read, numbers, augmentation, mix(self.seed, 1))

    def summary(self) -> str:
        height, width = self.size
        return (
            f"{self.source}: {len(self.split.training)} training and {len(self.split.validation)} validation "
            f"images, seen at {height} x {width} with {self.channels} channel{'s' * (self.channels > 1)}"
        )

    @property
    def unread(self) -> list[str]:
        """A line about what looks like data in the source and is not read; [] for nothing."""
        omitted = ", ".join(f"{count} {what}" for what, count in self.catalog.omitted.items())
        return [f"{self.source} also holds, unread: {omitted}"] * bool(omitted)

    def notices(self) -> list[str]:
        return self.unread + super().notices()


def height_and_width(resolution: int | tuple[int, int] | str) -> tuple[int, int]:
    """Parse 64, (48, 64), "48,64" and "48x64" to height and width."""
    if isinstance(resolution, str):
        if not re.fullmatch(r"\s*\d+(\s*[,x]\s*\d+)?\s*", resolution):
            raise UserError(
                f"invalid resolution {resolution}; expected one number, or height and width: 48,64"
            )
        sides = tuple(int(side) for side in re.findall(r"\d+", resolution))
    else:
        sides = (resolution,) if isinstance(resolution, int) else tuple(resolution)
    height, width = sides * 2 if len(sides) == 1 else sides
    if min(height, width) < 1:
        raise UserError(f"invalid resolution {height} x {width}; both sides must be at least 1")
    return height, width
