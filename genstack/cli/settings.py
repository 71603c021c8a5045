"""What a user may set, read from the signatures of classes, and the laying of one source of settings over another.

A class is written `{"class_path": ..., "init_args": {...}}` (jsonargparse's form) or by its name alone. A mapping
without `class_path` changes arguments of the class that stands there already. A class named anew starts from its own
defaults. Names are looked up among the classes of genstack that are loaded (and Lightning's own where an argument of
Lightning takes them); nothing is ever imported because a file names it.
"""

import inspect
import types
import typing
from collections.abc import Callable, Mapping
from dataclasses import dataclass, is_dataclass
from enum import Enum
from pathlib import Path
from typing import Any

import jsonargparse
import yaml

from genstack.cli.words import nearest

MISSING = inspect.Parameter.empty
OURS = "genstack"
LIGHTNING = ("pytorch_lightning", "lightning_fabric")


@dataclass(frozen=True)
class Setting:
    """One argument, as a user may set it.

    Args:
        hint: its type.
        default: its value when nobody sets it; MISSING if somebody must.
        inside: the settings of a group, which has no value of its own.
    """

    hint: Any = None
    default: Any = MISSING
    inside: "dict[str, Setting] | None" = None


def settings_of(kind: Callable, given: int = 0) -> dict[str, Setting]:
    """The arguments of a class or function, without the first few, which are given by the program."""
    arguments = list(inspect.signature(kind, eval_str=True).parameters.values())[given:]
    return {argument.name: Setting(argument.annotation, argument.default) for argument in arguments}


def lay(settings: dict[str, Setting], old: dict, new: Mapping, place: str, owner: str) -> dict:
    """New settings over old ones.

    Args:
        settings: what may be set.
        old: what was set before, already in its final form.
        new: what is set now.
        place: where we are, as it is shown to the user: "--" or "" at the root, "model.compressor." further in.
        owner: the class or command whose settings these are.

    Raises:
        ValueError: an unknown name, class or value.
    """
    laid = dict(old)
    for name, value in new.items():
        if name not in settings:
            known = [place + other for other in settings]
            raise ValueError(nearest(f"{place}{name}", known, f"setting of {owner}"))
        setting, here = settings[name], f"{place}{name}"
        if setting.inside is not None:
            if not isinstance(value, Mapping):
                raise ValueError(f"{here} is a group of settings; set {', '.join(_prefixed(setting, here))}")
            laid[name] = lay(setting.inside, laid.get(name, {}), value, f"{here}.", name)
        else:
            laid[name] = lay_value(setting.hint, laid.get(name, setting.default), value, here)
    return laid


def _prefixed(setting: Setting, here: str) -> list[str]:
    return [f"{here}.{name}" for name in list(setting.inside or {})[:5]]


def lay_value(hint: Any, old: Any, new: Any, place: str) -> Any:
    """A new value over the old one: a class, several classes, or something plain."""
    kinds = parts(hint)
    if kinds and isinstance(new, str) and new[:1] in ("{", "["):
        new = yaml.safe_load(new)
    if kinds and type(None) in members(hint) and new in (None, "null"):
        return None
    if any(not inner for _, _, inner in kinds):
        text = isinstance(new, str) and str in members(hint)
        if isinstance(new, (str, Mapping)) and not text:
            return lay_part([(base, given) for base, given, inner in kinds if not inner], old, new, place)
    inner = [(base, given) for base, given, inside in kinds if inside]
    if inner and isinstance(new, Mapping):
        before = old if isinstance(old, Mapping) else {}
        return {**before, **{n: lay_part(inner, before.get(n), v, f"{place}.{n}") for n, v in new.items()}}
    if inner and isinstance(new, list):
        return [lay_part(inner, None, value, f"{place}.{index}") for index, value in enumerate(new)]
    return plain_value(hint, new, place)


def lay_part(kinds: list[tuple[type, int]], old: Any, new: Any, place: str) -> dict:
    """A class by name, or with arguments, or arguments for the class that stands there."""
    choice = {name: (kind, given) for base, given in kinds for name, kind in choices(base).items()}
    before = described(old)
    if isinstance(new, str):
        new = {"class_path": new}
    if not isinstance(new, Mapping):
        raise ValueError(f"{place}: {new!r} names no class; choose one of {', '.join(choice)}")
    wrapped = "class_path" in new or set(new) == {"init_args"}
    named = new.get("class_path") or before.get("class_path") or (next(iter(choice)) if len(choice) == 1 else None)
    if named is None:
        raise ValueError(f"{place}: a class comes before its settings; {place}=NAME, one of {', '.join(choice)}")
    name = next((n for n, (kind, _) in choice.items() if named in (n, class_path(kind))), None)
    if name is None:
        raise ValueError(f"{place}: {nearest(str(named), choice, ' or '.join(base.__name__ for base, _ in kinds))}")
    if wrapped and (extra := sorted(set(new) - {"class_path", "init_args"})):
        raise ValueError(f"{place}.{extra[0]} stands beside class_path; put it under {place}.init_args")
    kind, given = choice[name]
    arguments = (new.get("init_args") or {}) if wrapped else new
    if given and (taken := set(arguments) & set(list(settings_of(kind))[:given])):
        raise ValueError(f"{place}.{taken.pop()} is set by genstack itself, from the data; leave it out")
    same = before.get("class_path") == class_path(kind)
    kept = before["init_args"] if same else {}
    laid = lay(settings_of(kind, given), kept, arguments, f"{place}.", name)
    return {"class_path": class_path(kind), "init_args": laid}


