"""Compare samples of two runs with the same prompts, options and seeds, side by side."""

from collections.abc import Sequence
from functools import partial
from typing import Any

from genstack.web.job import Job
from genstack.web.runs import OpenRun
from genstack.web.widgets.events import QUICK, Values
from genstack.web.widgets.output import run_button
from genstack.web.widgets.pair import RunPair
from genstack.web.widgets.sampling import SampleWidgets
from genstack.web.workspace import Workspace

TITLE = "Compare samples"


def supports(run: OpenRun) -> bool:
    """Return True for models that sample."""
    return run.has_model and run.model.can_sample


def build(runs: Sequence[OpenRun], space: Workspace) -> None:
    """Place the widgets.

    Args:
        runs: at least two runs that sample.
        space: folder of the pictures.
    """
    import gradio as gr

    pair = RunPair(runs)
    groups: list[gr.Column] = []
    widgets: list[SampleWidgets] = []
    for number, run in enumerate(runs):
        with gr.Column(visible=number == 0) as group:
            groups.append(group)
            widgets.append(SampleWidgets(run.model, count=4))
    place = gr.Column()
    pair.place_outputs()

    def job(number: int, values: Values) -> Job:
        selected = pair.select(values)
        prompts = widgets[runs.index(selected[0])]
        prompts.check_prompt(selected[1], values)
        return prompts.job(selected[number], space, values)

    def show(name: str) -> list[Any]:
        return [gr.update(visible=run.name == name) for run in runs]

    pair.chosen[0].change(show, pair.chosen[0], groups, **QUICK)
    inputs = pair.widgets.union(*(each.widgets for each in widgets))
    with place:
        run_button("Sample both", [partial(job, 0), partial(job, 1)], inputs, pair.outputs, space)
