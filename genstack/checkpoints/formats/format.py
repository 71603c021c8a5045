"""The contract of published formats: conversion of another project's tensors to a genstack model."""

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
from genstack.checkpoints.mapped import drop_pages
from genstack.compressor import Compressor
from genstack.conditions import ClassLabels
from genstack.data.images import Preprocessing
from genstack.errors import UserError
from genstack.layout import CodeLayout
from genstack.model import Model
from genstack.prior.code_prior import CodePrior

Module = TypeVar("Module", bound=nn.Module)
SHOWN = 5  # names in a message
PIECE = 2**20  # numbers that are copied at a time
DEFAULT_SIZE = (256, 256)  # of the images that published compressors were trained on
#: Names of tensors in training files that do not belong to a compressor.
TRAINING_TENSORS = (r"loss\.", r"model_ema\.", r"colorize$")


@dataclass(frozen=True)
class Weight:
    """A tensor for a genstack model, with its names in the file, for messages."""

    name: str
    tensor: Tensor

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the tensor."""
        return tuple(self.tensor.shape)

    def map(self, function: Callable[[Tensor], Tensor]) -> "Weight":
        """Apply a function to the tensor."""
        return Weight(self.name, function(self.tensor))

    def __getitem__(self, rows: slice | Tensor) -> "Weight":
        return Weight(self.name, self.tensor[rows])


def constant(value: Tensor) -> Weight:
    """Make a weight that is not in the file."""
    return Weight("a constant", value)


def concatenate(*weights: Weight) -> Weight:
    """Concatenate tensors along their rows."""
    names = " + ".join(weight.name for weight in weights)
    if len({weight.shape[1:] for weight in weights}) != 1:
        raise UserError(
            f"{names} have incompatible shapes: {', '.join(str(weight.shape) for weight in weights)}"
        )
    return Weight(names, torch.cat([weight.tensor for weight in weights]))


def combine(function: Callable[..., Tensor], *weights: Weight) -> Weight:
    """Apply a function to several tensors, in float32."""
    names = " + ".join(weight.name for weight in weights)
    try:
        return Weight(names, function(*(weight.tensor.float() for weight in weights)))
    except RuntimeError as error:
        shapes = ", ".join(str(weight.shape) for weight in weights)
        raise UserError(f"{names} have incompatible shapes: {shapes}") from error


class Weights:
    """Tensors of a file by name, and the names that are used so far.

    Args:
        tensors: tensors by name.
        config: content of `config.json`.
        prefix: prefix of the names given to methods.
        taken: names of used tensors.
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
        """Weights of a part of the model."""
        return Weights(self.tensors, self.config, self.prefix + prefix, self.taken)

    def __contains__(self, name: str) -> bool:
        return self.prefix + name in self.tensors

    def shape(self, name: str) -> tuple[int, ...]:
        """Shape of a tensor."""
        if name not in self:
            raise UserError(f"tensor {self.prefix}{name} not found")
        return tuple(self.tensors[self.prefix + name].shape)

    def dims(self, name: str, count: int) -> tuple[int, ...]:
        """Shape of a tensor with `count` axes."""
        shape = self.shape(name)
        if len(shape) != count:
            raise UserError(f"tensor {self.prefix}{name} must have {count} axes, got shape {shape}")
        return shape

    def take(self, name: str) -> Weight:
        """Use a tensor."""
        self.shape(name)
        self.taken.add(self.prefix + name)
        return Weight(self.prefix + name, self.tensors[self.prefix + name])

    def layer(self, theirs: str, ours: str) -> dict[str, Weight]:
        """Use the weight of a layer and its bias, if it has one, under our name."""
        parts = [part for part in ("weight", "bias") if part == "weight" or f"{theirs}.{part}" in self]
        return {f"{ours}.{part}": self.take(f"{theirs}.{part}") for part in parts}

    def count(self, name: str) -> int:
        """Count the layers of a list: replace `{}` in a name by 0, 1, 2 and so on while it exists."""
        number = 0
        while name.format(number) in self:
            number += 1
        return number

    def ema(self) -> "Weights":
        """Read EMA weights, which LitEma of latent-diffusion stores under names without dots."""
        if "model_ema.decay" not in self:
            raise UserError("the file has no EMA weights (model_ema.*); leave out --ema")
        tensors = dict(self.tensors)
        for name in self.tensors:
            other = "model_ema." + name.replace(".", "")
            if not name.startswith(("model_ema.", "loss.")) and other in tensors:
                if tensors[other].shape != tensors[name].shape:
                    raise UserError(
                        f"{other} has shape {tensors[other].shape}, but {name} has {tensors[name].shape}"
                    )
                tensors[name] = tensors[other]
        return Weights(tensors, self.config, taken=self.taken)

    def unused(self, ignored: tuple[str, ...]) -> list[str]:
        """List unused names that match no pattern in `ignored`."""
        known = re.compile("|".join(ignored) or r"(?!)")
        return sorted(name for name in self.tensors.keys() - self.taken if not known.match(name))


@dataclass(frozen=True)
class Provenance:
    """Origin and licence of published files of a format, and the comparison with the original code.

    Args:
        files: names of published files, and where they are.
        source: repository of the project.
        licence: licence of the code, as in the repository.
        weights: licence of the weights, as in the repository or on the page of the files.
        checked: results that agree with the original code, on small random weights in the same format.
    """

    files: str
    source: str
    licence: str
    weights: str
    checked: str


