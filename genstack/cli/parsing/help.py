"""The text of --help, from docstrings and defaults."""

import shutil
import textwrap
from dataclasses import replace

from genstack.cli.parsing import signatures
from genstack.cli.parsing.signatures import Setting

PARTS = """\
Settings are written --name value or --name=value; several values as a,b; nothing as null. What is true or
false takes `true` or `false`, and --name alone is true. Where a class is asked for, give its name; its own
settings follow: --{place} {choice} --{place}.SETTING VALUE. To see what fits there, and what it takes:
--{place}.help and --{place}.help={choice}."""
FILES = """\
--config FILE reads settings from a YAML file and may be given several times; `genstack config list` shows the
recipes. Defaults yield to files, earlier files to later ones, and files to the command line. --print_config
prints all settings as they would be used, and stops."""


def explain(
    command: str,
    description: str,
    known: dict[str, Setting],
    positional: list[str],
    files: bool,
    prefix: str = "",
) -> str:
    """The help of a command, or of one class (with the place where it stands as prefix)."""
    needed = [name.upper() for name in positional if known[name].default is signatures.MISSING]
    rest = ["[--config FILE ...]"] * files + ["[--SETTING VALUE ...]"] * (len(known) > len(needed))
    head = [" ".join(["usage:", command, *needed, *rest]), "", _filled(description), ""]
    lines = [
        line
        for name, setting in known.items()
        for line in _lines(name, setting, prefix, name.upper() in needed)
    ]
    foot = []
    if places := _places(known, prefix):
        place, setting = min(places, key=lambda found: found[1].default is not signatures.MISSING)
        foot = ["", _filled(PARTS.format(place=place, choice=_kinds(setting)[0]))]
    return "\n".join(head + lines + foot + ["", _filled(FILES)] * files)


def _places(known: dict[str, Setting], prefix: str) -> list[tuple[str, Setting]]:
    """The places that take a class."""
    inner = [_places(setting.inside, f"{prefix}{name}.") for name, setting in known.items() if setting.inside]
    own = [(f"{prefix}{name}", setting) for name, setting in known.items() if _kinds(setting)]
    return own + [place for places in inner for place in places]


def _kinds(setting: Setting) -> list[str]:
    return [name for base, _, _ in signatures.parts(setting.hint) for name in signatures.choices(base)]


def _lines(name: str, setting: Setting, prefix: str, place: bool = False) -> list[str]:
    if setting.inside is not None:
        inside = {key: replace(one, otherwise=setting.otherwise) for key, one in setting.inside.items()}
        inner = [line for key, value in inside.items() for line in _lines(key, value, f"{prefix}{name}.")]
        rest = f" What is left out is as in {setting.otherwise}." if setting.otherwise else ""
        return ["", _filled(f"{name}: {setting.help}{rest}"), *inner]
    flag = f"  {name.upper()} or --{name}" if place else f"  --{prefix}{name}"
    kinds = signatures.parts(setting.hint)
    choice = [kind for base, _, inside in kinds if not inside for kind in signatures.choices(base).values()]
    described = signatures.described(setting.default)
    if len(choice) != 1 or choice[0] is not kinds[0][0] or not described:
        return [flag, _filled(f"{_sentence(setting.help)} {_value(setting)}".strip(), "      ")]
    lines = [
        flag,
        _filled(f"{_sentence(setting.help)} ({choice[0].__name__}; its settings follow)", "      "),
    ]
    for key, value in signatures.settings_of(choice[0]).items():
        standing = replace(value, default=described["init_args"].get(key, value.default))
        lines += _lines(key, replace(standing, otherwise=setting.otherwise), f"{prefix}{name}.")
    return lines


def _value(setting: Setting) -> str:
    """What it takes, and its default."""
    kinds = _kinds(setting)
    takes = ", ".join(kinds) if kinds else signatures.readable(setting.hint)
    takes += " or null" * bool(kinds and type(None) in signatures.members(setting.hint))
    if setting.otherwise:
        return f"({takes})"
    if setting.default is signatures.MISSING:
        return f"({takes}; needed)"
    described = signatures.described(setting.default).get("class_path", "").rpartition(".")[2]
    default = described or _shown(setting.default)
    return f"({takes}; default {default if default != '' else 'empty'})"


def _shown(default: object) -> object:
    if default is None or isinstance(default, bool):
        return "null" if default is None else str(default).lower()
    value = signatures.plain(default)
    return ",".join(map(str, value)) if isinstance(value, list) else value


def _sentence(text: str) -> str:
    return textwrap.shorten(text, 400, placeholder=" ...")


def _filled(text: str, indent: str = "") -> str:
    width = min(shutil.get_terminal_size().columns, 110)
    return textwrap.fill(" ".join(text.split()), width, initial_indent=indent, subsequent_indent=indent)
