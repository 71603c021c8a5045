"""Files of settings, in YAML, and those among them that come with genstack."""

import re
import sysconfig
from difflib import get_close_matches
from pathlib import Path

import yaml

import genstack
from genstack.errors import UserError

#: What holds `configs`: what an installed package brings beside its modules, or a clone.
HOMES = (Path(sysconfig.get_path("data")) / "share" / "genstack", Path(genstack.__file__).parents[1])


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


def known() -> dict[str, Path]:
    """The recipes that come with genstack, by the names that they have in its clone."""
    home = next(home for home in HOMES if (home / "configs").is_dir() or home == HOMES[-1])
    return {file.relative_to(home).as_posix(): file for file in sorted((home / "configs").rglob("*.yaml"))}


def read(file: Path) -> dict:
    """The settings in a YAML file: plain values only, tags of Python are refused.

    Args:
        file: one that is there, or a recipe that comes with genstack by its name, wherever one works.

    Raises:
        UserError: no such file, no YAML, or no settings in it.
    """
    named = file
    if not file.exists():
        file = known().get(file.as_posix(), file)
    if not file.is_file():
        raise UserError(f"{named} {'is no file' if file.exists() else 'does not exist'}; {alike(named)}")
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


def alike(file: Path) -> str:
    """Which file was probably meant, or where to look."""
    there = [str(other) for other in sorted(file.parent.glob("*.y*ml"))]
    by_stem = {Path(name).stem: name for name in [*known(), *there]}
    if near := get_close_matches(file.stem, by_stem, n=1):
        return f"did you mean {by_stem[near[0]]}?"
    return "`genstack config list` shows the recipes"
