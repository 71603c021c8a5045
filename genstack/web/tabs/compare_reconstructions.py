"""Compare reconstructions of a picture by two runs, side by side."""

from collections.abc import Iterator, Sequence
from functools import partial

from genstack.errors import UserError
from genstack.web.job import Job, new_folder
from genstack.web.reconstruction import PICTURE, Reconstruction
from genstack.web.runs import OpenRun
from genstack.web.widgets.events import QUEUED, Values
from genstack.web.widgets.output import run_button
from genstack.web.widgets.pair import RunPair
from genstack.web.widgets.pictures import preview
from genstack.web.workspace import Workspace, errors_as_messages

TITLE = "Compare reconstructions"


def supports(run: OpenRun) -> bool:
    """Return True for every model."""
    return run.has_model


def build(runs: Sequence[OpenRun], space: Workspace) -> None:
    """Place the widgets.

    Args:
        runs: at least two runs.
        space: folder of the pictures.
    """
    import gradio as gr

    pair = RunPair(runs)
    with gr.Row():
        with gr.Column(scale=2, min_width=280):
            upload = gr.UploadButton("Choose a picture", file_types=["image"], size="md")
            chosen, image = gr.State(), preview(runs[0], "The picture")
        with gr.Column(scale=3, min_width=280):
            place = gr.Column()
    pair.place_outputs()

    @errors_as_messages
    def show(file: str) -> Iterator[tuple[str, str]]:
        yield file, str(space.picture(runs[0].model, file))

    def job(number: int, values: Values) -> Job:
        run = pair.select(values)[number]
        if not values[chosen]:
            raise UserError("choose a picture first")
        file = space.picture(run.model, values[chosen])
        folder = new_folder(space.folder, "reconstruct", run.name, run.model.fingerprint, file.parent.name)
        source = folder / "source"
        source.mkdir(exist_ok=True)
        (source / PICTURE).write_bytes(file.read_bytes())
        return Reconstruction(run, folder, {"source": source, "count": 1})

    upload.upload(show, upload, [chosen, image], **QUEUED)
    with place:
        jobs = [partial(job, 0), partial(job, 1)]
        run_button("Reconstruct by both", jobs, {chosen, *pair.widgets}, pair.outputs, space)
