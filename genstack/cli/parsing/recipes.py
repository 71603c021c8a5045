"""YAML files of settings, and the recipes that come with genstack."""

import re
import sysconfig
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import genstack
from genstack import plugins
from genstack.errors import UserError
from genstack.yaml_files import read_yaml

#: Folders that may hold `configs`: data files of an installed package, or a clone.
HOMES = (Path(sysconfig.get_path("data")) / "share" / "genstack", Path(genstack.__file__).parents[1])
MAX_SETTINGS = 10_000  # in one file


def title(file: Path) -> str:
    """Return the title of a recipe: its first comment up to the citation."""
    first = file.read_text(encoding="utf-8").partition("\n")[0]
    return re.split(r" \(|[;.] |,$", first.strip("# "))[0] if first.startswith("#") else ""


def list_recipes() -> dict[str, Path]:
    """Find the recipes that come with genstack, by their path in a clone."""
    home = next(home for home in HOMES if (home / "configs").is_dir() or home == HOMES[-1])
    return {file.relative_to(home).as_posix(): file for file in sorted((home / "configs").rglob("*.yaml"))}


def read(file: Path, stage: str = "") -> dict:
    """Read the settings in a YAML file; only plain values are allowed.

    Args:
        file: a file, or the name of a recipe that comes with genstack, such as `vqgan`.
        stage: compressor or prior; its recipes win if both stages have the name.

    Raises:
        UserError: the file is not found, not YAML, or holds no settings.
    """
    named = file
    if not file.is_file():
        file = recipe(file.as_posix(), stage) or file
    if not file.is_file():
        problem = "is a folder, expected a file" if file.exists() else "not found"
        raise UserError(f"recipe '{named}' {problem}; {suggest_recipe(named)}")
    content = read_yaml(file)
    if content is None:
        return {}
    if not isinstance(content, dict):
        raise UserError(f"{file} holds no settings; expected lines such as `name: value`")
    check_content(content, file)
    content.pop("format_version", None)  # the config.yaml of a run serves as a recipe, too
    plugins.require(content.pop("plugins", None), file)
    return content


def check_content(content: dict, file: Path) -> None:
    """Raise a UserError unless names are text, values are plain, and the structure is finite."""
    values: list[Any] = [content]
    for count, value in enumerate(values):  # grows as it is read
        if count > MAX_SETTINGS:
            raise UserError(f"{file} holds more than {MAX_SETTINGS} settings")
        if isinstance(value, dict):
            if wrong := [name for name in value if not isinstance(name, str)]:
                raise UserError(f"{file}: invalid setting name '{wrong[0]}'; expected text")
            values += value.values()
        elif isinstance(value, list):
            values += value
        elif not isinstance(value, str | int | float | None):
            raise UserError(f"{file}: expected text, numbers and lists, got '{value}'")


def recipe(name: str, stage: str = "") -> Path | None:
    """Find a recipe by the end of its path in a clone, with or without `.yaml`; `stage` first."""
    end = f"/{name.removesuffix('.yaml')}.yaml"
    found = sorted(
        (key for key in list_recipes() if f"/{key}".endswith(end)), key=lambda key: f"/{stage}/" not in key
    )
    return list_recipes()[found[0]] if found else None


def suggest_recipe(file: Path) -> str:
    """Suggest the closest known file, or the command that lists recipes."""
    there = [str(other) for other in sorted(file.parent.glob("*.y*ml"))]
    by_stem = {Path(name).stem: name for name in [*list_recipes(), *there]}
    if near := get_close_matches(file.stem, by_stem, n=1):
        named = (
            file == Path(file.stem) and by_stem[near[0]] in list_recipes()
        )  # recipes are named without a folder
        return f"did you mean {near[0] if named else by_stem[near[0]]}?"
    return "`genstack config list` shows the recipes"
