"""One source of settings laid over another: defaults, then files, then the command line.

A class is written `{"class_path": ..., "init_args": {...}}` (jsonargparse's form) or by its name. A mapping
without `class_path` changes arguments of the class that stands there already. A class named anew starts from
its own defaults. Names are looked up among the classes of genstack that are loaded (and Lightning's own where
an argument of Lightning takes them); nothing is ever imported because a file names it.
"""

import typing
from collections.abc import Callable, Mapping
from typing import Any

import jsonargparse
import yaml

from genstack.cli.parsing.recipes import Loader
from genstack.cli.parsing.signatures import (
    MISSING,
    Setting,
    choices,
    class_path,
    described,
    is_named,
    members,
    parts,
    plain,
    readable,
    settings_of,
    written,
)
from genstack.cli.parsing.words import meant
from genstack.errors import UserError


class UnchosenError(UserError):
    """A part that must be chosen is not."""


def lay(settings: dict[str, Setting], old: dict, new: Mapping, place: str, owner: str) -> dict:
    """New settings over old ones.

    Args:
        settings: what may be set.
        old: what was set before, already in its final form.
        new: what is set now.
        place: as the user sees it: "--" or "file: " at the root, "--model.compressor." further in.
        owner: the class whose settings these are; empty at the root and for groups.

    Raises:
        UserError: an unknown name, class or value.
    """
    laid = dict(old)
    for name, value in new.items():
        if name not in settings:
            whose = f" to {owner}" if owner else ""
            raise UserError(meant(f"{place}{name} is unknown{whose}", str(name), _names(settings), place))
        setting, here = settings[name], f"{place}{name}"
        if setting.inside is not None:
            if not isinstance(value, Mapping):
                raise UserError(f"{here} is a group of settings; set {', '.join(_prefixed(setting, here))}")
            laid[name] = lay(setting.inside, laid.get(name, {}), value, f"{here}.", "")
        else:
            laid[name] = lay_value(setting.hint, laid.get(name, setting.default), value, here)
    return laid


def _names(settings: dict[str, Setting]) -> list[str]:
    """The names of settings, and those one level down, for who forgot the group."""
    return [*settings, *(f"{name}.{inner}" for name, one in settings.items() for inner in one.inside or {})]


def _prefixed(setting: Setting, here: str) -> list[str]:
    return [f"{here.rpartition(': ')[2]}.{name}" for name in list(setting.inside or {})[:5]]


def lay_value(hint: Any, old: Any, new: Any, place: str) -> Any:
    """A new value over the old one: a class, several classes, or something plain."""
    kinds = parts(hint)
    if kinds and isinstance(new, str) and new[:1] in ("{", "["):
        new = inline(new, place)
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


def inline(text: str, place: str) -> Any:
    """What a text says that is written as YAML in a line."""
    try:
        return yaml.load(text, Loader)
    except yaml.YAMLError:
        raise UserError(f"{place}: {text} is no YAML; brackets and quotation marks come in pairs") from None


def lay_part(kinds: list[tuple[type, int]], old: Any, new: Any, place: str) -> dict:
    """A class by name, or with arguments, or arguments for the class that stands there."""
    choice = {name: (kind, given) for base, given in kinds for name, kind in choices(base).items()}
    before = described(old)
    if isinstance(new, str):
        new = {"class_path": new}
    if not isinstance(new, Mapping):
        raise UserError(f"{place}: {new!r} names no class; choose one of {', '.join(choice)}")
    wrapped = "class_path" in new or set(new) == {"init_args"}
    named = (
        new.get("class_path")
        or before.get("class_path")
        or (next(iter(choice)) if len(choice) == 1 else None)
    )
    if named is None:
        raise UserError(
            f"{place}: a class comes before its settings; {place}=NAME, one of {', '.join(choice)}"
        )
    name = next((n for n, (kind, _) in choice.items() if is_named(kind, str(named))), None)
    if name is None:
        bases = " or ".join(base.__name__ for base, _ in kinds)
        raise UserError(meant(f"{place}: {named} is no {bases}", str(named), choice))
    if wrapped and (extra := sorted(set(new) - {"class_path", "init_args"})):
        raise UserError(f"{place}.{extra[0]} stands beside class_path; put it under {place}.init_args")
    kind, given = choice[name]
    arguments = (new.get("init_args") or {}) if wrapped else new
    if not isinstance(arguments, Mapping):
        raise UserError(f"{place}.init_args is a group of settings of {name}, and {arguments!r} is none")
    if given and (taken := set(arguments) & set(list(settings_of(kind))[:given])):
        raise UserError(f"{place}.{taken.pop()} is set by genstack itself, from the data; leave it out")
    kept = before["init_args"] if is_named(kind, before.get("class_path", "")) else {}
    laid = lay(settings_of(kind, given), kept, arguments, f"{place}.", name)
    return {"class_path": class_path(kind), "init_args": laid}


