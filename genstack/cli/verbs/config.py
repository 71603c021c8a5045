"""Show recipes, their settings in full, and the parts that a configuration can name.

genstack config show configs/compressor/vqgan.yaml
"""

import importlib
from pathlib import Path

import yaml

from genstack.cli.parsing.parser import load_parts
from genstack.cli.parsing.recipes import known, opening, read
from genstack.cli.parsing.signatures import choices, summary
from genstack.cli.parsing.words import nearest
from genstack.errors import UserError

#: What a configuration can name, by the word for it.
KINDS = {
    "compressor": "genstack.compressor.compressor.Compressor",
    "network": "genstack.compressor.network.Network",
    "quantizer": "genstack.compressor.bottleneck.Bottleneck",
    "output": "genstack.compressor.output.Output",
    "reconstruction": "genstack.losses.reconstruction.ReconstructionLoss",
    "perceptual": "genstack.losses.perceptual.Perceptual",
    "features": "genstack.losses.features.Features",
    "discriminator": "genstack.losses.discriminator.Discriminator",
    "adversarial": "genstack.losses.adversarial.AdversarialLoss",
    "prior": "genstack.prior.prior.Prior",
    "order": "genstack.prior.order.Order",
    "condition": "genstack.conditions.condition.Condition",
}


def show(path: Path) -> None:
    """Every setting of a recipe or of a run, defaults included.

    Defaults yield to files, earlier files to later ones, and files to the command line; a run's config.yaml
    is what came of it. What becomes of several files and flags, the command itself shows by --print_config.

    Args:
        path: a recipe, or the folder of a run.
    """
    from genstack.cli.parsing.stages import (
        STAGES,
    )  # loads all of training, and the other actions need none of it
    from genstack.training.run import Run

    if path.is_dir():
        print(yaml.safe_dump(Run(path).config(), sort_keys=False, allow_unicode=True), end="")
        return
    content, refusals = read(path), []
    for stage in sorted(STAGES.values(), key=lambda stage: stage.name not in str(path)):
        try:
            resolved, missing = stage.parser().preview(content, str(path))
        except UserError as error:
            refusals.append(error)
            continue
        print("".join(f"# still to be given: {name}\n" for name in missing), end="")
        print(yaml.safe_dump(resolved, sort_keys=False, allow_unicode=True), end="")
        return
    raise refusals[0]


def list_(folder: Path | None = None) -> None:
    """The recipes that come with genstack, or those in a folder, with what they say that they are.

    Args:
        folder: where to look, at any depth.
    """
    recipes = known() if folder is None else {str(file): file for file in sorted(folder.rglob("*.yaml"))}
    if not recipes:
        raise UserError(
            f"{folder or 'genstack'} holds no recipes (*.yaml); name a folder: genstack config list FOLDER"
        )
    width = max(map(len, recipes))
    for name, file in recipes.items():
        print(f"{name:{width}}  {opening(file)}".rstrip())


def classes(kind: str | None = None) -> None:
    """The parts that a configuration can name, by kind.

    Args:
        kind: compressor, network, quantizer, reconstruction, perceptual, discriminator, adversarial, prior or
            condition; all by default.
    """
    if kind is not None and kind not in KINDS:
        raise UserError(nearest(kind, KINDS, "kind of part"))
    load_parts()
    for name in [kind] if kind else KINDS:
        module, _, base = KINDS[name].rpartition(".")
        found = choices(getattr(importlib.import_module(module), base))
        print(f"{name}:")
        for part in found.values():
            print(f"  {part.__name__:{max(map(len, found))}}  {summary(part)}")
