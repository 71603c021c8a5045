"""Render a report as one self-contained HTML page."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from math import isfinite
from typing import Any

import yaml
from jaxtyping import Float
from jinja2 import Environment, PackageLoader, StrictUndefined
from torch import Tensor

import genstack
from genstack.data import Batch
from genstack.description import identity
from genstack.errors import UserError
from genstack.evaluation.card import Card, Number
from genstack.model import Model
from genstack.report import codes, curves, reconstructions, samples
from genstack.report.missing import Missing, attempt
from genstack.report.picture import Picture, pictures
from genstack.report.run_data import RunData
from genstack.report.summary import commands, flat, headline, label, summary

SIDE_BY_SIDE = 6  # images, and samples, of each run in a comparison


@dataclass(frozen=True)
class Strip:
    """Pictures of one run in a comparison.

    Args:
        name: heading.
        place: index of the run; -1 for the original images.
        pictures: pictures in the same order for all runs.
    """

    name: str
    place: int
    pictures: Sequence[Picture] | Missing


def run_page(run: RunData, count: int, seed: int) -> str:
    """Render the page of one run with `count` samples."""
    model, held_out = run.model, run.held_out
    step, measured = run.validation_results
    history = run.history
    boxes, constant = curves.charts(history) if history else ([], {})
    return render(
        "run.html",
        title=run.name,
        run=run,
        headline=headline(run),
        step=step,
        measured=[(label(name), measured[name]) for name in curves.sorted_names(measured)],
        summary=summary(run),
        history=history,
        charts=boxes,
        constant=constant,
        reconstructions=attempt(reconstructions.reconstructions, model, held_out),
        codes=attempt(lambda model, batch: codes.codes(model, batch.images), model, held_out),
        samples=attempt(lambda model: samples.samples(model, count, seed, run.data, held_out), model),
        sheets=run.sheets(),
        cards=run.cards,
        commands=commands(run),
        config=yaml.safe_dump(run.config, sort_keys=False, allow_unicode=True) if run.config else "",
    )


def training_page(run: RunData) -> str:
    """Render the page of a training that may still run: its curves and pictures."""
    step, measured = run.validation_results
    boxes, constant = curves.charts(run.history) if run.history else ([], {})
    pictures = {"Images": run.sheets()} | {name.capitalize(): run.sheets(name) for name in run.charts}
    return render(
        "training.html",
        title=run.name,
        headline=headline(run),
        step=step,
        measured=[(label(name), measured[name]) for name in curves.sorted_names(measured)],
        history=run.history,
        charts=boxes,
        constant=constant,
        pictures={name: sheets for name, sheets in pictures.items() if sheets},
    )


def comparison_page(runs: Sequence[RunData], count: int, seed: int) -> str:
    """Render a page that compares runs."""
    names = unique_names(runs)
    histories = {place: (names[place], run.history) for place, run in enumerate(runs) if run.history}
    measured = [run.validation_results[1] for run in runs]
    rows = curves.sorted_names(dict.fromkeys(name for metrics in measured for name in metrics))
    return render(
        "comparison.html",
        title=" · ".join(names),
        runs=runs,
        names=names,
        headlines=[headline(run) for run in runs],
        measured=[(label(name), [metrics.get(name) for metrics in measured]) for name in rows],
        compressors=len({identity(one.model) for one in runs if one.model}),
        charts=curves.overlaid(histories),
        unlogged=[
            (names[n], one.history.reason) for n, one in enumerate(runs) if isinstance(one.history, Missing)
        ],
        cards=card_rows([run.cards for run in runs]),
        unmeasured=[names[n] for n, one in enumerate(runs) if not one.cards],
        differences=differences([run.config for run in runs]),
        strips=reconstruction_strips(runs, names),
        samples=sample_strips(runs, names, min(count, SIDE_BY_SIDE), seed),
        seed=seed,
    )


def unique_names(runs: Sequence[RunData]) -> list[str]:
    """Name runs, by their folders if two have the same name."""
    names = [run.name for run in runs]
    return [str(run.folder) if names.count(run.name) > 1 else run.name for run in runs]


def reconstruction_strips(runs: Sequence[RunData], names: Sequence[str]) -> list[Strip]:
    """Show the same held-out images as each run reconstructs them."""
    first = next((run.held_out for run in runs if run.held_out), None)
    if first is None:
        return []
    images = first.images[:SIDE_BY_SIDE]
    strips = [Strip("held-out images", -1, pictures(images, [f"image {n}" for n in range(len(images))]))]
    for place, run in enumerate(runs):
        labels = [f"image {n} by {names[place]}" for n in range(len(images))]
        shown = attempt(partial(embed_reconstructions, images, labels), run.model)
        strips.append(Strip(names[place], place, shown))
    return strips


def embed_reconstructions(
    images: Float[Tensor, "b c H W"], labels: Sequence[str], model: Model
) -> list[Picture]:
    """Reconstruct images; another image size than the model's is an error."""
    if model.preprocessing.shape != tuple(images.shape[1:]):
        raise UserError("it was trained on another image size")
    return pictures(reconstructions.reconstruct(model, images), labels)


