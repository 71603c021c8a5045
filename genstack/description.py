"""Conversion of models to plain data and back: the class and arguments of every part.

Every part keeps its constructor's arguments as attributes of the same names. Only classes in genstack's
folders and in plugins can be built; nothing is imported by name.
"""

import hashlib
import inspect
import json
from dataclasses import asdict
from functools import cache
from typing import Any

from torch import nn

import genstack.compressor
import genstack.conditions
import genstack.prior
import genstack.transformer
from genstack import plugins
from genstack.discovery import classes_in
from genstack.errors import UserError
from genstack.layout import CodeLayout, LatentLayout
from genstack.model import Model, tensor_entries

PLAIN = (bool, int, float, str, type(None))
LARGEST = 2**24  # integer in a description, so that no loop or tensor is too large
#: Integers that may be larger, by class and argument: codes of bits have no table of that size.
LARGER = {("CodeLayout", "codebook_size"): 2**62}


def describe(part: Any) -> Any:
    """Convert a part to plain data (JSON's types); `build` makes an equal part with new weights."""
    if isinstance(part, PLAIN):
        return part
    if isinstance(part, tuple | list):
        return [describe(item) for item in part]
    if part_classes().get(type(part).__name__) is not type(part):
        raise TypeError(f"{type(part).__name__} is not plain data or a part of genstack")
    arguments = inspect.signature(type(part)).parameters
    return {"class": type(part).__name__} | {name: describe(getattr(part, name)) for name in arguments}


def essence(part: Any) -> Any:
    """Describe a part without arguments that have their default values.

    The result does not change if a later version adds an argument whose default changes nothing.
    """
    if isinstance(part, tuple | list):
        return [essence(item) for item in part]
    if isinstance(part, PLAIN):
        return part
    kept = {"class": type(part).__name__}
    for name, argument in inspect.signature(type(part)).parameters.items():
        value = essence(getattr(part, name))
        if argument.default is argument.empty or value != essence(argument.default):
            kept[name] = value
    return kept


def build(description: Any, largest: int = LARGEST) -> Any:
    """Inverse of `describe`; integers are at most `largest`."""
    if isinstance(description, int) and abs(description) > largest:
        raise UserError(f"invalid number {description} in a description; the limit is {largest}")
    if isinstance(description, PLAIN):
        return description
    if isinstance(description, list):
        return tuple(build(item) for item in description)
    if not isinstance(description, dict) or not isinstance(description.get("class"), str):
        raise UserError(f"expected the class and arguments of a part, got {str(description)[:80]!r}")
    name = description["class"]
    part = part_classes().get(name)
    if part is None:
        raise UserError(f"unknown part {name!r} in this version of genstack")
    arguments = {
        key: build(value, LARGER.get((name, key), LARGEST))
        for key, value in description.items()
        if key != "class"
    }
    unknown = set(arguments) - set(inspect.signature(part).parameters)
    if unknown:
        raise UserError(f"{name} takes no argument {', '.join(sorted(unknown))} in this version of genstack")
    try:
        return part(**arguments)
    except TypeError as error:
        reason = " ".join(str(error).split())[:200]
        raise UserError(f"{name} cannot be built from its description: {reason}") from error


def part_classes() -> dict[str, type]:
    """Classes that a description may name."""
    return _part_classes(plugins.active())


@cache
def _part_classes(active: tuple[plugins.Plugin, ...]) -> dict[str, type]:
    packages = (genstack.compressor, genstack.transformer, genstack.conditions, genstack.prior)
    parts = {name: part for package in packages for name, part in classes_in(package, object).items()}
    own = {"CodeLayout": CodeLayout, "LatentLayout": LatentLayout} | {
        name: part for name, part in parts.items() if is_part(part)
    }
    added = [part for part in plugins.classes() if is_part(part)] if active else []
    plugins.check_unique((part.__name__, part.__module__) for part in [*own.values(), *added])
    return own | {part.__name__: part for part in added}


def is_part(part: type) -> bool:
    """Return True for modules and for dataclasses."""
    return issubclass(part, nn.Module) or hasattr(part, "__dataclass_fields__")


def identity(model: Model) -> str:
    """Hash weights and structure of the compressor and its preprocessing, to which codes belong."""
    preprocessing = asdict(model.preprocessing)
    del preprocessing["height"], preprocessing["width"]  # a compressor reads images of many sizes
    digest = hashlib.sha256(json.dumps([essence(model.compressor), preprocessing], sort_keys=True).encode())
    for entry in tensor_entries(model.compressor):
        digest.update(entry)
    return digest.hexdigest()
