"""Text of --help, from docstrings and defaults in the source."""

import shutil
import textwrap
from dataclasses import replace

from genstack.cli.commands import Command
from genstack.cli.parsing.source import Argument, choices, find, overrides, value, words
from genstack.cli.parsing.words import unknown
from genstack.errors import UserError

PARTS = """\
Write --NAME VALUE or --NAME=VALUE. Lists are a,b; null means none; a true|false option without a value means
true. For an option that takes a class, give the class, then its settings:
--{place} {choice} --{place}.SETTING VALUE.
--{place}.help lists the classes, and --{place}.help={choice} the settings of one."""
FILES = """\
Files override defaults, later files override earlier ones, and flags override files.
--print-config prints the resulting settings and exits."""
WIDTH = 110
CONFIG = Argument(
    "config",
    "Place",
    "None",
    "recipe (`genstack config list`) or YAML file of settings; can be repeated.",
    __name__,
)
PLUGIN = Argument("plugin", "Place", "None", "Python file with your own classes; can be repeated.", __name__)


def command_help(command: Command) -> str:
    """Format the help of a command."""
    flags, places = command.arguments(), command.positional()
    needed = [name for name in places if flags[name].default is None]
    usage = ["usage:", command.name, *(name.upper() for name in needed)]
    usage += ["[--config RECIPE|FILE ...]"] * command.files + ["[--OPTION VALUE ...]"]
    lines = [" ".join(usage), "", fill(command.description), ""]
    for name, flag in flags.items():
        lines += option(name, flag, place=name in needed)
    lines += option("config", CONFIG) if command.files else []
    lines += option("plugin", PLUGIN)
    for name, group in command.groups.items():
        inherited = f" Unset options default to {group.inherited_from}." if group.inherited_from else ""
        lines += ["", fill(f"{name}: {group.summary or find(group.class_path).summary}{inherited}")]
        for key, argument in group.arguments().items():
            lines += option(f"{name}.{key}", argument, inherited=bool(group.inherited_from))
    if command.groups:
        settings = command.groups.get("model", command.groups["data"]).arguments()
        classes = ((name, choice) for name, one in settings.items() for choice in choices(one))
        name, choice = next(classes)
        prefix = "model" if "model" in command.groups else "data"
        lines += ["", fill(PARTS.format(place=f"{prefix}.{name}", choice=choice))]
    return "\n".join([*lines, *(["", fill(FILES)] if command.files else [])])


def part_help(command: Command, word: str) -> str:
    """Format the classes for `--model.compressor.quantizer.help`, or with `=NAME` the settings of one."""
    place, _, name = word.removeprefix("--").replace("-", "_").partition(".help")
    found = classes_at(command, place)
    if not name:
        return "\n".join(f"{name}: {part.summary}" for name, (part, _) in found.items())
    if name[1:] not in found:
        raise UserError(f"--{place}: {unknown('class', name[1:], found)}")
    part, given = found[name[1:]]
    lines = [f"--{place.replace('_', '-')}={name[1:]}", "", fill(part.summary), ""]
    for key, argument in part.arguments(given).items():
        lines += option(f"{place}.{key}", argument)
    return "\n".join(lines)


def classes_at(command: Command, place: str) -> dict:
    """Return the classes that a setting takes, under any class of the settings above it."""
    head, *path = place.split(".")
    settings = [command.groups[head].arguments()] if head in command.groups else [command.arguments()]
    for name in path if head in command.groups else [head, *path]:
        argument = next((known[name] for known in settings if name in known), None)
        if argument is None:
            names = [one for known in settings for one in known]
            raise UserError(f"--{place}: {unknown('setting', name, names)}")
        found = choices(argument)
        settings = [part.arguments(given) for part, given in found.values()]
    if not path or not found:
        raise UserError(f"--{place} does not take a class; see {command.name} --help")
    return found


def option(name: str, argument: Argument, place: bool = False, inherited: bool = False) -> list[str]:
    """Format name, type, meaning and default of an option, and the settings of an only choice."""
    found = choices(argument)
    nullable = "|null" * (bool(found) and "None" in argument.hint)
    kind = "|".join(found) + nullable if found else words(argument)
    head = f"  {name.upper()}, or" * place + f"{' ' if place else '  '}--{name.replace('_', '-')}"
    default = "" if inherited else format_default(argument)
    if len(head) + len(kind) > WIDTH - 12:
        head, kind = f"{head} <class>", f"({kind.replace('|', ', ')})"
        lines = [head, fill(" ".join(filter(None, [argument.help, kind, default])), "      ")]
    else:
        lines = [f"{head} <{kind}>", fill(" ".join(filter(None, [argument.help, default])), "      ")]
    if len(found) == 1 and argument.default not in (None, "None"):
        (part, given), standing = next(iter(found.values())), overrides(argument)
        for key, inner in part.arguments(given).items():
            changed = replace(inner, default=standing.get(key, inner.default))
            lines += option(f"{name}.{key}", changed, inherited=inherited)
    return list(filter(None, lines))


def format_default(argument: Argument) -> str:
    """Format the default in brackets."""
    if argument.default is None:
        return "[required]"
    return f"[default: {text}]" if (text := value(argument)) else ""


def fill(text: str, indent: str = "") -> str:
    """Wrap a paragraph to the width of the terminal."""
    width = min(shutil.get_terminal_size().columns, WIDTH)
    words = " ".join(text.split())
    return textwrap.fill(
        words, width, initial_indent=indent, subsequent_indent=indent, break_on_hyphens=False
    )
