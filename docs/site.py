"""Pages of the site that do not lie in docs/: files of the repository, all recipes, and the reference."""

import os
import re
from collections.abc import Iterable, Iterator, Mapping
from itertools import chain
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files

from genstack.cli.parsing.source import find, subclasses
from genstack.cli.verbs.config import BASES

ROOT = Path(__file__).parents[1]
#: Files that pages link to, as patterns.
LINKED = (
    "CONTRIBUTING.md",
    "CHANGELOG.md",
    "LICENSE",
    "benchmarks/*.*",
    "configs/**/*.yaml",
    "tests/plugins/*.py",
)
LINK = re.compile(r"\[([^]]*)\]\((?!https?:|#)([^)\s#]+)")
SMALL_BUDGET = "<!-- written by benchmarks/results.py -->"  # the tables below it are of small networks
NOTE = "[Small budget](docs/results.md#the-small-budget): emoji at 32 px, a smaller network, 300 steps."
FULL = 116  # letters of a line in a comment, after its mark
#: Pictures that a recipe made, by stage and name.
PICTURES = {
    "demo/clipart_compressor": "drawings and reconstructions: clipart-reconstructions.png",
    "demo/clipart_prior": "samples of captions that no training picture has: clipart.png",
    "demo/pairs_compressor": "pairs, each beside its reconstruction after 500 of 3,600 steps, 27.1 dB: "
    "recipes/pairs-compressor.png",
    "demo/pairs_prior": "samples of two coloured shapes each: pairs.png",
    "demo/digits_compressor": "digits, each beside its reconstruction: recipes/digits-compressor.png",
    "demo/digits_prior": "samples of handwritten digits: digits.png",
    "demo/shapes_compressor": "shapes, each beside its reconstruction: recipes/shapes-compressor.png",
    "demo/shapes_prior": "samples of coloured shapes, by class: shapes.png",
}
#: Pages of the reference: title, and names by heading.
CALLS = {
    "Calls": (
        "genstack.load",
        "genstack.train_compressor",
        "genstack.train_prior",
        "genstack.run",
        "genstack.plugins.use_plugin",
        "genstack.testing.laws",
    ),
    "Models": ("genstack.model.Model", "genstack.layout.CodeLayout", "genstack.inputs.Prompts"),
    "Sampling": (
        "genstack.prior.options.SamplingOptions",
        "genstack.sampling.series.Series",
        "genstack.sampling.gallery.Gallery",
        "genstack.sampling.canvas.Canvas",
        "genstack.sampling.sweep.Sweep",
    ),
}
#: Kinds of parts on each further page.
KINDS = {
    "Compressors": ("compressor", "network", "quantizer", "output"),
    "Losses": ("reconstruction", "perceptual", "features", "discriminator", "adversarial"),
    "Priors and conditions": ("prior", "order", "condition"),
    "Data, evaluation and files": ("source", "extractor", "format", "export", "callback"),
}
#: What these parts are made of, read or return.
COMPANIONS = {
    "Compressors": (
        "genstack.compressor.network.Encoder",
        "genstack.compressor.network.Decoder",
        "genstack.compressor.bottleneck.BottleneckOutput",
        "genstack.compressor.bottleneck.Quantized",
        "genstack.compressor.compressor.Reconstruction",
    ),
    "Losses": ("genstack.losses.features.ImageFeatures",),
    "Priors and conditions": (
        "genstack.prior.known.Known",
        "genstack.prior.guidance.Guidance",
        "genstack.prior.logits.uniforms",
        "genstack.prior.logits.sample_from_logits",
        "genstack.prior.symbols.Distribution",
        "genstack.prior.latent_prior.Standardization",
        "genstack.layout.LatentLayout",
        "genstack.inputs.ConditionInputs",
        "genstack.inputs.DataInfo",
        "genstack.conditions.condition.check_dropout",
        "genstack.conditions.modality.Modality",
        "genstack.conditions.embedding.ConditionEmbedding",
    ),
    "Data, evaluation and files": (
        "genstack.data.source.PictureInfo",
        "genstack.data.images.Preprocessing",
        "genstack.evaluation.extractor.Features",
        "genstack.checkpoints.formats.format.Weights",
        "genstack.checkpoints.import_options.ImportOptions",
        "genstack.errors.UserError",
    ),
}
assert sorted(chain(*KINDS.values())) == sorted(BASES), "every kind of part has a page"


def on_files(files: Files, config: Any) -> Files:
    """Add the pages and files."""
    for path in sorted(path for pattern in LINKED for path in ROOT.glob(pattern)):
        files.append(File.generated(config, path.relative_to(ROOT).as_posix(), abs_src_path=str(path)))
    for name, lines in ({"recipes.md": recipes()} | dict(reference())).items():
        files.append(File.generated(config, name, content="\n".join(lines)))
    return files