def sample_strips(runs: Sequence[RunData], names: Sequence[str], count: int, seed: int) -> list[Strip]:
    """Show samples of each run with a prior."""
    strips = []
    for place, run in enumerate(runs):
        if run.model and run.model.can_sample:
            drawn = attempt(partial(embed_samples, count, seed, run.held_out), run.model)
            strips.append(Strip(names[place], place, drawn))
    return strips


def embed_samples(count: int, seed: int, held_out: Batch | Missing, model: Model) -> list[Picture]:
    """Sample without looking for the nearest training images."""
    groups = samples.samples(model, count, seed, Missing("not requested"), held_out).groups
    return [one.picture for group in groups for one in group.samples]


def card_rows(runs: Sequence[Mapping[str, Card] | Missing]) -> list[tuple[Number, list[Number | None]]]:
    """Return every number in the cards of several runs, with its value in each."""
    found = [
        {number.name: number for card in reversed([*(cards or {}).values()]) for number in card.numbers}
        for cards in runs
    ]
    names = dict.fromkeys(name for numbers in found for name in numbers)
    return [
        (
            next(numbers[name] for numbers in found if name in numbers),
            [numbers.get(name) for numbers in found],
        )
        for name in names
    ]


def differences(configs: Sequence[Mapping[str, Any] | Missing]) -> list[tuple[str, list[str | None]]]:
    """Return settings that differ between runs; None if a run does not have one."""
    found = [
        dict(command_line_form(*each) for each in flat(config).items()) if config else {}
        for config in configs
    ]
    names = dict.fromkeys(name for settings in found for name in settings)
    rows = [(name, [settings.get(name) for settings in found]) for name in names]
    return [(name, values) for name, values in rows if len(set(values)) > 1]


def command_line_form(name: str, value: str) -> tuple[str, str]:
    """Write a setting as on the command line, with short class names."""
    name = name.replace(".init_args", "")
    if name.endswith(".class_path"):
        return name.removesuffix(".class_path"), value.rpartition(".")[2]
    return name, value


def render(template: str, **parts: Any) -> str:
    """Render a template; text of a run is escaped."""
    environment = Environment(
        loader=PackageLoader("genstack.report", "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "short": short,
        "percent": percent,
        "sentence": sentence,
        "json": partial(json.dumps, indent=2, ensure_ascii=False),
    }
    return environment.get_template(template).render(version=genstack.__version__, **parts)


def short(value: float | int | str) -> str:
    """Format a number in few digits."""
    if isinstance(value, str):
        return value
    if not isfinite(value):
        return {"inf": "∞", "-inf": "-∞"}.get(str(value), "NaN")
    if value == int(value):
        return f"{int(value):,}"
    return f"{value:,.1f}" if abs(value) >= 1000 else f"{value:.4g}"


def sentence(reason: str) -> str:
    """Format a reason as a sentence; a path keeps its first letter."""
    begin = reason if set(reason.partition(" ")[0]) & set("/\\._") else reason[:1].upper() + reason[1:]
    return begin if begin.endswith((".", "!", "?")) else f"{begin}."


def percent(share: float) -> str:
    """Format a share in percent with two digits."""
    return f"{share * 100:.2g}" if 0 < share < 0.1 else f"{share * 100:.0f}"
