"""Extend a picture: sample around it."""

from pathlib import Path
from typing import Any

from genstack.web.job import Job
from genstack.web.runs import OpenRun
from genstack.web.samples import outpainting, steps_of_margins
from genstack.web.widgets.events import Values
from genstack.web.widgets.output import run_button
from genstack.web.widgets.pictures import PictureWidget, RunPage, preview
from genstack.web.widgets.sampling import SampleWidgets

TITLE = "Extend"
MOST = 2  # times the side of the model, on each side


def supports(run: OpenRun) -> bool:
    """Return True for models with a prior over one grid."""
    return run.has_model and run.model.prior is not None and len(run.model.layout.grids) == 1


def build(page: RunPage) -> None:
    """Place the widgets."""
    import gradio as gr

    run, space = page.run, page.space
    sizes, (down, across) = run.model.preprocessing, steps_of_margins(run.model)
    with gr.Row():
        with gr.Column(scale=2, min_width=280):
            picture = PictureWidget(page)
            image = preview(run, "The picture, as the model sees it")
            gr.Markdown("Pixels to add")
            sides = []
            for pair in ("above", "below"), ("left", "right"):
                with gr.Row():
                    for name in pair:
                        whole, step = (
                            (sizes.height, down) if name in ("above", "below") else (sizes.width, across)
                        )
                        first = whole // 2 // step * step if name == "right" else 0
                        sides.append(gr.Slider(0, MOST * whole, first, step=step, label=name, min_width=120))
            widgets = SampleWidgets(run.model, count=4)
        with gr.Column(scale=3, min_width=280):
            output = page.output(columns=2)

    def show(file: Path) -> dict[Any, Any]:
        return {image: str(file)}

    def job(values: Values) -> Job:
        file = picture.path(values)
        above, below, left, right = (int(values[side]) for side in sides)
        samples = widgets.job(run, space, values, file.parent.name, above, below, left, right)
        target = samples.folder / "picture.png"
        target.write_bytes(file.read_bytes())
        return outpainting(samples, target, (above, below, left, right))

    picture.on_choice(show, [image])
    with widgets.place:
        inputs = {picture.file, *sides, *widgets.widgets}
        run_button("Sample around the picture", [job], inputs, [output], space)
