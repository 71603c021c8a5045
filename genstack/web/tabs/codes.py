"""See the codes of a picture, change some of them, and decode."""

from collections.abc import Iterator
from typing import Any

import numpy as np
from PIL import Image

from genstack.data.images import to_uint8
from genstack.data.sheet import tile
from genstack.layout import CodeLayout
from genstack.web.decoding import Decoding, cell_at, change_at, draw_grid, enlarged_size
from genstack.web.job import new_folder
from genstack.web.runs import OpenRun
from genstack.web.widgets.events import QUEUED, Values
from genstack.web.widgets.output import squares
from genstack.web.widgets.pictures import PictureWidget, RunPage
from genstack.web.workspace import errors_as_messages

TITLE = "Codes"
SIDE = 512  # pixels of the picture to choose in

Cell = tuple[int, int]


def supports(run: OpenRun) -> bool:
    """Return True for models with codes."""
    return run.has_model and run.model.compressor.has_codes


def build(page: RunPage) -> None:
    """Place the widgets."""
    import gradio as gr

    with gr.Row():
        with gr.Column(scale=2, min_width=280):
            widgets = CodeWidgets(page)
        with gr.Column(scale=3, min_width=280):
            widgets.place_output()

    @errors_as_messages
    def click(values: Values, event: gr.SelectData) -> Iterator[dict[Any, Any]]:
        yield widgets.show(values, widgets.cell(values, event.index))

    @errors_as_messages
    def put(values: Values, event: gr.SelectData) -> Iterator[dict[Any, Any]]:
        yield widgets.put(values, event.index)

    @errors_as_messages
    def refresh(values: Values) -> Iterator[dict[Any, Any]]:
        yield widgets.show(values, None) if values[widgets.picture.file] else {}

    widgets.picture.on_choice(lambda file: {widgets.changes: ""}, [widgets.changes])
    for event in (widgets.picture.file.change, widgets.grid.change, widgets.changes.submit):
        event(refresh, widgets.inputs, widgets.outputs, **QUEUED)
    widgets.canvas.select(click, widgets.inputs, widgets.outputs, **QUEUED)
    widgets.others.select(put, widgets.inputs, widgets.outputs, **QUEUED)


class CodeWidgets:
    """A picture to click in, the changes as words of the command, and the decoded picture."""

    def __init__(self, page: RunPage):
        import gradio as gr

        self.page, self.run, self.space = page, page.run, page.space
        grids = self.layout.grids
        self.picture = PictureWidget(page)
        self.grid = gr.Radio(
            [(f"{rows} x {columns}", number) for number, (rows, columns) in enumerate(grids)],
            value=len(grids) - 1,
            label="Grid of codes",
            visible=len(grids) > 1,
        )
        self.canvas = gr.Image(
            label="Click a code", interactive=False, type="numpy", elem_classes=["codes"], buttons=[]
        )
        self.about = gr.Markdown(f"A picture is {self.layout.representation}.")
        self.others = gr.Gallery(
            label="Other codes: click one to put it there",
            columns=6,
            fit_columns=False,
            buttons=[],
            height="auto",
            allow_preview=False,
            interactive=False,
            visible=False,
            elem_classes=[*squares(self.run.model), "choices"],
        )
        self.changes = gr.Textbox(
            label="Changes", info="POSITION=CODE, as in 12=7 40=3, then Enter; a click adds them", max_lines=4
        )
        self.chosen, self.symbols = gr.State(), gr.State([])

    def place_output(self) -> None:
        """Place the decoded picture and the table of its codes."""
        import gradio as gr

        self.output = self.page.output(columns=1, label="Decoded picture")
        with gr.Accordion("All codes", open=False):
            self.table = gr.Code(
                label="Codes", language=None, interactive=False, lines=1, show_line_numbers=False
            )

    @property
    def layout(self) -> CodeLayout:
        """Layout of the codes."""
        sizes = self.run.model.preprocessing
        return self.run.model.compressor.code_layout(sizes.height, sizes.width)

    @property
    def inputs(self) -> set[Any]:
        return {self.picture.file, self.grid, self.changes, self.chosen, self.symbols}

    @property
    def outputs(self) -> list[Any]:
        own = [self.canvas, self.about, self.others, self.changes, self.chosen, self.symbols, self.table]
        return [*own, *self.output.widgets]

    def words(self, values: Values) -> tuple[str, ...]:
        """The changes; a text that was never shown has no value."""
        return tuple((values[self.changes] or "").replace(",", " ").split())

    def job(self, values: Values) -> Decoding:
        """The picture decoded with the changes."""
        file, words = self.picture.path(values), self.words(values)
        parts = (self.run.name, self.run.model.fingerprint, words, file.parent.name)
        folder = new_folder(self.space.folder, "decode", *parts)
        target = folder / "picture.png"
        target.write_bytes(file.read_bytes())
        return Decoding(self.run, folder, {"change": words} if words else {}, (target,))

    def cell(self, values: Values, pixel: tuple[int, int]) -> Cell:
        """Row and column under a clicked pixel."""
        with Image.open(self.picture.path(values)) as image:
            size = enlarged_size(image, SIDE)
        return cell_at(self.layout.grids[values[self.grid]], size, (int(pixel[0]), int(pixel[1])))

    def put(self, values: Values, number: int) -> dict[Any, Any]:
        """Put one of the shown codes at the chosen cell."""
        cell = tuple(values[self.chosen])
        position = self.job(values).position(values[self.grid], *cell)
        words = change_at(self.words(values), position, values[self.symbols][number])
        text = " ".join(words)
        return {self.changes: text, **self.show({**values, self.changes: text}, cell)}

    def show(self, values: Values, cell: Cell | None) -> dict[Any, Any]:
        """Updates for the changes, and for a chosen cell."""
        import gradio as gr

        job, number = self.job(values), values[self.grid]
        (files,) = job.make(lambda progress: None)
        with Image.open(job.out) as image:
            canvas = np.asarray(draw_grid(image, self.layout.grids[number], cell, SIDE))
        updates = {self.canvas: canvas, self.chosen: cell, self.table: job.text()}
        updates |= self.output.show(job, files, done=True)
        if cell is None:
            about = f"A picture is {self.layout.representation}, {len(job.changes)} changed."
            return {**updates, self.about: about, self.others: gr.update(visible=False)}
        position = job.position(number, *cell)
        now = " ".join(map(str, job.code(position)))
        symbols, images = job.choices(number, *cell)
        pictures = [tile(pixels) for pixels in to_uint8(images).numpy()]
        names = [" ".join(map(str, each)) for each in symbols]
        others = gr.update(
            value=list(zip(pictures, names, strict=True)),
            visible=True,
            selected_index=names.index(now) if now in names else None,
        )
        about = f"Row {cell[0] + 1}, column {cell[1] + 1}: position {position}, code **{now}**."
        return {**updates, self.others: others, self.symbols: symbols, self.about: about}
