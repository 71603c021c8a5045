"""A report as one HTML page that asks for nothing outside itself."""

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
from genstack.model import Model
from genstack.report import codes, curves, reconstructions, samples
from genstack.report.absent import Absent, attempt
from genstack.report.card import Card, Number
from genstack.report.picture import Picture, pictures
from genstack.report.story import commands, flat, headline, meaning, story
from genstack.report.subject import Subject

SIDE_BY_SIDE = 6  # images, and samples, of each run in a comparison


@dataclass(frozen=True)
class Strip:
    """Pictures of one run in a comparison.

    Args:
        name: of the run, or what else is shown.
        place: of the run among the others; -1 for none.
        pictures: in the order of those of the other runs, or why there are none.
    """

    name: str
    place: int
    pictures: Sequence[Picture] | Absent


def run_page(subject: Subject, count: int, seed: int) -> str:
    """The page of one run, with so many samples."""
    model, held_out = subject.model, subject.held_out
    step, measured = subject.measured
    history = subject.history
    boxes, constant = curves.charts(history) if history else ([], {})
    return render(
        "run.html",
        title=subject.name,
        subject=subject,
        headline=headline(subject),
        step=step,
        measured=[(meaning(name), value) for name, value in curves.sorted_numbers(measured)],
        story=story(subject),
        history=history,
        charts=boxes,
        constant=constant,
        reconstructions=attempt(reconstructions.reconstructions, model, held_out),
        codes=attempt(lambda model, batch: codes.codes(model, batch.images), model, held_out),
        samples=attempt(lambda model: samples.samples(model, count, seed, subject.data, held_out), model),
        sheets=subject.sheets(),
        cards=subject.cards,
        commands=commands(subject),
        config=plain_config(subject),
    )


def comparison_page(subjects: Sequence[Subject], count: int, seed: int) -> str:
    """The page of several runs side by side."""
    names = told_apart(subjects)
    histories = {
        place: (names[place], subject.history) for place, subject in enumerate(subjects) if subject.history
    }
    measured = [subject.measured[1] for subject in subjects]
    together = {name: value for numbers in measured for name, value in numbers.items()}
    rows = [name for name, _ in curves.sorted_numbers(together)]
    return render(
        "comparison.html",
        title=" · ".join(names),
        subjects=subjects,
        names=names,
        headlines=[headline(subject) for subject in subjects],
        measured=[(meaning(name), [numbers.get(name) for numbers in measured]) for name in rows],
        compressors=len({identity(one.model) for one in subjects if one.model}),
        charts=curves.overlaid(histories),
        silent=[
            (names[n], one.history.reason)
            for n, one in enumerate(subjects)
            if isinstance(one.history, Absent)
        ],
        cards=card_rows([subject.cards for subject in subjects]),
        measured_none=[names[n] for n, one in enumerate(subjects) if not one.cards],
        differences=differences([subject.config for subject in subjects]),
        strips=side_by_side(subjects, names),
        samples=sample_strips(subjects, names, min(count, SIDE_BY_SIDE), seed),
        seed=seed,
    )


def told_apart(subjects: Sequence[Subject]) -> list[str]:
    """The names of runs, with their folders where two have the same one."""
    names = [subject.name for subject in subjects]
    return [str(subject.folder) if names.count(subject.name) > 1 else subject.name for subject in subjects]


def side_by_side(subjects: Sequence[Subject], names: Sequence[str]) -> list[Strip]:
    """The same held-out images, as each run reconstructs them."""
    first = next((subject.held_out for subject in subjects if subject.held_out), None)
    if first is None:
        return []
    images = first.images[:SIDE_BY_SIDE]
    strips = [Strip("held-out images", -1, pictures(images, [f"image {n}" for n in range(len(images))]))]
    for place, subject in enumerate(subjects):
        labels = [f"image {n} by {names[place]}" for n in range(len(images))]
        shown = attempt(partial(brought_back, images, labels), subject.model)
        strips.append(Strip(names[place], place, shown))
    return strips


