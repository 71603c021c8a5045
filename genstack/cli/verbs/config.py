"""List recipes and parts, and show all settings of a recipe or run.

genstack config show vqgan
"""

from pathlib import Path

import yaml

from genstack.cli.parsing.recipes import known, opening, read
from genstack.cli.parsing.source import find, subclasses
from genstack.cli.parsing.words import unknown
from genstack.errors import UserError

#: Kinds of parts that a configuration can name.
KINDS = {
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
}


def show(path: Path) -> None:
    """Every setting of a recipe or of a run, defaults included.

    Files override defaults, later files override earlier ones, and flags override files. The config.yaml of a
    run is the result. For several files and flags together, add --print-config to the training command.

    Args:
        path: a recipe by file or name, or the folder of a run.
    """
    from genstack.cli.parsing.stages import STAGES  # imports all of training; the other actions need none
    from genstack.training.run import Run

    if path.is_dir():
        _print_settings(Run(path).config())
        return
    content, refusals = read(path), []
    for stage in sorted(STAGES.values(), key=lambda stage: stage.name != _stage_of(content)):
        try:
            resolved, missing = stage.parser.preview(content, str(path))
        except UserError as error:
            refusals.append(error)
            continue
        print("".join(f"# required: --{name.replace('_', '-')}\n" for name in missing), end="")
        _print_settings(resolved)
        return
    raise refusals[0]


def _stage_of(content: dict) -> str:
    """The training that a recipe is for."""
    model = content.get("model")
    return "prior" if isinstance(model, dict) and {"prior", "condition"} & {*model} else "compressor"


def _print_settings(settings: dict) -> None:
    """Print settings as YAML."""
    print(yaml.safe_dump(settings, sort_keys=False, allow_unicode=True), end="")


def list_(folder: Path | None = None) -> None:
    """The recipes that come with genstack, or those in a folder, with their titles.

    Args:
        folder: where to look, at any depth.
    """
    recipes = known() if folder is None else {str(file): file for file in sorted(folder.rglob("*.yaml"))}
    if not recipes:
        raise UserError(
            f"no recipes (*.yaml) found in {folder or 'genstack'}; name a folder: genstack config list FOLDER"
        )
    width = max(map(len, recipes))
    for name, file in recipes.items():
        print(f"{name:{width}}  {opening(file)}".rstrip())


def classes(kind: str | None = None) -> None:
    """The parts that a configuration can name, by kind.

    Args:
        kind: compressor, network, quantizer, output, reconstruction, perceptual, features, discriminator,
            adversarial, prior, order or condition; all by default.
    """
    if kind is not None and kind not in KINDS:
        raise UserError(unknown("kind of part", kind, KINDS))
    for name in [kind] if kind else KINDS:
        found = [part for part in subclasses(find(KINDS[name])) if part.concrete]
        width = max(len(part.node.name) for part in found)
        print(f"{name}:")
        for part in found:
            print(f"  {part.node.name:{width}}  {part.summary}")