def described(value: Any) -> dict:
    """What stands at a place, as class and arguments; empty if it is no class of ours."""
    if isinstance(value, Mapping):
        return dict(value) if "class_path" in value else {}
    if inspect.isclass(value) and value is not MISSING:
        return {"class_path": class_path(value), "init_args": {}}
    if is_dataclass(value) and not inspect.isclass(value):
        arguments = {name: _written(getattr(value, name)) for name in settings_of(type(value))}
        return {"class_path": class_path(type(value)), "init_args": arguments}
    return {}


def _written(value: Any) -> Any:
    return described(value) or plain(value)


def check_complete(settings: dict[str, Setting], laid: Mapping, place: str, given_here: bool = True) -> None:
    """Nothing that must be set is missing, at any depth.

    Raises:
        ValueError: the first setting that is missing, and what could stand there.
    """
    for name, setting in settings.items():
        here = f"{place}{name}"
        if setting.inside is not None:
            check_complete(setting.inside, laid.get(name, {}), f"{here}.")
        elif name in laid:
            _check_value_complete(setting.hint, laid[name], here)
        elif setting.default is MISSING:
            names = [n for base, _, _ in parts(setting.hint) for n in choices(base)]
            raise ValueError(f"{here} is missing; {'choose ' + ', '.join(names) if names else readable(setting.hint)}")


def _check_value_complete(hint: Any, value: Any, place: str) -> None:
    if isinstance(value, list):
        for index, entry in enumerate(value):
            _check_value_complete(hint, entry, f"{place}.{index}")
    elif isinstance(value, Mapping) and "class_path" in value:
        for base, given, _ in parts(hint):
            for kind in choices(base).values():
                if class_path(kind) == value["class_path"]:
                    check_complete(settings_of(kind, given), value["init_args"], f"{place}.")
                    return
    elif isinstance(value, Mapping) and parts(hint):
        for name, entry in value.items():
            _check_value_complete(hint, entry, f"{place}.{name}")


def members(hint: Any) -> tuple:
    """The alternatives of a type."""
    return typing.get_args(hint) if typing.get_origin(hint) in (typing.Union, types.UnionType) else (hint,)


def parts(hint: Any, inside: bool = False) -> list[tuple[type, int, bool]]:
    """The classes that a type asks for: base class, number of arguments given by the program, whether in a container."""
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


def plain_value(hint: Any, value: Any, place: str) -> Any:
    """A value of a plain type, from a file or as text; `48,64` is short for `[48, 64]`."""
    allowed = tuple(member for member in members(hint) if not parts(member) and not _is_code(member))
    if not allowed or _holds_class(value):
        raise ValueError(f"{place} cannot be set from a file or the command line; leave it out")
    if value is None and type(None) not in allowed and hint is not Any and hint is not MISSING:
        raise ValueError(f"{place} has no value; {readable(hint)}")
    attempts = [value]
    if isinstance(value, str) and "," in value:
        attempts.append(f"[{value}]")
    for attempt in attempts:
        parser = jsonargparse.ArgumentParser(exit_on_error=False)
        parser.add_argument("--value", type=Any if MISSING in allowed else typing.Union[allowed])  # noqa: UP007
        try:
            if isinstance(attempt, str):
                return plain(parser.parse_args([f"--value={attempt}"]).value)
            return plain(parser.parse_object({"value": attempt}).value)
        except (jsonargparse.ArgumentError, ValueError):
            continue
    raise ValueError(f"{place}: {_shown(value)} does not fit; {readable(hint)}")


def _is_code(hint: Any) -> bool:
    return typing.get_origin(hint) in (Callable, type) or hint in (Callable, type)


def _holds_class(value: Any) -> bool:
    if isinstance(value, Mapping):
        return "class_path" in value or any(map(_holds_class, value.values()))
    return isinstance(value, list) and any(map(_holds_class, value))


def plain(value: Any) -> Any:
    """A value as a file can hold it."""
    if isinstance(value, (list, tuple)):
        return [plain(entry) for entry in value]
    return str(value) if isinstance(value, Path) else value


def _shown(value: Any) -> str:
    return f'"{value}"' if isinstance(value, str) else str(value)


WORDS = {
    int: "a whole number",
    float: "a number",
    str: "text",
    bool: "true or false",
    type(None): "null",
    Path: "a path",
}


def readable(hint: Any) -> str:
    """What a type asks for, in words."""
    words = []
    for member in members(hint):
        arguments = typing.get_args(member)
        if typing.get_origin(member) is typing.Literal:
            words += map(str, arguments)
        elif typing.get_origin(member) in (tuple, list) and ... in arguments:
            words.append(f"several ({readable(arguments[0])}), as in [a, b]")
        elif typing.get_origin(member) in (tuple, list):
            words.append(f"{' and '.join(map(readable, arguments))}, as in [a, b]")
        else:
            words.append(WORDS.get(member) or getattr(member, "__name__", str(member)))
    return "it takes " + " or ".join(word.removeprefix("it takes ") for word in dict.fromkeys(words))
