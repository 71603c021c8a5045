"""Sample new pictures by class or caption."""

from genstack.web.runs import OpenRun
from genstack.web.widgets.output import run_button
from genstack.web.widgets.pictures import RunPage
from genstack.web.widgets.sampling import SampleWidgets

TITLE = "Sample"


def supports(run: OpenRun) -> bool:
    """Return True for models that sample."""
    return run.has_model and run.model.can_sample


def build(page: RunPage) -> None:
    """Place the widgets."""
    import gradio as gr

    run, space = page.run, page.space
    with gr.Row():
        with gr.Column(scale=2, min_width=280):
            widgets = SampleWidgets(run.model, count=8)
        with gr.Column(scale=3, min_width=280):
            output = page.output()
    with widgets.place:
        run_button(
            "Sample", [lambda values: widgets.job(run, space, values)], widgets.widgets, [output], space
        )
