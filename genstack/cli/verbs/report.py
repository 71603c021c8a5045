"""Write a report of a run as one HTML page, or of several runs side by side.

genstack report runs/flowers
"""

from pathlib import Path

from genstack.atomic import atomic_path
from genstack.checkpoints.model_file import TENSORS, load
from genstack.cli.parsing.device import choose_device
from genstack.cli.parsing.paths import Place, is_run, path_beside
from genstack.cli.parsing.stages import run_data
from genstack.data import ImageData
from genstack.errors import UserError
from genstack.evaluation.card import EVALUATION
from genstack.report import history
from genstack.report.missing import Missing, attempt
from genstack.report.page import comparison_page, run_page
from genstack.report.run_data import RunData, read_cards
from genstack.training.files import CONFIG, METRICS
from genstack.training.run import Run

PAGE, COMPARISON = "report.html", "comparison.html"


def report(
    runs: list[Place], out: Place = "", samples: int = 40, seed: int = 0, device: str = "auto"
) -> None:
    """Write a report of a run as one HTML page, or of several runs side by side.

    The page is one file that opens in any browser, offline: model and data, curves, reconstructions with
    error maps, code usage, samples beside the nearest training images, the metrics of `genstack evaluate`,
    and the commands that reproduce the run. Name several runs to compare them.

    Args:
        runs: run folders or published files; several for a comparison.
        out: HTML file; by default report.html in the run folder, FILE.report.html for a published file, and
            comparison.html for several runs.
        samples: number of images to sample from a prior; 0 for none.
        seed: seed of the samples.
        device: auto, cpu, cuda or mps.
    """
    if samples < 0:
        raise UserError(f"samples must be at least 0, got {samples}")
    found = [load_run(Path(folder), choose_device(device)) for folder in runs]
    if not found:
        raise UserError("RUNS is missing; expected a run: genstack report runs/flowers")
    one = len(found) == 1
    place = Path(out) if out else path_beside(found[0].folder, PAGE) if one else Path(COMPARISON)
    if place.is_dir():
        raise UserError(f"--out {place} is a folder; expected a file, such as {place / PAGE}")
    if place.is_file() and not place.read_bytes()[:100].lower().startswith(b"<!doctype html>"):
        raise UserError(f"{place} exists, and is no HTML page; choose another --out")
    page = run_page(found[0], samples, seed) if one else comparison_page(found, samples, seed)
    with atomic_path(place) as partial:
        partial.write_text(page, encoding="utf-8")
    print(f"{place} ({len(page.encode()) / 1e6:.1f} MB) opens in any browser")


def load_run(folder: Path, device: str) -> RunData:
    """Load everything that a run folder or a published file holds."""
    if not is_run(folder):
        return load_published(folder, device)
    model = (
        attempt(lambda: load(folder).to(device))
        if (folder / TENSORS).is_file()
        else Missing(f"There is no model yet ({TENSORS}): the run stopped before its first validation.")
    )
    return RunData(
        folder=folder,
        config=attempt(Run(folder).config),
        history=history.read(folder / METRICS),
        model=model,
        data=attempt(lambda: open_data(folder)),
        cards=read_cards(folder),
    )


def load_published(place: Path, device: str) -> RunData:
    """Load everything that a published file holds."""
    unknown = Missing(f"{place} was not trained here.")
    try:
        model = load(place).to(device)
    except UserError as error:
        raise UserError(
            f"{place} is not a run: it has neither {CONFIG} nor {METRICS}, and {error}"
        ) from error
    return RunData(place, unknown, unknown, model, unknown, read_cards(path_beside(place, EVALUATION)))


def open_data(folder: Path) -> ImageData:
    """Open and list the images that a run was trained on."""
    data = run_data(folder)
    data.split  # noqa: B018  # listing is lazy; its errors belong here
    return data
