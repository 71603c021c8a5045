"""Pictures of a user, and their way from one tab of a run to the others."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from genstack.errors import UserError
from genstack.web.runs import OpenRun
from genstack.web.widgets.events import QUEUED, QUICK, Values
from genstack.web.widgets.output import Output, squares
from genstack.web.workspace import Workspace, errors_as_messages


@dataclass
class RunPage:
    """A run on the page, and the widgets of its tabs that hold pictures.

    Args:
        run: the run.
        space: folder of the pictures.
        pictures: widgets that take a picture.
        outputs: widgets that show pictures.
    """

    run: OpenRun
    space: Workspace
    pictures: "list[PictureWidget]" = field(default_factory=list)
    outputs: "list[Output]" = field(default_factory=list)

    def output(self, columns: int = 4, label: str = "Pictures") -> "Output":
        """Place the widgets of a result, whose pictures can be used in other tabs."""
        self.outputs.append(Output(self.run.model, columns, label))
        return self.outputs[-1]

    def connect(self) -> None:
        """Let each picture that is shown be used in all tabs."""
        import gradio as gr

        def choose(event: gr.SelectData) -> tuple[str, Any]:
            return event.value["image"]["path"], gr.update(visible=True)

        @errors_as_messages
        def use(chosen: str) -> Iterator[dict[Any, Any]]:
            file = self.space.picture(self.run.model, chosen)
            yield {widget: update for one in self.pictures for widget, update in one.updates(file).items()}
            gr.Info("The picture is in the other tabs.", duration=4)

        widgets = [widget for one in self.pictures for widget in (one.file, *one.widgets)]
        for output in self.outputs:
            chosen = gr.State()
            output.gallery.select(choose, None, [chosen, output.use], **QUICK)
            output.use.click(use, chosen, widgets, **QUEUED)


class PictureWidget:
    """A button that uploads a picture, which is shown as the model sees it."""

    def __init__(self, page: RunPage, label: str = "Choose a picture"):
        import gradio as gr

        self.page = page
        self.upload = gr.UploadButton(label, file_types=["image"], size="md")
        self.file = gr.State()

    def path(self, values: Values) -> Path:
        """The picture.

        Raises:
            UserError: none was chosen.
        """
        if not values[self.file]:
            raise UserError("choose a picture first")
        return Path(values[self.file])

    def on_choice(
        self, show: Callable[[Path], dict[Any, Any]], shown: Sequence[Any], other_tabs: bool = True
    ) -> None:
        """Show a picture once it is chosen.

        Args:
            show: returns the updates of widgets for the file of a picture.
            shown: the widgets.
            other_tabs: take pictures of other tabs, too.
        """
        self.show, self.widgets = show, list(shown)
        self.page.pictures += [self] * other_tabs

        @errors_as_messages
        def take(upload: str) -> Iterator[dict[Any, Any]]:
            yield self.updates(self.page.space.picture(self.page.run.model, upload))

        self.upload.upload(take, self.upload, [self.file, *self.widgets], **QUEUED)

    def updates(self, file: Path) -> dict[Any, Any]:
        """Updates that choose the file of a picture."""
        return {self.file: str(file), **self.show(file)}


def preview(run: OpenRun, label: str) -> Any:
    """A picture that is only shown."""
    import gradio as gr

    return gr.Image(
        label=label,
        interactive=False,
        type="filepath",
        height=240,
        elem_classes=[*squares(run.model), "preview"],
        buttons=["download"],
    )
