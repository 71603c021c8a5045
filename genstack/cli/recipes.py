"""Files of settings, in YAML."""

import re
from pathlib import Path

import yaml

from genstack.cli.words import meant
from genstack.errors import UserError


class Loader(yaml.SafeLoader):
    """Plain values only; `1e-3` is a number, and `off`, `on`, `yes` and `no` are words (as in YAML 1.2)."""

    yaml_implicit_resolvers = {
        first: [
            (tag, pattern) for tag, pattern in known if not tag.endswith((":bool", ":float", ":timestamp"))
        ]
        for first, known in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }


Loader.add_implicit_resolver(
    "tag:yaml.org,2002:bool", re.compile(r"^(?:true|True|TRUE|false|False|FALSE)$"), list("tTfF")
)
Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(
        r"^[-+]?(?:(?:\d+\.\d*|\.\d+)(?:[eE][-+]?\d+)?|\d+[eE][-+]?\d+|\.(?:inf|Inf|INF|nan|NaN|NAN))$"
    ),
    list("-+0123456789."),
)


def opening(file: Path) -> str:
    """What a recipe is, in the words that it opens with, before the paper that it follows."""
    first = file.read_text(encoding="utf-8").partition("\n")[0]
    return re.split(r" \(|[;.] |,$", first.strip("# "))[0] if first.startswith("#") else ""


def read(file: Path) -> dict:
    """The settings in a YAML file: plain values only, tags of Python are refused.

    Raises:
        UserError: no such file, no YAML, or no settings in it.
    """
    if not file.is_file():
        nearby = [str(other) for other in sorted(file.parent.glob("*.y*ml"))]
        raise UserError(
            meant(f"{file} does not exist" if not file.exists() else f"{file} is no file", str(file), nearby)
        )
    try:
        content = yaml.load(file.read_text(encoding="utf-8"), Loader)
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        raise UserError(f"{file}, line {line}: {' '.join(str(error.problem).split())}") from None
    except (yaml.YAMLError, UnicodeDecodeError):
        raise UserError(f"{file} is no YAML text") from None
    if content is None:
        return {}
    if not isinstance(content, dict) or not all(isinstance(name, str) for name in content):
        raise UserError(f"{file} holds no settings; it takes lines such as `name: value`")
    content.pop("format_version", None)  # a run's own file says it, and serves as a recipe too
    return content
