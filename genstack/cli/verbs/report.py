"""Write what a run is and how well it went as one HTML page, or several runs side by side.

genstack report runs/flowers
"""

import json
from pathlib import Path

from genstack.atomic import replacing
from genstack.checkpoints.model_file import TENSORS, load
from genstack.cli import verb
from genstack.cli.parsing.device import choose
from genstack.cli.parsing.place import about, is_run
from genstack.cli.parsing.stages import data_of
from genstack.cli.parsing.words import split
from genstack.data import ImageData
from genstack.errors import UserError
from genstack.evaluation.card import EVALUATION
from genstack.report import card, history
from genstack.report.absent import Absent, attempt
from genstack.report.page import comparison_page, run_page
from genstack.report.subject import Subject
from genstack.training.callbacks.metrics import METRICS
from genstack.training.run import CONFIG, Run

PAGE, COMPARISON = "report.html", "comparison.html"


def run(arguments: list[str]) -> int | None:
    """The verb; the words without a name are one value, the runs."""
    words = split(arguments)
    named = [f"--{name}" if value is None else f"--{name}={value}" for name, value in words.settings]
    runs = [f"--runs={json.dumps(words.positional)}"] if words.positional else []
    return verb.call(report, "genstack report", [*runs, *named])


def report(runs: list[str], out: str = "", samples: int = 40, seed: int = 0, device: str = "auto") -> None:
    """Write what a run is and how well it went as one HTML page, or several runs side by side.

    The page is one file that opens in any browser without a network: what was trained on what, curves,
    reconstructions with maps of their errors, codes, samples beside the nearest training images, the metric
    card of `genstack evaluate`, and the commands that do it all again. Name several runs to compare them.

    Args:
        runs: folder of a compressor's or a prior's run, or a published file; several, one after the other,
            for a comparison.
        out: HTML file; report.html in the run's folder if left out, FILE.report.html for a published file, or
            for several runs comparison.html here.
        samples: images that a prior draws for the page; 0 for none.
        seed: of the samples.
        device: auto, cpu, cuda or mps.
    """
    if samples < 0:
        raise UserError(f"samples {samples} is out of range; it must be at least 0")
    subjects = [subject(Path(folder), choose(device)) for folder in runs]
    if not subjects:
        raise UserError("genstack report: name a run: genstack report runs/flowers")
    one = len(subjects) == 1
    page = run_page(subjects[0], samples, seed) if one else comparison_page(subjects, samples, seed)
    place = Path(out) if out else about(subjects[0].folder, PAGE) if one else Path(COMPARISON)
    if place.is_dir():
        raise UserError(f"{place} is a folder; name a file for the page: --out {place / PAGE}")
    with replacing(place) as partial:
        partial.write_text(page, encoding="utf-8")
    print(f"{place} ({len(page.encode()) / 1e6:.1f} MB) opens in any browser")


def subject(folder: Path, device: str) -> Subject:
    """All that can be found out about a run.

    Raises:
        UserError: it is no run.
    """
    if not is_run(folder):
        return published(folder, device)
    model = (
        attempt(lambda: load(folder).to(device))
        if (folder / TENSORS).is_file()
        else Absent(f"There is no model yet ({TENSORS}): the run was stopped before its first validation.")
    )
    return Subject(
        folder=folder,
        config=attempt(Run(folder).config),
        history=history.read(folder / METRICS),
        model=model,
        data=attempt(lambda: opened(folder)),
        cards=card.cards(folder),
    )


def published(place: Path, device: str) -> Subject:
    """All that can be found out about a model that was not trained here.

    Raises:
        UserError: there is none.
    """
    strange = Absent(f"{place} was not trained here.")
    try:
        model = load(place).to(device)
    except UserError as error:
        raise UserError(f"{place} is no run: it has neither {CONFIG} nor {METRICS}, and {error}") from error
    return Subject(place, strange, strange, model, strange, card.cards(about(place, EVALUATION)))


def opened(folder: Path) -> ImageData:
    """The images that a run was trained on, looked up."""
    data = data_of(folder)
    data.split  # noqa: B018  # nothing is read before somebody asks
    return data
