"""Compare two runs: samples with the same prompts, options and seeds, side by side."""

from collections.abc import Sequence
from functools import partial
from typing import Any

from genstack.errors import UserError
from genstack.web.controls import QUICK, Output, SampleWidgets, Values, run_button
from genstack.web.job import Job
from genstack.web.runs import OpenRun
from genstack.web.workspace import Workspace

TITLE = "Compare"


def build(runs: Sequence[OpenRun], space: Workspace) -> None:
    """Place the widgets.

    Args:
        runs: at least two runs that sample.
        space: folder of the pictures.
    """
    import gradio as gr

    names = [run.name for run in runs]
    with gr.Row():
        chosen = [
            gr.Dropdown(names, value=name, label=label)
            for name, label in zip(names[:2], ("Run", "and"), strict=True)
        ]
    groups: list[gr.Column] = []
    widgets: list[SampleWidgets] = []
    for number, run in enumerate(runs):
        with gr.Column(visible=number == 0) as group:
            groups.append(group)
            widgets.append(SampleWidgets(run.model, count=4))
    place = gr.Column()
    with gr.Row():
        outputs = []
        for run in runs[:2]:
            with gr.Column(min_width=280):
                outputs.append(Output(run.model, columns=2, label=run.name))

    def job(number: int, values: Values) -> Job:
        first, other = (runs[names.index(values[widget])] for widget in chosen)
        if first is other:
            raise UserError("choose two different runs to compare")
        return widgets[runs.index(first)].job((first, other)[number], space, values)

    def show(name: str) -> list[Any]:
        return [gr.update(visible=run.name == name) for run in runs]

    chosen[0].change(show, chosen[0], groups, **QUICK)
    for widget, output in zip(chosen, outputs, strict=True):
        widget.change(lambda name: gr.update(label=name, value=[]), widget, output.gallery, **QUICK)
    inputs = {*chosen, *(one for each in widgets for one in each.widgets)}
    with place:
        run_button("Sample both", [partial(job, 0), partial(job, 1)], inputs, outputs, space)