def brought_back(images: Float[Tensor, "b c H W"], labels: Sequence[str], model: Model) -> list[Picture]:
    """Images as a model reconstructs them.

    Raises:
        UserError: they have another size than it reads.
    """
    if model.preprocessing.shape != tuple(images.shape[1:]):
        raise UserError("it was trained on images of another size")
    return pictures(reconstructions.reconstruct(model, images), labels)


def sample_strips(subjects: Sequence[Subject], names: Sequence[str], count: int, seed: int) -> list[Strip]:
    """Samples of each run that can draw some."""
    strips = []
    for place, subject in enumerate(subjects):
        if subject.model and subject.model.draws:
            drawn = attempt(partial(drawn_by, count, seed, subject.held_out), subject.model)
            strips.append(Strip(names[place], place, drawn))
    return strips


def drawn_by(count: int, seed: int, held_out: Batch | Absent, model: Model) -> list[Picture]:
    """Samples of a model, without their nearest training images."""
    groups = samples.samples(model, count, seed, Absent("not looked for"), held_out).groups
    return [one.picture for group in groups for one in group.drawn]


def card_rows(runs: Sequence[Sequence[Card] | Absent]) -> list[tuple[Number, list[Number | None]]]:
    """Every number of the cards of several runs, with its value in each."""
    found = [
        {number.name: number for card in reversed(cards or []) for number in card.numbers} for cards in runs
    ]
    names = dict.fromkeys(name for numbers in found for name in numbers)
    return [
        (
            next(numbers[name] for numbers in found if name in numbers),
            [numbers.get(name) for numbers in found],
        )
        for name in names
    ]


def differences(configs: Sequence[Mapping[str, Any] | Absent]) -> list[tuple[str, list[str | None]]]:
    """Settings that are not the same in all runs; None where a run has none of that name."""
    found = [dict(typed(*each) for each in flat(config).items()) if config else {} for config in configs]
    names = dict.fromkeys(name for settings in found for name in settings)
    rows = [(name, [settings.get(name) for settings in found]) for name in names]
    return [(name, values) for name, values in rows if len(set(values)) > 1]


def typed(name: str, value: str) -> tuple[str, str]:
    """A setting as the command line takes it: parts by their short names, and nothing between theirs."""
    name = name.replace(".init_args", "")
    if name.endswith(".class_path"):
        return name.removesuffix(".class_path"), value.rpartition(".")[2]
    return name, value


def plain_config(subject: Subject) -> str:
    """Every setting, as YAML."""
    if not subject.config:
        return ""
    return yaml.safe_dump(subject.config, sort_keys=False, allow_unicode=True)


def render(template: str, **parts: Any) -> str:
    """A page of a template; whatever comes from a run is text, never markup."""
    environment = Environment(
        loader=PackageLoader("genstack.report", "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"short": short, "percent": percent, "sentence": sentence}
    return environment.get_template(template).render(version=genstack.__version__, **parts)


def short(value: float | int | str) -> str:
    """A number as people read it; the page keeps all its digits beside it."""
    if isinstance(value, str):
        return value
    if not isfinite(value):
        return {"inf": "∞", "-inf": "-∞"}.get(str(value), "not a number")
    if value == int(value):
        return f"{int(value):,}"
    return f"{value:,.1f}" if abs(value) >= 1000 else f"{value:.4g}"


def sentence(reason: str) -> str:
    """A reason as a sentence, unless it begins with a name."""
    begin = reason if set(reason.partition(" ")[0]) & set("/\\._") else reason[:1].upper() + reason[1:]
    return begin if begin.endswith((".", "!", "?")) else f"{begin}."


def percent(share: float) -> str:
    """A share in percent, to two digits."""
    return f"{share * 100:.2g}" if 0 < share < 0.1 else f"{share * 100:.0f}"
