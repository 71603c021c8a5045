"""What may be set, read from the signatures and docstrings of classes and functions."""

import inspect
import types
import typing
from collections.abc import Callable, Mapping
from dataclasses import dataclass, is_dataclass
from enum import Enum
from pathlib import Path
from typing import Any

import docstring_parser

MISSING: Any = object()  # no default; None is one
NOTHING = inspect.Parameter.empty
OURS = "genstack"
LIGHTNING = ("pytorch_lightning", "lightning_fabric")
WORDS = {
    int: "a whole number",
    float: "a number",
    str: "text",
    bool: "true or false",
    type(None): "null",
    Path: "a path",
}
MANY = {int: "whole numbers", float: "numbers"}


@dataclass(frozen=True)
class Setting:
    """One argument, as a user may set it.

    Args:
        hint: its type.
        default: its value when nobody sets it; MISSING if somebody must.
        inside: the settings of a group, which has no value of its own.
        help: what it means.
        otherwise: where what nobody sets in a group comes from, if not from defaults.
    """

    hint: Any = None
    default: Any = MISSING
    inside: "dict[str, Setting] | None" = None
    help: str = ""
    otherwise: str = ""


def settings_of(kind: Callable, given: int = 0) -> dict[str, Setting]:
    """The arguments of a class or function, without the first few, which are given by the program."""
    documented = [inspect.getdoc(kind)] + ([inspect.getdoc(kind.__init__)] if inspect.isclass(kind) else [])
    helps = {
        argument.arg_name: " ".join((argument.description or "").split())
        for text in documented
        for argument in docstring_parser.parse(text or "").params
    }
    arguments = list(inspect.signature(kind, eval_str=True).parameters.values())[given:]
    return {
        argument.name: Setting(
            Any if argument.annotation is NOTHING else argument.annotation,
            MISSING if argument.default is NOTHING else argument.default,
            help=helps.get(argument.name, ""),
        )
        for argument in arguments
    }


def summary(kind: Callable) -> str:
    """The first line of a docstring."""
    return (inspect.getdoc(kind) or "").split("\n")[0]


def members(hint: Any) -> tuple:
    """The alternatives of a type."""
    return typing.get_args(hint) if typing.get_origin(hint) in (typing.Union, types.UnionType) else (hint,)


def parts(hint: Any, inside: bool = False) -> list[tuple[type, int, bool]]:
    """The classes a type asks for: base, number of arguments given by the program, whether in a container."""
    found = []
    for member in members(hint):
        origin, arguments = typing.get_origin(member), typing.get_args(member)
        if inspect.isclass(member) and origin is None and _is_part(member):
            found.append((member, 0, inside))
        elif origin is Callable and arguments and inspect.isclass(arguments[1]) and _is_part(arguments[1]):
            found.append((arguments[1], len(arguments[0]), inside))
        elif origin in (list, tuple, dict):
            found += [part for argument in arguments for part in parts(argument, inside=True)]
    return found


def _is_part(kind: type) -> bool:
    return kind.__module__.split(".")[0] in (OURS, *LIGHTNING) and not issubclass(kind, Enum)


def choices(base: type) -> dict[str, type]:
    """The concrete classes that may stand where `base` is asked for, by name."""
    roots = (OURS,) if base.__module__.split(".")[0] == OURS else (OURS, *LIGHTNING)
    kinds, found = [base], {}
    while kinds:
        kind = kinds.pop()
        kinds += kind.__subclasses__()
        hidden = kind.__name__.startswith("_") or "<locals>" in kind.__qualname__
        if not inspect.isabstract(kind) and not hidden and kind.__module__.split(".")[0] in roots:
            found[kind.__name__] = kind
    return dict(sorted(found.items()))


def class_path(kind: type) -> str:
    """A class by its full name, as files spell it."""
    return f"{kind.__module__}.{kind.__qualname__}"


def is_named(kind: type, name: str) -> bool:
    """Whether a name means this class: alone, or behind its module or a package around it."""
    package, _, last = name.rpartition(".")
    return last == kind.__name__ and f"{kind.__module__}.".startswith(f"{package}." if package else "")


def described(value: Any) -> dict:
    """What stands at a place, as class and arguments; empty if it is no class of ours."""
    if isinstance(value, Mapping):
        return dict(value) if "class_path" in value else {}
    if inspect.isclass(value):
        return {"class_path": class_path(value), "init_args": {}}
    if is_dataclass(value) and not inspect.isclass(value):
        arguments = {name: written(getattr(value, name)) for name in settings_of(type(value))}
        return {"class_path": class_path(type(value)), "init_args": arguments}
    return {}


def written(value: Any) -> Any:
    """A value as a file can hold it, classes too."""
    return described(value) or plain(value)


def plain(value: Any) -> Any:
    """A value as a file can hold it."""
    if isinstance(value, (list, tuple)):
        return [plain(entry) for entry in value]
    return str(value) if isinstance(value, Path) else value


def readable(hint: Any) -> str:
    """What a type asks for, in words."""
    words: list[str] = []
    for member in members(hint):
        arguments = typing.get_args(member)
        if typing.get_origin(member) is typing.Literal:
            words += map(str, arguments)
        elif typing.get_origin(member) in (tuple, list):
            words.append(_several(arguments))
        else:
            words.append(WORDS.get(member, "") or getattr(member, "__name__", str(member)))
    *rest, last = dict.fromkeys(words)
    return f"{', '.join(rest)} or {last}" if rest else last


def _several(kinds: tuple) -> str:
    """What a tuple or list asks for."""
    one, pair = kinds[0], len(kinds) == 2 and kinds[0] is kinds[1]
    if one in MANY and (pair or ... in kinds):
        return f"two {MANY[one]} as a,b" if pair else f"{MANY[one]} as a,b"
    return f"{' and '.join(readable(kind) for kind in kinds if kind is not ...)}, as in [a, b]"