def on_page_markdown(markdown: str, page: Any, config: Any, **_: Any) -> str:
    """Let links between docs/ and the rest of the repository lead to the same files in the site.

    A link whose text is the name of its file shows the title of the page.
    """
    here, titles = page.file.src_uri, dict(entries(config["nav"]))
    folder = (Path("docs") if (ROOT / "docs" / here).exists() else Path()) / Path(here).parent

    def moved(match: re.Match) -> str:
        target = Path(os.path.normpath(folder / match[2])).as_posix().removeprefix("docs/")
        text = titles.get(target, match[1]) if match[1] == match[2] else match[1]
        return f"[{text}]({Path(os.path.relpath(target, Path(here).parent)).as_posix()}"

    return LINK.sub(moved, markdown)


def entries(nav: list[dict[str, Any]]) -> Iterator[tuple[str, str]]:
    """File and title of every page in the navigation."""
    for title, below in chain(*(entry.items() for entry in nav)):
        yield from [(below, title)] if isinstance(below, str) else entries(below)


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
            yield "  \n".join(sentences(line for line in comments if line not in commands)) + "\n"
            yield "\n".join(["```bash", *commands, "```\n"])
            if named := PICTURES.get(f"{folder}/{path.stem}"):
                words, _, picture = named.rpartition(": ")
                yield f"![{words}](docs/pictures/{picture})\n"
            yield from numbers(path.relative_to(ROOT).as_posix())
            yield f'??? note "configs/{folder}/{path.name}"\n\n    ```yaml'
            yield from (f"    {line}".rstrip() for line in lines[opening:])
            yield "    ```\n"


def sentences(lines: Iterable[str]) -> Iterator[str]:
    """Join each line of a comment with the one before if that was full, or if it begins inside a sentence."""
    text = last = ""
    for line in lines:
        inside = re.match(r"[a-z(`]|\d[\d,]*+(?! CPU| GPU| x | layers)", line)
        full = len(last) + 1 + len(line.partition(" ")[0]) > FULL and not last.endswith(".")
        if text and not (inside or full):
            yield text
            text = ""
        text, last = f"{text} {line}".strip(), line
    yield text


def numbers(recipe: str) -> Iterator[str]:
    """The rows about a recipe in the tables of results, and whole tables about it."""
    lines = (ROOT / "docs" / "results.md").read_text(encoding="utf-8").splitlines()
    measured = lines.index(SMALL_BUDGET)
    told = False
    for number, line in enumerate(lines):
        if line.startswith("|") and f"](../{recipe})" in line.split("|")[1]:
            top = next(above for above in range(number, 0, -1) if not lines[above - 1].startswith("|"))
            end = next(below for below in range(number, len(lines)) if not lines[below].startswith("|"))
            shown = [*lines[top : top + 2], *(lines[top + 2 : end] if number == top else [line]), ""]
            if number > measured and not told:
                yield f"{NOTE}\n"
                told = True
            plain = re.sub(r"\[([^]]*)\]\(\.\./[^)]*\)", r"\1", "\n".join(shown))
            yield plain.replace("](#", "](docs/results.md#").replace("](pictures/", "](docs/pictures/")


def reference() -> Iterator[tuple[str, list[str]]]:
    """Pages of public calls and classes, and of parts by kind, from their docstrings."""
    yield reference_page("Calls and models", {name: map(entry, parts) for name, parts in CALLS.items()})
    for title, kinds in KINDS.items():
        companions = [entry(name, all_members=True) for name in COMPANIONS[title]]
        groups = {kind.capitalize(): kind_entries(kind) for kind in kinds}
        yield reference_page(title, groups | {"What they read and return": companions})


def reference_page(title: str, groups: Mapping[str, Iterable[str]]) -> tuple[str, list[str]]:
    """File and lines of a page; guides come before it in a search."""
    lines = ["---", "search: {boost: 0.5}", "---", f"# {title}\n"]
    for heading, group in groups.items():
        lines += [f"## {heading}\n", *dict.fromkeys(group)]
    return f"reference/{re.sub(r'[^a-z]+', '_', title.lower())}.md", lines


def kind_entries(kind: str) -> Iterator[str]:
    """The contract of a kind of part with all that a part of yours must define, and then the parts."""
    parts = subclasses(find(BASES[kind]))
    for part in sorted(parts, key=lambda part: (part.concrete, part.path != BASES[kind])):
        yield entry(part.path, all_members=not part.concrete)


def entry(name: str, all_members: bool = False) -> str:
    """What mkdocstrings shows of a class or function; members without docstrings only if asked for."""
    options = "    options: {show_if_no_docstring: true}\n" if all_members else ""
    return f"::: {name}\n{options}"
