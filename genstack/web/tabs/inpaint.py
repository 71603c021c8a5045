"""Paint over a part of a picture, which is sampled anew."""

from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from genstack.errors import UserError
from genstack.web.job import Job
from genstack.web.runs import OpenRun
from genstack.web.samples import inpainting, write_mask
from genstack.web.widgets.events import Values
from genstack.web.widgets.output import run_button, squares
from genstack.web.widgets.pictures import PictureWidget, RunPage
from genstack.web.widgets.sampling import SampleWidgets

TITLE = "Inpaint"
SIDE = 512  # pixels of the picture to paint on


def supports(run: OpenRun) -> bool:
    """Return True for models with a prior."""
    return run.has_model and run.model.prior is not None


def build(page: RunPage) -> None:
    """Place the widgets."""
    import gradio as gr

    run, space = page.run, page.space
    with gr.Row():
        with gr.Column(scale=2, min_width=280):
            picture = PictureWidget(page)
            gr.Markdown("Paint over the part to sample anew.")
            editor = gr.ImageEditor(
                show_label=False,
                sources=(),
                transforms=(),
                layers=False,
                brush=gr.Brush(default_size=SIDE // 10, colors=["#e8590c"], color_mode="fixed"),
                eraser=gr.Eraser(default_size=SIDE // 10),
                canvas_size=(SIDE, SIDE),
                format="png",
                elem_classes=squares(run.model),
            )
            widgets = SampleWidgets(run.model, count=4)
        with gr.Column(scale=3, min_width=280):
            output = page.output()

    def show(file: Path) -> dict[Any, Any]:
        background = enlarge(file)
        return {editor: {"background": background, "layers": [], "composite": background}}

    def job(values: Values) -> Job:
        file, paint = picture.path(values), paint_opacity(values[editor])
        samples = widgets.job(run, space, values, file.parent.name, paint.tobytes())
        image, mask = samples.folder / "picture.png", samples.folder / "mask.png"
        image.write_bytes(file.read_bytes())
        write_mask(paint, run.model.preprocessing, mask)
        return inpainting(samples, image, mask)

    picture.on_choice(show, [editor])
    with widgets.place:
        inputs = {picture.file, editor, *widgets.widgets}
        run_button("Sample the painted part", [job], inputs, [output], space)


def enlarge(file: Path) -> np.ndarray:
    """A picture with about SIDE pixels, to paint on."""
    with Image.open(file) as image:
        factor = max(1, SIDE // max(image.size))
        size = (image.width * factor, image.height * factor)
        return np.asarray(image.convert("RGB").resize(size, Image.Resampling.NEAREST))


def paint_opacity(edited: Any) -> np.ndarray:
    """Opacity of the paint of an editor."""
    layers = (edited or {}).get("layers") or []
    if not layers:
        raise UserError("nothing is painted: paint over the part of the picture to sample anew")
    return np.stack([np.asarray(layer)[..., 3] for layer in layers]).max(axis=0)