class Format(ABC):
    """A format of published models. A new format is a new class in this folder, with one file per project."""

    what: ClassVar[str]  # one line for `genstack import --list`
    provenance: ClassVar[Provenance | None] = None  # further lines for it
    required: ClassVar[tuple[str, ...]]  # tensors that every file has
    excluded: ClassVar[tuple[str, ...]] = ()  # tensors of other formats
    ignored: ClassVar[tuple[str, ...]] = ()  # patterns of tensors that are not part of the model
    options: ClassVar[tuple[str, ...]] = ("resolution",)  # fields of ImportOptions that apply

    @abstractmethod
    def model(self, weights: Weights, options: ImportOptions) -> Model:
        """Build the model and load all weights; raise UserError if a tensor or an option is missing."""

    def part(self, file: File, options: ImportOptions) -> str:
        """Return the key under which a file stores the weights, such as `ema`; "" for the usual ones."""
        return ""

    def fits(self, names: Mapping[str, Any]) -> bool:
        """Return True if tensors with these names have this format."""
        return all(name in names for name in self.required) and not any(
            name in names for name in self.excluded
        )

    def read(self, file: File, options: ImportOptions) -> Model:
        """Read the model in a file, and check that all its tensors are used."""
        for name in sorted(options.changed_options - set(self.options)):
            raise UserError(f"--{name.replace('_', '-')} does not apply to a {self.what}; leave it out")
        weights = Weights(file.tensors(self.part(file, options)), file.config)
        model = self.model(weights, options)
        if unused := weights.unused(self.ignored):
            more = f" and {len(unused) - SHOWN} more" if len(unused) > SHOWN else ""
            raise UserError(
                f"it looks like a {self.what}, but has unexpected tensors: {', '.join(unused[:SHOWN])}{more}"
            )
        return model


def load_module(build: Callable[[], Module], weights: Mapping[str, Weight]) -> Module:
    """Build a module and load weights, which must match its names and shapes.

    Buffers of training, such as counts, keep their initial values; codebooks count as initialized.
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
            f"missing tensors: {', '.join(missing[:SHOWN]) or 'none'}; "
            f"unexpected tensors: {', '.join(names) or 'none'}"
        )
    for name, shape in expected.items():
        if weights[name].shape != shape:
            raise UserError(
                f"{weights[name].name} has shape {weights[name].shape}; expected {shape} for {name}"
            )
    check_size(blank, sum(value.nbytes for value in blank.state_dict().values()))
    module = build()
    module.eval().requires_grad_(False)
    for name, value in module.state_dict().items():
        if name in weights:
            copy_weight(weights[name], value)
        elif name.endswith(".initialized"):
            value.fill_(True)
    return module


def copy_weight(weight: Weight, target: Tensor) -> None:
    """Copy a tensor in pieces, and free the memory of a mapped file; numbers must be finite."""
    if target.is_floating_point() and not weight.tensor.is_floating_point():
        kind = str(weight.tensor.dtype).removeprefix("torch.")
        raise UserError(f"{weight.name} has {kind} numbers; quantized weights are not supported")
    pieces = weight.tensor.reshape(-1).split(PIECE)
    for piece, place in zip(pieces, target.view(-1).split(PIECE), strict=True):
        if not place.copy_(piece).isfinite().all():
            raise UserError(
                f"{weight.name} has numbers that are not finite (NaN or infinity); the file is damaged"
            )
        drop_pages(piece)


def require_heads(heads: int) -> int:
    """Check that the number of attention heads is given, since tensors do not show it."""
    if not heads:
        raise MissingOption("the number of heads is not in the tensors; give it by --heads", "heads")
    return heads


def load_compressor(options: ImportOptions, what: str) -> Model:
    """Load the compressor of a prior from the file named by --compressor."""
    if not options.compressor:
        message = f"a {what} does not hold its tokenizer; give its file as --compressor"
        raise MissingOption(message, "compressor")
    from genstack.checkpoints.model_file import load  # avoids a cyclic import

    try:
        return load(Path(options.compressor).expanduser())
    except UserError as error:
        cause: BaseException | None = error
        while cause is not None and not isinstance(cause, MissingOption):
            cause = cause.__cause__
        if cause is not None and "compressor" in cause.names:
            raise UserError(
                f"{options.compressor} is a prior, not a compressor; give its tokenizer as --compressor"
            ) from error
        raise


def code_model(
    options: ImportOptions,
    what: str,
    prior: Callable[[CodeLayout], CodePrior],
    adapt: Callable[[Compressor], Compressor] = lambda compressor: compressor,
) -> Model:
    """Join the compressor of another file and a class-conditional prior.

    Args:
        options: options of the import.
        what: kind of the file.
        prior: builds the prior for a layout.
        adapt: converts the compressor, for example to symbols of fewer bits.
    """
    before = load_compressor(options, what)
    seen, compressor = before.preprocessing, adapt(before.compressor)
    height, width = options.size or (seen.height, seen.width)
    built = prior(compressor.code_layout(height, width))
    names = built.condition.names if isinstance(built.condition, ClassLabels) else ()
    return Model(compressor, replace(seen, height=height, width=width), names, built)


def check_codes(layout: CodeLayout, length: int, codebook_size: int) -> None:
    """Check that a prior of `length` codes of `codebook_size` fits a layout."""
    if (layout.length, layout.codebook_size) != (length, codebook_size):
        raise UserError(
            f"it reads {length} codes of {codebook_size}, but the compressor has {layout.length} of "
            f"{layout.codebook_size}; give its tokenizer as --compressor, and the image size as --resolution"
        )


def preprocessing(
    made: Compressor, options: ImportOptions, default: tuple[int, int] = DEFAULT_SIZE
) -> Preprocessing:
    """Preprocessing at the given size, or the default one."""
    height, width = options.size or default
    made.sizes((height, width))
    return Preprocessing(made.channels, height, width)


def class_names(count: int) -> tuple[str, ...]:
    """Number the classes of a file that has no names for them."""
    return tuple(str(label) for label in range(count))
