"""Summary of a run: data, models and training in rows, and the commands to repeat it."""

import re
import shlex
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from torch import nn

import genstack
from genstack.description import describe, identity
from genstack.layout import CodeLayout
from genstack.model import Model
from genstack.report.run_data import RunData

MAX_CLASSES = 30  # names that are listed


@dataclass(frozen=True)
class MetricLabel:
    """Title, explanation and unit of a validation metric."""

    title: str
    words: str
    unit: str = ""


LABELS = {
    "psnr": MetricLabel("PSNR", "similarity of reconstructions; higher is better", "dB"),
    "reconstruction": MetricLabel("reconstruction loss", "lower is better"),
    "perceptual": MetricLabel("perceptual distance", "in a network's features; lower is better"),
    "usage": MetricLabel("codebook usage", "share of codes used by held-out images, from 0 to 1"),
    "perplexity": MetricLabel("perplexity", "effective number of equally frequent codes", "codes"),
    "dead": MetricLabel("dead codes", "never used by held-out images"),
    "nats": MetricLabel("nats per code", "lower is better"),
    "bits_per_pixel": MetricLabel("bits per pixel", "to store an image with this prior"),
    "flow_matching": MetricLabel("flow-matching loss", "held-out; lower is better, for the same latents"),
    "unigram": MetricLabel("unigram nats", "baseline: entropy of code frequencies"),
    "uniform": MetricLabel("uniform nats", "baseline: ln K"),
    "rate": MetricLabel("rate", "nats of an image's latents"),
    "active": MetricLabel("active channels", "share of latent channels with information"),
}

Rows = list[tuple[str, str]]


def label(name: str) -> MetricLabel:
    """Return the label of a logged metric, also of one grid; the plain name if it is unknown."""
    metric, _, grid = name.rpartition("/")[2].partition("_grid")
    if metric not in LABELS:
        return MetricLabel(name, "")
    known = LABELS[metric]
    return replace(known, title=f"{known.title}, grid {grid}") if grid else known


def headline(run: RunData) -> str:
    """Describe the run in a sentence."""
    source = settings(run, "data").get("source")
    if source is None and run.model:
        source = run.model.metadata.get("data")
    trained = f"A {run.stage} trained on {source}" if source else f"A {run.stage}"
    steps = steps_of(run)
    return f"{trained}, {steps}." if steps else f"{trained}."


def steps_of(run: RunData) -> str:
    """Describe the progress of the training."""
    wanted = settings(run, "trainer").get("max_steps")
    done = run.history.step if run.history else run.validation_results[0]
    if not done:
        return "no step logged yet"
    return f"{done:,} of {wanted:,} steps" if isinstance(wanted, int) else f"{done:,} steps"


def summary(run: RunData) -> dict[str, Rows]:
    """Return rows by heading."""
    sections = {"Data": data_rows(run)}
    if run.model:
        sections["Compressor"] = compressor_rows(run.model)
        if run.model.prior is not None:
            sections["Prior"] = prior_rows(run.model.prior)
    sections["Training"] = training_rows(run)
    return {heading: rows for heading, rows in sections.items() if rows}


def data_rows(run: RunData) -> Rows:
    """Describe source, split, size and classes of the images."""
    data = settings(run, "data")
    rows = [("source", str(data["source"]))] if "source" in data else []
    if run.data:
        split = run.data.split
        rows.append(("images", f"{len(split.training):,} for training, {len(split.validation):,} held out"))
    if run.model:
        channels, height, width = run.model.preprocessing.shape
        bits = run.model.preprocessing.bits
        rows.append(
            ("size", f"{height} x {width} pixels, {channels} channel{'s' * (channels > 1)} of {bits} bits")
        )
        classes = run.model.classes
        if classes:
            named = ", ".join(classes[:MAX_CLASSES]) + (", …" if len(classes) > MAX_CLASSES else "")
            rows.append(("classes", f"{len(classes):,}: {named}"))
    varied = flat(data.get("augmentation") or {})
    if varied:
        text = ", ".join(f"{name} {value}" for name, value in varied.items())
        rows.append(("augmentation", re.sub(r"\d+\.\d{4,}", lambda long: f"{float(long[0]):.4g}", text)))
    return rows


