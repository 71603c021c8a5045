"""Pages of the site that do not lie in docs/: files of the repository, all recipes, and the reference."""

import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files

from genstack.cli.parsing.source import find, subclasses
from genstack.cli.verbs.config import BASES

ROOT = Path(__file__).parents[1]
#: Files that pages link to, as patterns.
LINKED = ("CONTRIBUTING.md", "CHANGELOG.md", "LICENSE", "benchmarks/*.*", "configs/**/*.yaml")
LINK = re.compile(r"(\]\()(?!https?:|#)([^)\s#]+)")
#: Pictures that a recipe made, by stage and name.
PICTURES = {
    "demo/clipart_compressor": "drawings and reconstructions: clipart-reconstructions.png",
    "demo/clipart_prior": "samples of captions that no training picture has: clipart.png",
    "demo/pairs_prior": "samples of two coloured shapes each: pairs.png",
    "demo/compressor": "digits, each beside its reconstruction: recipes/demo-compressor.png",
    "demo/prior": "samples of handwritten digits: digits.png",
}
REFERENCE = {
    "Calls": (
        "genstack.load",
        "genstack.train_compressor",
        "genstack.train_prior",
        "genstack.run",
        "genstack.plugins.use_plugin",
        "genstack.testing.laws",
    ),
    "Models and sampling": (
        "genstack.model.Model",
        "genstack.layout.CodeLayout",
        "genstack.inputs.Prompts",
        "genstack.prior.options.SamplingOptions",
        "genstack.sampling.series.Series",
        "genstack.sampling.gallery.Gallery",
        "genstack.sampling.canvas.Canvas",
        "genstack.sampling.sweep.Sweep",
    ),
}


def on_files(files: Files, config: Any) -> Files:
    """Add the pages and files."""
    for path in sorted(path for pattern in LINKED for path in ROOT.glob(pattern)):
        files.append(File.generated(config, path.relative_to(ROOT).as_posix(), abs_src_path=str(path)))
    for name, lines in {"recipes.md": recipes(), "reference.md": reference()}.items():
        files.append(File.generated(config, name, content="\n".join(lines)))
    return files


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Let links between docs/ and the rest of the repository lead to the same files in the site."""
    here = page.file.src_uri
    folder = (Path("docs") if (ROOT / "docs" / here).exists() else Path()) / Path(here).parent

    def moved(match: re.Match) -> str:
        target = Path(os.path.normpath(folder / match[2])).as_posix().removeprefix("docs/")
        return match[1] + Path(os.path.relpath(target, Path(here).parent)).as_posix()

    return LINK.sub(moved, markdown)


def recipes() -> Iterator[str]:
    """Every recipe: what it is, what it reaches, its command and its settings."""
    yield "# Recipes\n"
    yield "A recipe is a file of settings, named by `--config NAME`; flags and `--size` override it.\n"
    for folder in ("compressor", "prior", "demo"):
        yield f"## {folder.capitalize()}\n"
        for path in sorted((ROOT / "configs" / folder).glob("*.yaml")):
            lines = path.read_text(encoding="utf-8").splitlines()
            opening = next(number for number, line in enumerate(lines) if not line.startswith("#"))
            comments = [line.lstrip("# ") for line in lines[:opening]]
            commands = [line for line in comments if line.startswith("genstack ")]
            yield f"### {path.stem}\n"
            yield "  \n".join(line for line in comments if line not in commands) + "\n"
            yield "\n".join(["```bash", *commands, "```\n"])
            if named := PICTURES.get(f"{folder}/{path.stem}"):
                words, _, picture = named.rpartition(": ")
                yield f"![{words}](docs/pictures/{picture})\n"
            yield from numbers(path.relative_to(ROOT).as_posix())
            yield f'??? note "configs/{folder}/{path.name}"\n\n    ```yaml'
            yield from (f"    {line}".rstrip() for line in lines[opening:])
            yield "    ```\n"


def numbers(recipe: str) -> Iterator[str]:
    """The rows about a recipe in the tables of results, and whole tables about it."""
    lines = (ROOT / "docs" / "results.md").read_text(encoding="utf-8").splitlines()
    for number, line in enumerate(lines):
        if line.startswith("|") and f"](../{recipe})" in line.split("|")[1]:
            top = next(above for above in range(number, 0, -1) if not lines[above - 1].startswith("|"))
            end = next(below for below in range(number, len(lines)) if not lines[below].startswith("|"))
            shown = [*lines[top : top + 2], *(lines[top + 2 : end] if number == top else [line]), ""]
            plain = re.sub(r"\[([^]]*)\]\(\.\./[^)]*\)", r"\1", "\n".join(shown))
            yield plain.replace("](#", "](docs/results.md#").replace("](pictures/", "](docs/pictures/")


def reference() -> Iterator[str]:
    """Public calls and classes, and the parts by kind, from their docstrings."""
    yield "# Reference\n"
    parts = {
        f"{kind.capitalize()}s": tuple(part.path for part in subclasses(find(base)))
        for kind, base in BASES.items()
    }
    for title, names in (REFERENCE | parts).items():
        yield f"## {title}\n"
        yield from (f"::: {name}\n" for name in dict.fromkeys(names))
