"""What was trained on what, in rows to read, and the commands that do it again."""

import re
import shlex
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from math import log2
from typing import Any

from torch import nn

import genstack
from genstack.description import describe, identity
from genstack.model import Model
from genstack.report.subject import Subject

MOST_CLASSES = 30  # that are named


@dataclass(frozen=True)
class Meaning:
    """What a number of validation says.

    Args:
        title: of the number.
        words: what it is.
        unit: of it.
    """

    title: str
    words: str
    unit: str = ""


MEANINGS = {
    "psnr": Meaning("PSNR", "closeness of reconstructions; higher is closer", "dB"),
    "reconstruction": Meaning("reconstruction loss", "as the loss weighs it; lower is closer"),
    "perceptual": Meaning("perceptual distance", "as a network sees it; lower is closer"),
    "usage": Meaning("codebook in use", "share of all codes seen in held-out images, from 0 to 1"),
    "perplexity": Meaning("perplexity", "so many codes, all alike frequent, would be as varied", "codes"),
    "dead": Meaning("codes never seen", "in held-out images"),
    "nats": Meaning("nats per code", "lower is better"),
    "bits_per_pixel": Meaning("bits per pixel", "to store an image with this prior"),
    "unigram": Meaning("unigram nats", "for who knows only how frequent codes are"),
    "uniform": Meaning("uniform nats", "for who knows nothing: ln K"),
    "rate": Meaning("rate", "nats that latents say of an image"),
    "active": Meaning("channels in use", "share of latent channels that say something"),
}

Rows = list[tuple[str, str]]


def meaning(name: str) -> Meaning:
    """What a logged number says, that of one grid of several too; its name where nobody has said."""
    number, _, grid = name.rpartition("/")[2].partition("_grid")
    if number not in MEANINGS:
        return Meaning(name, "")
    known = MEANINGS[number]
    return replace(known, title=f"{known.title}, grid {grid}") if grid else known


def headline(subject: Subject) -> str:
    """The run in a sentence."""
    source = settings(subject, "data").get("source")
    if source is None and subject.model:
        source = subject.model.made.get("data")
    trained = f"A {subject.stage} trained on {source}" if source else f"A {subject.stage}"
    steps = steps_of(subject)
    return f"{trained}, {steps}." if steps else f"{trained}."


def steps_of(subject: Subject) -> str:
    """How far the training has come, in words."""
    wanted = settings(subject, "trainer").get("max_steps")
    done = subject.history.step if subject.history else subject.measured[0]
    if not done:
        return "with no step logged yet"
    return f"{done:,} of {wanted:,} steps" if isinstance(wanted, int) else f"{done:,} steps"


def story(subject: Subject) -> dict[str, Rows]:
    """What was trained on what, by headings."""
    told = {"Data": data_rows(subject)}
    if subject.model:
        told["Compressor"] = compressor_rows(subject.model)
        if subject.model.prior is not None:
            told["Prior"] = prior_rows(subject.model.prior)
    told["Training"] = training_rows(subject)
    return {heading: rows for heading, rows in told.items() if rows}


def data_rows(subject: Subject) -> Rows:
    """The images."""
    said = settings(subject, "data")
    rows = [("source", str(said["source"]))] if "source" in said else []
    if subject.data:
        split = subject.data.split
        rows.append(("images", f"{len(split.training):,} for training, {len(split.validation):,} held out"))
    if subject.model:
        channels, height, width = subject.model.preprocessing.shape
        bits = subject.model.preprocessing.bits
        rows.append(
            ("seen at", f"{height} x {width} pixels, {channels} channel{'s' * (channels > 1)} of {bits} bits")
        )
        classes = subject.model.classes
        if classes:
            named = ", ".join(classes[:MOST_CLASSES]) + (", …" if len(classes) > MOST_CLASSES else "")
            rows.append(("classes", f"{len(classes):,}: {named}"))
    varied = flat(said.get("augmentation") or {})
    if varied:
        told = ", ".join(f"{name} {value}" for name, value in varied.items())
        rows.append(("augmentation", re.sub(r"\d+\.\d{4,}", lambda long: f"{float(long[0]):.4g}", told)))
    return rows