def compressor_rows(model: Model) -> Rows:
    """Describe parts, codes and size of the compressor."""
    rows = [("parts", parts(describe(model.compressor))), ("parameters", parameters(model.compressor))]
    layout = model.layout
    if isinstance(layout, CodeLayout):
        channels, height, width = model.preprocessing.shape
        bits = layout.bits
        ratio = channels * height * width * model.preprocessing.bits / bits if bits else 0
        places = " + ".join(f"{rows} x {columns}" for rows, columns in layout.grids)
        depth = f", {layout.depth} per position" if layout.depth > 1 else ""
        rows += [
            ("codes", f"{layout.length:,} per image ({places}{depth}), codebook of {layout.codebook_size:,}"),
            (
                "compression",
                f"{bits:,.0f} bits per image, {bits / height / width:.3g} per pixel, ratio {ratio:.3g}",
            ),
        ]
    else:
        rows.append(("latents", layout.representation))
    return [*rows, ("identity", identity(model)[:16])]


def prior_rows(prior: nn.Module) -> Rows:
    """Describe parts and shape of the prior."""
    described = describe(prior)
    backbone = {
        name: value for name, value in flat(described.get("backbone") or {}).items() if name != "class"
    }
    shape = ", ".join(f"{name} {backbone[name]}" for name in ("width", "depth", "heads") if name in backbone)
    rows = [("parts", parts(described)), ("parameters", parameters(prior))]
    return [*rows, ("shape", shape)] if shape else rows


def training_rows(run: RunData) -> Rows:
    """Describe steps, batch, optimizer and versions of the training."""
    rows = [("steps", steps_of(run))]
    data, model = settings(run, "data"), settings(run, "model")
    if "batch_size" in data:
        rows.append(("batch", f"{data['batch_size']} images per step"))
    if run.model:
        made = run.model.metadata
        if isinstance(made.get("images"), int) and isinstance(made.get("step"), int):
            rows.append(("saved model", f"step {made['step']:,}, after {made['images']:,} images"))
    rate = flat(model).get("optimization.learning_rate")
    if rate is not None:
        rows.append(("learning rate", str(rate)))
    for name in ("ema", "seed"):
        if name in model:
            rows.append((name, str(model[name])))
    if "precision" in settings(run, "trainer"):
        rows.append(("precision", str(settings(run, "trainer")["precision"])))
    torch = run.model.metadata.get("torch") if run.model else None
    versions = ([f"trained with torch {torch}"] if torch else []) + [
        f"reported by genstack {genstack.__version__}"
    ]
    return [*rows, ("versions", ", ".join(versions))]


def commands(run: RunData) -> list[tuple[str, str]]:
    """Return what each command does, and the command."""
    folder = shlex.quote(str(run.folder))
    found = []
    if run.config:
        config = shlex.quote(str(run.folder / "config.yaml"))
        name = shlex.quote(f"{run.name}-again")
        found.append(("train again", f"genstack train {run.stage} --config {config} --name {name}"))
        found.append(("resume if it was stopped", f"genstack train resume {folder}"))
    if run.model:
        found.append(("reconstruct held-out images", f"genstack reconstruct {folder}"))
        if run.model.can_sample:
            found.append(("sample", f"genstack sample {folder} --count 64 --seed 0 --out samples/"))
        found.append(("evaluate", f"genstack evaluate {folder}"))
    return [*found, ("make this page", f"genstack report {folder}")]


def settings(run: RunData, group: str) -> Mapping[str, Any]:
    """Return one group of a run's settings, or an empty mapping."""
    found = run.config.get(group) if run.config else None
    return found if isinstance(found, dict) else {}


def parts(described: Mapping[str, Any]) -> str:
    """Name the class of a part and of its own parts."""
    inner = [value["class"] for value in described.values() if isinstance(value, dict) and "class" in value]
    inner = [name for name in inner if name not in ("CodeLayout", "LatentLayout", "Pixels")]
    return f"{described['class']} of {', '.join(inner)}" if inner else str(described["class"])


def parameters(module: nn.Module) -> str:
    """Number of parameters."""
    return f"{sum(weight.numel() for weight in module.parameters()):,}"


def flat(settings: Mapping[str, Any]) -> dict[str, str]:
    """Return nested settings as text, by dotted names."""
    return dict(leaves(settings, ""))


def leaves(settings: Any, place: str) -> Iterator[tuple[str, str]]:
    """Yield the dotted name and the text of every nested value."""
    if not isinstance(settings, Mapping) or not settings:
        yield place, "none" if settings is None else str(settings)
        return
    for name, value in settings.items():
        yield from leaves(value, f"{place}.{name}" if place else str(name))
