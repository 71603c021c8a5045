"""Two runs to compare, and the pictures of each side by side."""

from collections.abc import Sequence
from typing import Any

from genstack.errors import UserError
from genstack.web.runs import OpenRun
from genstack.web.widgets.events import QUICK, Values
from genstack.web.widgets.output import Output


class RunPair:
    """Widgets that choose two runs, and an output for each.

    Args:
        runs: at least two runs to choose from.
    """

    def __init__(self, runs: Sequence[OpenRun]):
        import gradio as gr

        self.runs, self.names = runs, [run.name for run in runs]
        with gr.Row():
            self.chosen = [
                gr.Dropdown(self.names, value=name, label=label)
                for name, label in zip(self.names[:2], ("Run", "and"), strict=True)
            ]

    def place_outputs(self) -> None:
        """Place the pictures; choosing another run removes the pictures of the previous one."""
        import gradio as gr

        self.outputs: list[Output] = []
        with gr.Row():
            for run in self.runs[:2]:
                with gr.Column(min_width=280):
                    self.outputs.append(Output(run.model, columns=2, label=run.name))
        for widget, output in zip(self.chosen, self.outputs, strict=True):
            widget.change(lambda name: gr.update(label=name, value=[]), widget, output.gallery, **QUICK)

    def select(self, values: Values) -> tuple[OpenRun, OpenRun]:
        """Return the two selected runs.

        Raises:
            UserError: they are the same.
        """
        first, other = (self.runs[self.names.index(values[widget])] for widget in self.chosen)
        if first is other:
            raise UserError("choose two different runs to compare")
        return first, other

    @property
    def widgets(self) -> set[Any]:
        return set(self.chosen)