def complete(
    settings: dict[str, Setting], laid: Mapping, place: str, missing: list[str] | None = None
) -> dict:
    """Settings with the defaults of every class filled in.

    Args:
        settings: what may be set.
        laid: what was set.
        place: as in `lay`.
        missing: takes the names of what must still be set; without it, that is an error.

    Raises:
        UserError: something that must be set is not; says what could stand there.
    """
    filled = {}
    for name, setting in settings.items():
        here = f"{place}{name}"
        if setting.inside is not None:
            filled[name] = complete(setting.inside, laid.get(name, {}), f"{here}.", missing)
        elif name in laid:
            filled[name] = _complete_value(setting.hint, laid[name], here, missing)
        elif setting.default is MISSING and missing is not None:
            missing.append(here)
        elif setting.default is MISSING:
            names = ", ".join(name for base, _, _ in parts(setting.hint) for name in choices(base))
            if names:
                raise UnchosenError(f"{here} is missing; choose {names}")
            takes = setting.help.rstrip(".") or f"it takes {readable(setting.hint)}"
            raise UserError(f"{here} is missing; {takes}")
        else:
            filled[name] = _complete_value(setting.hint, written(setting.default), here, missing)
    return filled


def _complete_value(hint: Any, value: Any, place: str, missing: list[str] | None) -> Any:
    if isinstance(value, list):
        return [
            _complete_value(hint, entry, f"{place}.{index}", missing) for index, entry in enumerate(value)
        ]
    if isinstance(value, Mapping) and "class_path" in value:
        kinds = [(kind, given) for base, given, _ in parts(hint) for kind in choices(base).values()]
        kind, given = next(found for found in kinds if is_named(found[0], value["class_path"]))
        arguments = complete(settings_of(kind, given), value["init_args"], f"{place}.", missing)
        return {"class_path": value["class_path"], "init_args": arguments}
    if isinstance(value, Mapping) and parts(hint):
        return {
            name: _complete_value(hint, entry, f"{place}.{name}", missing) for name, entry in value.items()
        }
    return value


def at(settings: dict[str, Setting], place: str) -> dict[str, tuple[type, int]]:
    """The classes that may stand at a place such as `model.compressor`, or inside what may stand there.

    Beside each is the number of its arguments that the program gives.

    Raises:
        UserError: there is no such place, or no class stands there.
    """
    name, _, rest = place.partition(".")
    if name not in settings:
        raise UserError(meant(f"--{place} is unknown", name, settings))
    inside = settings[name].inside
    if inside is not None and rest:
        return at(inside, rest)
    hint = settings[name].hint
    kinds = {name: (kind, given) for base, given, _ in parts(hint) for name, kind in choices(base).items()}
    if not rest:
        if not kinds:
            raise UserError(f"--{place} takes no class; see --help")
        return kinds
    inner = [settings_of(kind, given) for kind, given in kinds.values()]
    return at(next((one for one in inner if rest.partition(".")[0] in one), {}), rest)


def find(value: Any, kind: type, place: str = "") -> str | None:
    """The first place at which a class stands."""
    if isinstance(value, Mapping):
        if is_named(kind, str(value.get("class_path", ""))):
            return place
        inside = value.get("init_args", {}) if "class_path" in value else value
        pairs = [(f"{place}.{name}".lstrip("."), entry) for name, entry in inside.items()]
    else:
        pairs = [(f"{place}.{i}", entry) for i, entry in enumerate(value)] if isinstance(value, list) else []
    return next((found for name, entry in pairs if (found := find(entry, kind, name)) is not None), None)


def plain_value(hint: Any, value: Any, place: str) -> Any:
    """A value of a plain type, from a file or as text; `48,64` is short for `[48, 64]`, `4` for `[4]`."""
    allowed = tuple(member for member in members(hint) if not parts(member) and not _is_code(member))
    if not allowed or _holds_class(value):
        raise UserError(f"{place} cannot be set from a file or the command line; leave it out")
    if value is None and bool in allowed:
        return True
    if value is None and type(None) not in allowed and hint is not Any:
        raise UserError(f"{place} has no value; it takes {readable(hint)}")
    attempts = [value]
    if isinstance(value, str):
        attempts.append(f"[{value}]")
    for attempt in attempts:
        parser = jsonargparse.ArgumentParser(exit_on_error=False)
        parser.add_argument("--value", type=typing.Union[allowed])  # noqa: UP007
        try:
            if isinstance(attempt, str):
                return plain(parser.parse_args([f"--value={attempt}"]).value)
            return plain(parser.parse_object({"value": attempt}).value)
        except (jsonargparse.ArgumentError, ValueError):
            continue
    raise UserError(f"{place}: {_shown(value)} does not fit; it takes {readable(hint)}")


def _is_code(hint: Any) -> bool:
    return typing.get_origin(hint) in (Callable, type) or hint in (Callable, type)


def _holds_class(value: Any) -> bool:
    if isinstance(value, Mapping):
        return "class_path" in value or any(map(_holds_class, value.values()))
    return isinstance(value, list) and any(map(_holds_class, value))


def _shown(value: Any) -> str:
    return f'"{value}"' if isinstance(value, str) else str(value)