def compressor_rows(model: Model) -> Rows:
    """Stage one."""
    rows = [("parts", parts(describe(model.compressor))), ("weights", weights(model.compressor))]
    if model.compressor.coded:
        layout = model.layout
        channels, height, width = model.preprocessing.shape
        bits = layout.length * log2(layout.codebook_size)
        less = channels * height * width * model.preprocessing.bits / bits if bits else 0
        places = " + ".join(f"{rows} x {columns}" for rows, columns in layout.grids)
        depth = f", {layout.depth} at each place" if layout.depth > 1 else ""
        rows += [
            ("codes", f"{layout.length:,} an image ({places}{depth}), each one of {layout.codebook_size:,}"),
            (
                "size",
                f"{bits:,.0f} bits an image, {bits / height / width:.3g} a pixel: {less:.3g} times less",
            ),
        ]
    return [*rows, ("identity", identity(model)[:16])]


def prior_rows(prior: nn.Module) -> Rows:
    """Stage two."""
    described = describe(prior)
    plan = {name: value for name, value in flat(described.get("backbone") or {}).items() if name != "class"}
    shape = ", ".join(f"{name} {plan[name]}" for name in ("width", "depth", "heads") if name in plan)
    rows = [("parts", parts(described)), ("weights", weights(prior))]
    return [*rows, ("shape", shape)] if shape else rows


def training_rows(subject: Subject) -> Rows:
    """How it was trained."""
    rows = [("steps", steps_of(subject))]
    said, model = settings(subject, "data"), settings(subject, "model")
    if "batch_size" in said:
        rows.append(("batch", f"{said['batch_size']} images a step"))
    if subject.model:
        made = subject.model.made
        if isinstance(made.get("images"), int) and isinstance(made.get("step"), int):
            rows.append(("kept", f"the model of step {made['step']:,}, after {made['images']:,} images"))
    rate = flat(model).get("optimization.learning_rate")
    if rate is not None:
        rows.append(("learning rate", str(rate)))
    for name in ("ema", "seed"):
        if name in model:
            rows.append((name, str(model[name])))
    if "precision" in settings(subject, "trainer"):
        rows.append(("precision", str(settings(subject, "trainer")["precision"])))
    torch = subject.model.made.get("torch") if subject.model else None
    versions = ([f"trained with torch {torch}"] if torch else []) + [
        f"reported by genstack {genstack.__version__}"
    ]
    return [*rows, ("versions", ", ".join(versions))]


def commands(subject: Subject) -> list[tuple[str, str]]:
    """What each command does, and the command."""
    folder = shlex.quote(str(subject.folder))
    told = []
    if subject.config:
        config = shlex.quote(str(subject.folder / "config.yaml"))
        name = shlex.quote(f"{subject.name}-again")
        told.append(
            ("train the same again", f"genstack train {subject.stage} --config {config} --name {name}")
        )
        told.append(("train on, if it was stopped", f"genstack train resume {folder}"))
    if subject.model:
        told.append(("reconstruct held-out images", f"genstack reconstruct {folder}"))
        if subject.model.draws:
            told.append(("draw samples", f"genstack sample {folder} --count 64 --seed 0 --out samples/"))
        told.append(("measure it", f"genstack evaluate {folder}"))
    return [*told, ("make this page", f"genstack report {folder}")]


def settings(subject: Subject, group: str) -> Mapping[str, Any]:
    """One group of a run's settings; empty where there is none."""
    found = subject.config.get(group) if subject.config else None
    return found if isinstance(found, dict) else {}


def parts(described: Mapping[str, Any]) -> str:
    """The class of a part, and those of what it is made of."""
    inner = [value["class"] for value in described.values() if isinstance(value, dict) and "class" in value]
    inner = [name for name in inner if name not in ("CodeLayout", "Pixels")]
    return f"{described['class']} of {', '.join(inner)}" if inner else str(described["class"])


def weights(module: nn.Module) -> str:
    """How many there are."""
    return f"{sum(weight.numel() for weight in module.parameters()):,}"


def flat(settings: Mapping[str, Any]) -> dict[str, str]:
    """Settings by dotted names, as text."""
    return dict(leaves(settings, ""))


def leaves(settings: Any, place: str) -> Iterator[tuple[str, str]]:
    """Every value of nested settings, with its dotted name."""
    if not isinstance(settings, Mapping) or not settings:
        yield place, "none" if settings is None else str(settings)
        return
    for name, value in settings.items():
        yield from leaves(value, f"{place}.{name}" if place else str(name))
