"""Sample new pictures by class or caption."""

from genstack.web.controls import Output, SampleWidgets, run_button
from genstack.web.runs import OpenRun
from genstack.web.workspace import Workspace

TITLE = "Sample"


def offered(run: OpenRun) -> bool:
    """Return True for models that sample."""
    return run.has_model and run.model.can_sample


def build(run: OpenRun, space: Workspace) -> None:
    """Place the widgets."""
    import gradio as gr

    with gr.Row():
        with gr.Column(scale=2, min_width=280):
            widgets = SampleWidgets(run.model, count=8)
        with gr.Column(scale=3, min_width=280):
            output = Output(run.model)
    with widgets.place:
        run_button(
            "Sample", [lambda values: widgets.job(run, space, values)], widgets.widgets, [output], space
        )
