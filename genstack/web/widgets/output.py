"""Pictures of a job with its command, and the button that makes them."""

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from genstack.model import Model
from genstack.prior.window import report_part
from genstack.report.picture import PIXELATED
from genstack.web.job import Job
from genstack.web.widgets.events import QUEUED, QUICK, Values
from genstack.web.workspace import Workspace, errors_as_messages


class Output:
    """Pictures of a job, its command and its lines of Python, and a button that saves all."""

    def __init__(self, model: Model, columns: int = 4, label: str = "Pictures"):
        import gradio as gr

        self.gallery = gr.Gallery(
            label=label,
            columns=columns,
            height="auto",
            object_fit="contain",
            elem_classes=[*squares(model), *["many"] * (columns > 2)],
            buttons=["download", "fullscreen"],
            interactive=False,
        )
        self.use = gr.Button("Use this picture in the other tabs", visible=False, size="sm")
        self.note = gr.Markdown(visible=False)
        with gr.Accordion("The same by command or in Python", open=False, visible=False) as self.same:
            self.files = gr.Markdown(visible=False)
            shared = {"interactive": False, "wrap_lines": True, "show_line_numbers": False, "lines": 1}
            self.command = gr.Code(language="shell", label="Command", **shared)
            self.python = gr.Code(language="python", label="Python", **shared)
        self.save = gr.DownloadButton("Save with settings (.zip)", visible=False, size="sm")

    @property
    def widgets(self) -> list[Any]:
        return [
            self.gallery,
            self.use,
            self.note,
            self.same,
            self.files,
            self.command,
            self.python,
            self.save,
        ]

    def hide_results(self) -> dict[Any, Any]:
        """Updates that hide the results of the previous job."""
        import gradio as gr

        hidden = gr.update(visible=False)
        return {self.gallery: [], **dict.fromkeys((self.use, self.note, self.same, self.save), hidden)}

    def show(self, job: Job, files: Sequence[Path], done: bool) -> dict[Any, Any]:
        """Updates with the files that exist."""
        import gradio as gr

        updates: dict[Any, Any] = {self.gallery: [(str(file), None) for file in files]}
        if done:
            updates |= {
                self.note: gr.update(value=job.note, visible=bool(job.note)),
                self.same: gr.update(visible=True),
                self.files: gr.update(
                    value=f"Unpack the .zip first: they read {', '.join(job.inputs)}.",
                    visible=bool(job.inputs),
                ),
                self.command: job.command,
                self.python: job.python,
                self.save: gr.update(value=str(job.archive()), visible=True),
            }
        return updates


def run_button(
    label: str,
    builds: Sequence[Callable[[Values], Job]],
    inputs: set[Any],
    outputs: Sequence[Output],
    space: Workspace,
) -> None:
    """Place a button that makes the pictures of jobs one after the other, and a button that stops them.

    Args:
        label: text of the button.
        builds: build each job from the values of the widgets.
        inputs: the widgets.
        outputs: show the pictures of each job.
        space: folder of the pictures.
    """
    import gradio as gr

    with gr.Row():
        start = gr.Button(label, variant="primary", scale=3, min_width=120)
        stop = gr.Button("Stop", scale=1, min_width=80)
    status = gr.HTML(elem_classes="status", padding=False)

    @errors_as_messages
    def make(
        values: Values, request: gr.Request, progress: gr.Progress = gr.Progress()
    ) -> Iterator[dict[Any, Any]]:
        jobs = [build(values) for build in builds]
        # each update repeats those before, since a browser may miss one that the next follows at once
        shown = {widget: update for output in outputs for widget, update in output.hide_results().items()}
        yield shown
        with space.request(str(request.session_hash), partial(progress, desc="sampling")) as report:
            for number, (job, output) in enumerate(zip(jobs, outputs, strict=True)):
                share = partial(report_part, report, number, len(jobs))
                share(0.0)
                files: list[Path] = []
                for files in job.make(share):
                    shown |= output.show(job, files, done=False)
                    yield shown
                shown |= output.show(job, files, done=True)
                yield shown

    def end(request: gr.Request) -> None:
        space.stop(str(request.session_hash))

    widgets = [status, *(widget for output in outputs for widget in output.widgets)]
    start.click(make, inputs, widgets, show_progress_on=status, **QUEUED)
    stop.click(end, None, None, **QUICK)


def squares(model: Model) -> list[str]:
    """Classes of the style of pictures: the pixels of small ones are squares."""
    small = max(model.preprocessing.height, model.preprocessing.width) < PIXELATED
    return ["pictures", "squares"] if small else ["pictures"]
