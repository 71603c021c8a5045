"""The page: a tab for each task; with several runs, these tabs for each run, and comparisons."""

from collections.abc import Sequence
from types import ModuleType
from typing import Any

import genstack
from genstack.web.runs import OpenRun
from genstack.web.tabs import (
    codes,
    compare_reconstructions,
    compare_samples,
    extend,
    inpaint,
    interpolate,
    sample,
    training,
)
from genstack.web.widgets.pictures import RunPage
from genstack.web.workspace import Workspace

TABS: tuple[ModuleType, ...] = (sample, inpaint, extend, interpolate, codes, training)
COMPARISONS: tuple[ModuleType, ...] = (compare_samples, compare_reconstructions)
STYLE = """
.gradio-container { width: 100%; max-width: 76rem !important; margin: 0 auto; }
.squares img { image-rendering: pixelated; width: 100%; height: 100%; object-fit: contain; }
.preview img { height: 12.5rem; margin-top: 2.2rem; object-fit: contain; }
.status { min-height: 0 !important; }
.status:has([data-testid=status-tracker]:not(.hide)) { min-height: 3.5rem !important; }
.cm-editor, .pictures .grid-wrap { height: auto !important; max-height: none !important; }
.cm-editor, .pictures .grid-wrap { min-height: 0 !important; }
.pictures .grid-wrap { padding-top: 2.2rem; }
.codes img { cursor: crosshair; }
.choices .grid-container { grid-template-columns: repeat(auto-fill, minmax(4rem, 1fr)) !important; }
@media (max-width: 40rem) {
  .many .grid-container { grid-template-columns: repeat(auto-fill, minmax(5rem, 1fr)) !important; }
}
footer { display: none !important; }
"""


def page(runs: Sequence[OpenRun], space: Workspace) -> Any:
    """Build the page."""
    import gradio as gr

    one = len(runs) == 1
    with gr.Blocks(title="genstack", analytics_enabled=False, fill_width=True) as blocks:
        gr.Markdown(f"# {runs[0].name if one else 'genstack'}")
        if one:
            place_run(runs[0], space)
        else:
            with gr.Tabs():
                for title, run in zip(titles(runs), runs, strict=True):
                    with gr.Tab(title):
                        place_run(run, space)
                for comparison in COMPARISONS:
                    chosen = [run for run in runs if comparison.supports(run)]
                    if len(chosen) > 1:
                        with gr.Tab(comparison.TITLE):
                            comparison.build(chosen, space)
        gr.HTML(f"<small>genstack {genstack.__version__}</small>")
    return blocks


def titles(runs: Sequence[OpenRun]) -> list[str]:
    """Names of the folders of runs, or their paths if two have the same name."""
    names = [run.place.name for run in runs]
    return [run.name if names.count(name) > 1 else name for name, run in zip(names, runs, strict=True)]


def place_run(run: OpenRun, space: Workspace) -> None:
    """Place the tabs of a run."""
    import gradio as gr

    own = RunPage(run, space)
    with gr.Tabs():
        for tab in TABS:
            if tab.supports(run):
                with gr.Tab(tab.TITLE):
                    tab.build(own)
    own.connect()
