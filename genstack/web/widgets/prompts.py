"""The prompts that a model reads: classes, captions, a condition image or coordinates."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from genstack.model import Model
from genstack.web.widgets.events import Values

#: Options of a command from the value of a widget, and a folder for files.
Settings = Callable[[Any, Path], dict[str, Any]]


class PromptWidget:
    """Widget of the prompts that a model reads; none for an unconditional one."""

    def __init__(self, model: Model):
        self.kind = model.condition.modality.kind
        build: dict[str, Callable[[], tuple[Any, Settings]]] = {
            "classes": self._classes,
            "captions": self._captions,
            "condition images": self._images,
            "coordinates": self._coordinates,
            "": lambda: (None, lambda value, folder: {}),
        }
        self.model = model
        self.widget, self._settings = build[self.kind]()

    @property
    def widgets(self) -> set[Any]:
        """The widget, if there is one."""
        return set() if self.widget is None else {self.widget}

    def settings(self, values: Values, folder: Path) -> dict[str, Any]:
        """Options of `genstack sample` for the prompts; files are written into the folder."""
        value = values.get(self.widget)
        return self._settings(value, folder) if value else {}

    def _classes(self) -> tuple[Any, Settings]:
        import gradio as gr

        names = self.model.classes
        plain = [name and not name.startswith("#") and names.count(name) == 1 for name in names]
        choices = [
            (name, name if clear else f"#{number}")
            for number, (name, clear) in enumerate(zip(names, plain, strict=True))
        ]
        widget = gr.Dropdown(
            choices, multiselect=True, label="Classes", info="all in turn if you choose none"
        )
        return widget, lambda value, folder: {"classes": ",".join(value)}

    def _captions(self) -> tuple[Any, Settings]:
        import gradio as gr

        def settings(value: str, folder: Path) -> dict[str, Any]:
            lines = [line.strip() for line in value.splitlines() if line.strip()]
            if len(lines) < 2:
                return {"caption": lines[0]} if lines else {}
            (folder / "captions.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
            return {"captions": folder / "captions.txt"}

        widget = gr.Textbox(
            label="Caption", info="several lines are captions in turn", lines=2, placeholder="a red apple"
        )
        return widget, settings

    def _images(self) -> tuple[Any, Settings]:
        import gradio as gr

        def settings(value: str, folder: Path) -> dict[str, Any]:
            target = folder / "condition" / Path(value).name
            target.parent.mkdir(exist_ok=True)
            target.write_bytes(Path(value).read_bytes())
            return {"condition_images": target.parent}

        return gr.File(file_types=["image"], label="Condition image", height=140), settings

    def _coordinates(self) -> tuple[Any, Settings]:
        import gradio as gr

        widget = gr.Textbox(
            label="Coordinates", info="top,left,bottom,right as shares, as in 0,0,0.5,0.5 for a quarter"
        )
        return widget, lambda value, folder: {"coordinates": value}
