"""List recipes and classes, and show all settings of a recipe or run.

genstack config show vqgan
"""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING
from unittest import SkipTest

import yaml

from genstack import plugins
from genstack.cli.parsing.recipes import list_recipes, read, title
from genstack.cli.parsing.source import check_plugins, find, subclasses
from genstack.cli.parsing.words import unknown
from genstack.errors import UserError
from genstack.hub import TENSORS
from genstack.models import CARD
from genstack.models import known as known_models

if TYPE_CHECKING:
    from genstack.testing import Law

#: Base classes of the parts that settings or flags can name.
BASES = {
    "compressor": "genstack.compressor.Compressor",
    "network": "genstack.compressor.Network",
    "quantizer": "genstack.compressor.Bottleneck",
    "output": "genstack.compressor.output.Output",
    "reconstruction": "genstack.losses.reconstruction.ReconstructionLoss",
    "perceptual": "genstack.losses.perceptual.Perceptual",
    "features": "genstack.losses.features.Features",
    "discriminator": "genstack.losses.discriminator.Discriminator",
    "adversarial": "genstack.losses.adversarial.AdversarialLoss",
    "prior": "genstack.prior.Prior",
    "order": "genstack.prior.order.Order",
    "condition": "genstack.conditions.Condition",
    "source": "genstack.data.source.Source",
    "callback": "pytorch_lightning.callbacks.callback.Callback",
    "extractor": "genstack.evaluation.extractor.Extractor",
    "format": "genstack.checkpoints.formats.format.Format",
    "export": "genstack.checkpoints.exports.export.Export",
}


def show(path: Path) -> None:
    """Print all settings of a recipe or run, defaults included.

    To print the settings of several files and flags together, add --print-config to the training command.

    Args:
        path: recipe by file or name, or folder of a run.
    """
    from genstack.cli.parsing.stages import STAGES  # imports all of training, which other actions do not need
    from genstack.training.run import Run

    if path.is_dir():
        _print_settings(Run(path).config())
        return
    content, errors = read(path), []
    for stage in sorted(STAGES.values(), key=lambda stage: stage.name != _stage_of(content)):
        try:
            resolved, missing = stage.parser.preview(content, str(path))
        except UserError as error:
            errors.append(error)
            continue
        print("".join(f"# required: --{name.replace('_', '-')}\n" for name in missing), end="")
        _print_settings(resolved)
        return
    raise errors[0]


def _stage_of(content: dict) -> str:
    """Guess the stage of a recipe from its model."""
    model = content.get("model")
    return "prior" if isinstance(model, dict) and {"prior", "condition"} & {*model} else "compressor"


def _print_settings(settings: dict) -> None:
    """Print settings as YAML."""
    print(yaml.safe_dump(settings, sort_keys=False, allow_unicode=True), end="")


def list_(folder: Path | None = None) -> None:
    """List the recipes of genstack, or of a folder, with their titles.

    Args:
        folder: searched at any depth.
    """
    recipes = (
        list_recipes() if folder is None else {str(file): file for file in sorted(folder.rglob("*.yaml"))}
    )
    if not recipes:
        raise UserError(
            f"no recipes (*.yaml) found in {folder or 'genstack'}; name a folder: genstack config list FOLDER"
        )
    width = max(map(len, recipes))
    for name, file in recipes.items():
        print(f"{name:{width}}  {title(file)}".rstrip())


def models(name: str | None = None) -> None:
    """The trained models that come with genstack, or the card of one of them.

    Their names stand wherever a run is accepted: genstack sample clipart --caption "a red apple"

    Args:
        name: model whose card is printed; all are listed by default.
    """
    found = known_models()
    if name is not None and name not in found:
        raise UserError(unknown("model", name, found))
    if name is not None:
        print((found[name] / CARD).read_text(encoding="utf-8"), end="")
        return
    for each, folder in found.items():
        title = (folder / CARD).read_text(encoding="utf-8").partition("\n")[0].strip("# ")
        print(f"{each}  {title}, {(folder / TENSORS).stat().st_size / 1e6:.3g} MB")


def classes(kind: str | None = None) -> None:
    """List the parts of genstack, of installed plugins and of --plugin files, by kind.

    Args:
        kind: compressor, network, quantizer, output, reconstruction, perceptual, features, discriminator,
            adversarial, prior, order, condition, source, callback, extractor, format or export; all by
            default.
    """
    if kind is not None and kind not in BASES:
        raise UserError(unknown("kind", kind, BASES))
    plugins.modules()  # a part of a plugin that fails to import is of no use
    for name in [kind] if kind else BASES:
        found = [part for part in subclasses(find(BASES[name])) if part.concrete]
        width = max((len(part.node.name) for part in found), default=0)
        print(f"{name}:")
        for part in found:
            print(f"  {part.node.name:{width}}  {part.summary}")


def check(file: Path, example: str = "") -> int:
    """Check that the parts in a file keep the laws of their kinds; exits with 1 if one does not.

    Args:
        file: Python file with your own classes, as for --plugin.
        example: name that a source of the file opens, or published file that a format of it reads.
    """
    from genstack import testing  # imports all parts; the other actions need none

    with plugins.use_temporarily([file]):
        plugin = plugins.use_plugin(file)
        check_plugins()
        path = file.expanduser().resolve()
        modules = {name for name, place in plugin.files.items() if place.resolve() == path}
        parts = [part for part in plugins.classes() if part.__module__ in modules]
        checked = [part for part in parts if testing.laws_of(part)]
        if not checked:
            kinds = ", ".join(kind.__name__ for kind in testing.LAWS)
            raise UserError(f"{file} has no part with laws; expected a subclass of {kinds}")
        broken = sum(
            _print_laws(part.__name__, testing.laws(part, **_example(part, example))) for part in checked
        )
    return int(broken > 0)


def _example(part: type, example: str) -> dict[str, str]:
    """Arguments of the laws of a source that claims the example, or of a format if no source does."""
    from genstack.checkpoints.formats.format import Format
    from genstack.data.source import Source

    if issubclass(part, Source):
        return {"name": example} if part.claims(example) else {}
    return {"file": example} if issubclass(part, Format) and Path(example).exists() and example else {}


def _print_laws(name: str, laws: "Sequence[Law]") -> int:
    """Check and print the laws of a part; return the number that it breaks."""
    results: list[str] = []
    print(f"{name}:")
    for law in laws:
        try:
            reason = law.failure()
            results.append("broken" if reason else "holds")
        except SkipTest as skip:
            reason = str(skip)
            results.append("skipped")
        print(f"  {results[-1]:7}  {str(law).replace('_', ' ')}")
        print(f"           {reason}\n" * bool(reason), end="")
    others = [f", {results.count(state)} {state}" for state in ("broken", "skipped") if state in results]
    print(f"  {results.count('holds')} of {len(laws)} laws hold{''.join(others)}")
    return results.count("broken")
