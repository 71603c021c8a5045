"""Follow a training: curves, sheets of images and codebook usage, while it runs."""

from html import escape
from typing import Any

from genstack.report.page import training_page
from genstack.web.runs import OpenRun
from genstack.web.widgets.events import QUICK
from genstack.web.widgets.pictures import RunPage

TITLE = "Training"
SECONDS = 5  # between two looks


def supports(run: OpenRun) -> bool:
    """Return True for runs that were trained here."""
    return run.trained_here


def build(page: RunPage) -> None:
    """Place the widgets."""
    import gradio as gr

    shown = gr.State("")
    frame = gr.HTML(lambda: embed(training_page(page.run.training())), padding=False)

    def look(before: str) -> tuple[Any, Any]:
        """Draw the page if the training has logged more."""
        now = page.run.training_stamp()
        if now == before:
            return gr.skip(), gr.skip()
        return now, embed(training_page(page.run.training()))

    timer = gr.Timer(SECONDS)
    timer.tick(look, shown, [shown, frame], show_progress="hidden", **QUICK)


def embed(page: str) -> str:
    """A page within the page, as high as it is."""
    fit = "this.style.height = this.contentDocument.body.scrollHeight + 'px'"
    return (
        f'<iframe title="training" srcdoc="{escape(page)}" onload="new ResizeObserver(() => {fit})'
        f'.observe(this)" style="width: 100%; height: 90vh; border: 0"></iframe>'
    )
