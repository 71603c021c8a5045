"""Laws of published formats; most need a file in the format: `laws(TheirVQ, file="theirs.pt")`."""

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any
from unittest import SkipTest

import torch
from torch import Tensor

from genstack.checkpoints.foreign import File, read
from genstack.checkpoints.formats.format import Format, Weights
from genstack.checkpoints.import_options import ImportOptions
from genstack.checkpoints.published import formats, recognise
from genstack.errors import UserError
from genstack.model import Model
from genstack.testing.expect import one_line_or_works, refusal


@dataclass
class Published:
    """A format and an example file.

    Args:
        kind: the format.
        path: the file; None without one.
        options: options for importing the file.
    """

    kind: Format
    path: Path | None
    options: ImportOptions

    @cached_property
    def file(self) -> File:
        """Open the file; laws that need one are skipped without it."""
        if self.path is None:
            raise SkipTest("give a file of this format: --example FILE, or laws(..., file=FILE)")
        found = read(self.path)
        fits = self.kind.fits(dict.fromkeys(found.names()))
        return found if fits else replace(found, prefix=recognise(found.names())[1])

    @cached_property
    def entry(self) -> str:
        """Key under which the file stores the weights."""
        return self.kind.part(self.file, self.options)

    @cached_property
    def tensors(self) -> dict[str, Tensor]:
        """Tensors of the file."""
        return self.file.tensors(self.entry)

    def read(self, changes: Mapping[str, Tensor | None]) -> Model:
        """Import the file with some tensors replaced, or removed (None)."""
        tensors = {**self.tensors, **changes}
        kept = {name: tensor for name, tensor in tensors.items() if tensor is not None}
        data = {self.entry: kept} if self.entry else kept
        changed = replace(self.file, data=data, verify=lambda _: None, shards={}, prefix="")
        return self.kind.read(changed, self.options)

    def matrices(self) -> tuple[tuple[str, Tensor], tuple[str, Tensor]]:
        """Return name and value of the first and the last matrix that the model uses."""
        known = Weights(self.tensors, {}).unused(self.kind.ignored)
        found = [(name, self.tensors[name]) for name in known]
        chosen = [each for each in found if each[1].ndim > 1 and each[1].is_floating_point()]
        return chosen[0], chosen[-1]


def make(part: type[Format], file: str | Path = "", **options: Any) -> Published:
    """Join a format, a file and its options."""
    return Published(part(), Path(file) if file else None, ImportOptions(**options))


def format_is_described(published: Published) -> None:
    """The format has a line for `genstack import --list`, a docstring, and known options."""
    kind = published.kind
    assert kind.what and "\n" not in kind.what and kind.required and type(kind).__doc__
    assert {*kind.options} <= {field.name for field in fields(ImportOptions)}


def its_own_names_fit(published: Published) -> None:
    """Required names are recognized; no names, or excluded ones, are not."""
    kind = published.kind
    assert kind.fits(dict.fromkeys(kind.required))
    assert not kind.fits({})
    for name in kind.excluded:
        assert not kind.fits(dict.fromkeys((*kind.required, name)))


def a_file_has_this_format_alone(published: Published) -> None:
    """No other format fits the names of the file's tensors."""
    names = {name.removeprefix(published.file.prefix) for name in published.file.names()}
    known = {*formats().values(), type(published.kind)}
    fitting = [kind.what for kind in known if kind().fits(dict.fromkeys(names))]
    assert fitting == [published.kind.what], f"formats that fit: {', '.join(fitting)}"


def model_reconstructs_images(published: Published) -> None:
    """The model reconstructs images of the same shape, with finite values and frozen weights."""
    model = published.kind.read(published.file, published.options)
    images = torch.rand(1, *model.preprocessing.shape) * 2 - 1
    made = model.reconstruct(images)
    assert made.shape == images.shape and made.isfinite().all()
    parameters = [*model.modules().parameters()]
    assert not any(parameter.requires_grad or parameter.is_meta for parameter in parameters)


def missing_tensors_are_refused(published: Published) -> None:
    """A missing tensor raises a UserError of one line."""
    for name, _ in published.matrices():
        with refusal("."):
            published.read({name: None})


def unexpected_tensors_are_refused(published: Published) -> None:
    """An unknown tensor raises a UserError that names it."""
    with refusal("an.unknown.key"):
        published.read({"an.unknown.key": torch.zeros(2)})


def other_shapes_end_in_one_line(published: Published) -> None:
    """A tensor with an additional row either gives another model or raises a UserError of one line."""
    for name, tensor in published.matrices():
        longer = torch.cat([tensor, tensor[:1]])
        one_line_or_works(partial(published.read, {name: longer}))


def numbers_that_are_not_finite_are_refused(published: Published) -> None:
    """A NaN raises a UserError, unless the model ignores that tensor, as raw weights beside EMA weights."""
    for name, tensor in published.matrices():
        damaged = tensor.clone()
        damaged.view(-1)[-1] = float("nan")
        try:
            model = published.read({name: damaged})
        except UserError as error:
            assert "not finite" in str(error)
        else:
            assert model.fingerprint == published.read({}).fingerprint
