"""The contract of published formats: tensors under another project's names become a model of ours."""

import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar, TypeVar

import torch
from torch import Tensor, nn

from genstack.checkpoints.bounds import at_most, check_size
from genstack.checkpoints.foreign import File
from genstack.checkpoints.import_options import ImportOptions, MissingOption
from genstack.compressor import Compressor
from genstack.conditions import ClassLabels
from genstack.data.images import Preprocessing
from genstack.errors import UserError
from genstack.layout import CodeLayout
from genstack.model import Model
from genstack.prior.code_prior import CodePrior

Module = TypeVar("Module", bound=nn.Module)
SHOWN = 5  # names in a message
USUAL = (256, 256)  # the size of the images that published compressors were trained on


@dataclass(frozen=True)
class Weight:
    """A tensor for a place in our model.

    Args:
        name: of the tensors in the file that it is made of.
        tensor: its values.
    """

    name: str
    tensor: Tensor

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of the tensor."""
        return tuple(self.tensor.shape)

    def map(self, function: Callable[[Tensor], Tensor]) -> "Weight":
        """Return a function of the tensor under the same name."""
        return Weight(self.name, function(self.tensor))

    def __getitem__(self, rows: slice | Tensor) -> "Weight":
        return Weight(self.name, self.tensor[rows])


def constant(value: Tensor) -> Weight:
    """Return a tensor that no file has."""
    return Weight("a constant", value)


def joined(*weights: Weight) -> Weight:
    """Concatenate tensors along their rows."""
    names = " + ".join(weight.name for weight in weights)
    if len({weight.shape[1:] for weight in weights}) != 1:
        raise UserError(f"{names} do not fit together: {', '.join(str(weight.shape) for weight in weights)}")
    return Weight(names, torch.cat([weight.tensor for weight in weights]))


def combined(function: Callable[..., Tensor], *weights: Weight) -> Weight:
    """Return a function of several tensors, in float32."""
    names = " + ".join(weight.name for weight in weights)
    try:
        return Weight(names, function(*(weight.tensor.float() for weight in weights)))
    except RuntimeError as error:
        shapes = ", ".join(str(weight.shape) for weight in weights)
        raise UserError(f"{names} do not fit together: {shapes}") from error


class Weights:
    """The named tensors of a file. Each is taken once at least, or told apart as no weight, or left over.

    Args:
        tensors: by name.
        config: settings that its project keeps beside them.
        prefix: of all names that are spoken of, for a model within a model.
        taken: names that were taken, shared with the weights around these.
    """

    def __init__(
        self,
        tensors: Mapping[str, Tensor],
        config: Mapping[str, Any],
        prefix: str = "",
        taken: set[str] | None = None,
    ):
        self.tensors, self.config, self.prefix = tensors, config, prefix
        self.taken: set[str] = set() if taken is None else taken

    def inside(self, prefix: str) -> "Weights":
        """The weights of a model within this one."""
        return Weights(self.tensors, self.config, self.prefix + prefix, self.taken)

    def __contains__(self, name: str) -> bool:
        return self.prefix + name in self.tensors

    def shape(self, name: str) -> tuple[int, ...]:
        """The shape of a tensor."""
        if name not in self:
            raise UserError(f"{self.prefix}{name} is missing")
        return tuple(self.tensors[self.prefix + name].shape)

    def dims(self, name: str, count: int) -> tuple[int, ...]:
        """The shape of a tensor that has so many axes."""
        shape = self.shape(name)
        if len(shape) != count:
            raise UserError(f"{self.prefix}{name} has shape {shape}, and {count} axes are expected")
        return shape

    def take(self, name: str) -> Weight:
        """Return a tensor for a place in our model."""
        self.shape(name)
        self.taken.add(self.prefix + name)
        return Weight(self.prefix + name, self.tensors[self.prefix + name])

    def both(self, theirs: str, ours: str) -> dict[str, Weight]:
        """Weight and, where there is one, bias of a layer, under our name."""
        parts = [part for part in ("weight", "bias") if part == "weight" or f"{theirs}.{part}" in self]
        return {f"{ours}.{part}": self.take(f"{theirs}.{part}") for part in parts}

    def count(self, name: str) -> int:
        """Count the names that `{}` gives for the numbers from 0 on."""
        number = 0
        while name.format(number) in self:
            number += 1
        return number

    def left(self, beside: tuple[str, ...]) -> list[str]:
        """Names that nobody took and that match no pattern of `beside`."""
        known = re.compile("|".join(beside) or r"(?!)")
        return sorted(name for name in self.tensors.keys() - self.taken if not known.match(name))


class Format(ABC):
    """A way in which a project writes its models. Subclasses lie in this folder, one file per project."""

    what: ClassVar[str]  # one line for `genstack import --list`
    marks: ClassVar[tuple[str, ...]]  # tensors that every file of this kind has
    unlike: ClassVar[tuple[str, ...]] = ()  # tensors that tell other kinds
    beside: ClassVar[tuple[str, ...]] = ()  # patterns of tensors in the file that are not of the model
    asks: ClassVar[tuple[str, ...]] = ("resolution",)  # the options it reads

    @abstractmethod
    def model(self, weights: Weights, options: ImportOptions) -> Model:
        """The model that weights of this kind make; takes every one of them.

        Raises:
            UserError: what is missing, or has to be said in the options.
        """

    def part(self, file: File, options: ImportOptions) -> str:
        """The entry of a file that holds the weights; empty for the usual ones."""
        return ""

    def fits(self, names: Mapping[str, Any]) -> bool:
        """Return True if tensors of these names belong to this format."""
        return all(name in names for name in self.marks) and not any(name in names for name in self.unlike)

    def read(self, file: File, options: ImportOptions) -> Model:
        """The model in a file of this kind: every weight in its place, and none left over.

        Raises:
            UserError: as above.
        """
        for name in sorted(options.given - set(self.asks)):
            raise UserError(f"--{name.replace('_', '-')} does not apply to a {self.what}; leave it out")
        weights = Weights(file.tensors(self.part(file, options)), file.config)
        model = self.model(weights, options)
        if left := weights.left(self.beside):
            more = f" and {len(left) - SHOWN} more" if len(left) > SHOWN else ""
            raise UserError(
                f"it looks like a {self.what}, but these tensors are left over: "
                f"{', '.join(left[:SHOWN])}{more}"
            )
        return model


def filled(build: Callable[[], Module], weights: Mapping[str, Weight]) -> Module:
    """The module that `build` makes, with these weights: every one in its place, and none left over.

    Counts that training keeps in buffers are not in other projects' files, and stay as new; codebooks
    count as seeded.

    Raises:
        UserError: tensors are missing, too many, or of another shape.
    """
    with torch.device("meta"), at_most(len(weights)):
        blank = build()
    expected = {name: tuple(value.shape) for name, value in blank.state_dict().items()}
    counts = {name for name, _ in blank.named_buffers()} - weights.keys()
    expected = {name: shape for name, shape in expected.items() if name not in counts}
    missing, extra = sorted(expected.keys() - weights.keys()), sorted(weights.keys() - expected.keys())
    if missing or extra:
        names = [weights[name].name for name in extra[:SHOWN]]
        raise UserError(
            f"no tensor for {', '.join(missing[:SHOWN]) or 'none'}, no place for {', '.join(names) or 'none'}"
        )
    for name, shape in expected.items():
        if weights[name].shape != shape:
            raise UserError(
                f"{weights[name].name} has shape {weights[name].shape}; {name} of this model has {shape}"
            )
    check_size(blank, sum(value.nbytes for value in blank.state_dict().values()))
    module = build()
    state = {name: weight.tensor for name, weight in weights.items()}
    if bad := [weights[name].name for name, value in state.items() if not value.isfinite().all()]:
        raise UserError(f"{bad[0]} holds numbers that are not finite (NaN or infinite); the file is damaged")
    new = {name: value for name, value in module.state_dict().items() if name in counts}
    seeded = {name: torch.tensor(True) for name in new if name.endswith(".seeded")}
    module.load_state_dict(new | seeded | state)
    return module.eval().requires_grad_(False)


def given_heads(heads: int) -> int:
    """Return the number of attention heads, which only the user can give."""
    if not heads:
        raise MissingOption("the number of heads is not in the tensors; give it by --heads", "heads")
    return heads


def compressor_of(options: ImportOptions, what: str) -> Model:
    """Return the compressor whose codes a prior reads, where its file does not hold it."""
    if not options.compressor:
        message = f"a {what} does not hold its tokenizer; name its file by --compressor"
        raise MissingOption(message, "compressor")
    from genstack.checkpoints.model_file import load  # which reads published files, too

    return load(Path(options.compressor))


def code_model(options: ImportOptions, what: str, prior: Callable[[CodeLayout], CodePrior]) -> Model:
    """Return a compressor of its own file, and a prior of classes over its codes.

    Args:
        options: name the compressor, and the size of images.
        what: the prior's format.
        prior: builds it for a layout of codes.
    """
    before = compressor_of(options, what)
    seen = before.preprocessing
    height, width = options.size or (seen.height, seen.width)
    built = prior(before.compressor.code_layout(height, width))
    names = built.condition.names if isinstance(built.condition, ClassLabels) else ()
    return Model(before.compressor, replace(seen, height=height, width=width), names, built)


def check_codes(layout: CodeLayout, length: int, codebook_size: int) -> None:
    """Check that a prior reads the codes of a layout.

    Raises:
        UserError: it reads others.
    """
    if (layout.length, layout.codebook_size) != (length, codebook_size):
        raise UserError(
            f"it reads {length} codes of {codebook_size}, and the compressor makes {layout.length} of "
            f"{layout.codebook_size}; name its tokenizer by --compressor, and the image size by --resolution"
        )


def preprocessing(made: Compressor, options: ImportOptions, usual: tuple[int, int] = USUAL) -> Preprocessing:
    """Images of the size that was asked for, or the usual one."""
    height, width = options.size or usual
    made.sizes((height, width))
    return Preprocessing(made.channels, height, width)


def class_names(count: int) -> tuple[str, ...]:
    """Names for classes that a file only counts."""
    return tuple(str(label) for label in range(count))
