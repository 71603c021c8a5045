"""Follow a training: curves, sheets of images and codebook usage, while it runs."""

from html import escape
from typing import Any

from genstack.report.page import training_page
from genstack.web.controls import QUICK
from genstack.web.runs import OpenRun
from genstack.web.workspace import Workspace

TITLE = "Training"
SECONDS = 5  # between two looks


def offered(run: OpenRun) -> bool:
    """Return True for runs that were trained here."""
    return run.trained_here


def build(run: OpenRun, space: Workspace) -> None:
    """Place the widgets."""
    import gradio as gr

    shown = gr.State("")
    page = gr.HTML(padding=False)

    def look(before: str) -> tuple[Any, Any]:
        """Draw the page if the training has logged more."""
        now = run.training_stamp()
        if now == before:
            return gr.skip(), gr.skip()
        return now, frame(training_page(run.training()))

    timer = gr.Timer(SECONDS)
    timer.tick(look, shown, [shown, page], show_progress="hidden", **QUICK)


def frame(page: str) -> str:
    """A page within the page, as high as it is."""
    fit = "this.style.height = this.contentDocument.documentElement.scrollHeight + 'px'"
    return (
        f'<iframe title="training" srcdoc="{escape(page)}" onload="{fit}" '
        f'style="width: 100%; height: 90vh; border: 0"></iframe>'
    )
