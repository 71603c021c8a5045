"""Image sets of torchvision, downloaded when they are first named."""

import inspect
from difflib import get_close_matches
from typing import Any

from jaxtyping import Float
from PIL import Image
from torch import Tensor

from genstack.data.cache import cache
from genstack.data.images import Preprocessing
from genstack.data.source import PictureInfo, Source
from genstack.errors import UserError

PREFIX = "torchvision:"


class TorchvisionSource(Source):
    """`torchvision:NAME`: the training split of a set, cached in $GENSTACK_DATA or ~/.cache/genstack/data."""

    def __init__(self, name: str):
        self.name = name.removeprefix(PREFIX)
        self.images = open_set(self.name)
        self.targets = next(
            (getattr(self.images, kept) for kept in ("targets", "labels") if hasattr(self.images, kept)), None
        )
        self.class_names = self.classes()

    @classmethod
    def names(cls) -> tuple[str, ...]:
        return (f"{PREFIX}CIFAR10", f"{PREFIX}FashionMNIST", f"{PREFIX}MNIST")

    @classmethod
    def claims(cls, name: str) -> bool:
        return name.startswith(PREFIX)

    def __len__(self) -> int:
        return len(self.images)

    def key(self, number: int) -> str:
        return f"{self.name}/{number}"

    def label(self, number: int) -> int:
        if not self.class_names:
            return 0
        return int(self.images[number][1] if self.targets is None else self.targets[number])

    def info(self, number: int) -> PictureInfo:
        picture = self.picture(number)
        return PictureInfo(picture.height, picture.width, picture.mode)

    def image(self, number: int, preprocessing: Preprocessing) -> Float[Tensor, "c h w"]:
        return preprocessing.pixels(self.picture(number))

    def picture(self, number: int) -> Image.Image:
        try:
            picture = self.images[number][0]
        except (OSError, SyntaxError) as error:
            raise UserError(f"{self.key(number)} cannot be read as a picture: {error}") from error
        if not isinstance(picture, Image.Image):
            raise UserError(
                f"torchvision's {self.name} holds {type(picture).__name__}, not pictures; use another set"
            )
        return picture

    def classes(self) -> tuple[str, ...]:
        """Class names of the set, or its labels as names; () if an image has no single class."""
        first = self.images[0][1]
        try:
            int(first)
        except (TypeError, ValueError, RuntimeError):
            return ()
        for kept in ("classes", "categories"):
            if hasattr(self.images, kept):
                return tuple(
                    name if isinstance(name, str) else " ".join(name) for name in getattr(self.images, kept)
                )
        if self.targets is not None:
            return tuple(str(label) for label in range(int(max(self.targets)) + 1))
        return tuple(str(label) for label in range(getattr(self.images, "num_classes", 0)))


def open_set(name: str) -> Any:
    """Open an image set, which is downloaded if necessary."""
    from torchvision import datasets

    sets = {entry: getattr(datasets, entry) for entry in datasets.__all__ if entry[0].isupper()}
    if name not in sets:
        near = get_close_matches(name, sets, n=1, cutoff=0.5) or ["CIFAR10"]
        near = [entry for entry in sets if entry.lower() == name.lower()] or near
        raise UserError(f"unknown torchvision data set {name}; did you mean {PREFIX}{near[0]}?")
    parameters = inspect.signature(sets[name].__init__).parameters
    missing = [
        key
        for key, parameter in parameters.items()
        if parameter.default is parameter.empty
        and parameter.kind is parameter.POSITIONAL_OR_KEYWORD
        and key not in ("self", "root")
    ]
    if missing:
        raise UserError(
            f"torchvision's {name} needs the arguments {', '.join(missing)}; save its pictures "
            f"in a folder and give that"
        )
    root = cache()
    choices = {"root": str(root), "train": True, "download": True}
    try:
        root.mkdir(parents=True, exist_ok=True)
        return sets[name](**{key: value for key, value in choices.items() if key in parameters})
    except (OSError, RuntimeError, ImportError) as error:
        reason = " ".join(str(error).split())
        raise UserError(
            f"torchvision's {name} could not be fetched ({reason}); connect to the network, "
            f"or put it in {root}"
        ) from error
