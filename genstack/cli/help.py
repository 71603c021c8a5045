"""The text of --help, from docstrings and defaults."""

import shutil
import textwrap
from dataclasses import replace

from genstack.cli import signatures
from genstack.cli.signatures import Setting

PARTS = """\
Settings are written --name value or --name=value, lists as a,b, and nothing as null. What is true or false
takes `true` or `false`; --name alone is true. A class is given by its name, and its own settings follow:
--model.part=Name --model.part.width 64. --model.part.help lists the classes that fit, and
--model.part.help=Name explains one."""
FILES = """\
--config FILE reads settings from a YAML file and may be given several times. Defaults yield to files, earlier
files to later ones, and files to the command line. --print_config prints all settings as they would be used,
and stops."""


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
    head = [" ".join(["usage:", command, *needed, *rest]), "", _filled(description, ""), ""]
    lines = [line for name, setting in known.items() for line in _lines(name, setting, prefix)]
    foot = ["", PARTS] * any(setting.inside is not None for setting in known.values()) + [
        "",
        FILES,
    ] * files
    return "\n".join(head + lines + foot)


def _lines(name: str, setting: Setting, prefix: str) -> list[str]:
    if setting.inside is not None:
        inner = [
            line for key, value in setting.inside.items() for line in _lines(key, value, f"{prefix}{name}.")
        ]
        return ["", f"{name}: {setting.help}", *inner]
    lines = [f"  --{prefix}{name}", _filled(f"{_sentence(setting.help)} {_value(setting)}".strip(), "      ")]
    kinds = signatures.parts(setting.hint)
    choice = [kind for base, _, inside in kinds if not inside for kind in signatures.choices(base).values()]
    described = signatures.described(setting.default)
    if len(choice) == 1 and choice[0] is kinds[0][0] and described:  # the only choice: a group of settings
        for key, value in signatures.settings_of(choice[0]).items():
            standing = replace(value, default=described["init_args"].get(key, value.default))
            lines += _lines(key, standing, f"{prefix}{name}.")
    return lines


def _value(setting: Setting) -> str:
    """What it takes, and its default."""
    kinds = [name for base, _, _ in signatures.parts(setting.hint) for name in signatures.choices(base)]
    takes = ", ".join(kinds) if kinds else signatures.readable(setting.hint)
    takes += " or null" * bool(kinds and type(None) in signatures.members(setting.hint))
    if setting.default is signatures.MISSING:
        return f"({takes}; needed)"
    described = signatures.described(setting.default).get("class_path", "").rpartition(".")[2]
    default = described or _shown(setting.default)
    return f"({takes}; default {default if default != '' else 'empty'})"


def _shown(default: object) -> object:
    if default is None or isinstance(default, bool):
        return "null" if default is None else str(default).lower()
    return signatures.plain(default)


def _sentence(text: str) -> str:
    return textwrap.shorten(text, 400, placeholder=" ...")


def _filled(text: str, indent: str) -> str:
    width = min(shutil.get_terminal_size().columns, 110)
    return textwrap.fill(" ".join(text.split()), width, initial_indent=indent, subsequent_indent=indent)
