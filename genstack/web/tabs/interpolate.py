"""Move from one picture to another, through the latents."""

from functools import partial
from pathlib import Path
from typing import Any

from genstack.web.interpolation import MOST, Interpolation
from genstack.web.job import Job, new_folder
from genstack.web.runs import OpenRun
from genstack.web.widgets.events import Values
from genstack.web.widgets.output import run_button
from genstack.web.widgets.pictures import PictureWidget, RunPage, preview

TITLE = "Interpolate"
NAMES = ("first", "last")


def supports(run: OpenRun) -> bool:
    """Return True for every model."""
    return run.has_model


def show(image: Any, file: Path) -> dict[Any, Any]:
    """Show the file of a picture in a widget."""
    return {image: str(file)}


def build(page: RunPage) -> None:
    """Place the widgets."""
    import gradio as gr

    run, space = page.run, page.space
    ends: dict[str, PictureWidget] = {}
    with gr.Row():
        with gr.Column(scale=2, min_width=280):
            with gr.Row():
                for name in NAMES:
                    with gr.Column(min_width=130):
                        ends[name] = PictureWidget(page, f"Choose the {name}")
                        image = preview(run, f"The {name} picture")
                        ends[name].on_choice(partial(show, image), [image], other_tabs=name == NAMES[0])
            count = gr.Slider(2, MOST, value=12, step=1, label="Pictures, both ends included")
            place = gr.Column()
        with gr.Column(scale=3, min_width=280):
            output = page.output()

    def job(values: Values) -> Job:
        files = [ends[name].path(values) for name in NAMES]
        number = int(values[count])
        names = [file.parent.name for file in files]
        folder = new_folder(space.folder, "interpolate", run.name, run.model.fingerprint, number, *names)
        places = tuple(folder / f"{name}.png" for name in NAMES)
        for file, target in zip(files, places, strict=True):
            target.write_bytes(file.read_bytes())
        return Interpolation(run, folder, {"count": number}, places)

    with place:
        inputs = {count, *(end.file for end in ends.values())}
        run_button("Move between them", [job], inputs, [output], space)
