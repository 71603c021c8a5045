"""Widgets that several tabs share: prompts, sampling options, pictures, and results with their commands."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from genstack.errors import UserError
from genstack.model import Model
from genstack.prior.window import report_part
from genstack.report.picture import PIXELATED
from genstack.web.job import Job, new_folder
from genstack.web.offers import Offer, offers
from genstack.web.runs import OpenRun
from genstack.web.samples import MOST, Samples, option_settings, presets
from genstack.web.workspace import Workspace, errors_as_messages

#: Values of widgets, by widget.
Values = Mapping[Any, Any]
#: Options of a command from the value of a widget, and a folder for files.
Settings = Callable[[Any, Path], dict[str, Any]]
#: Events that compute share one queue, since they share the machine.
QUEUED: dict[str, Any] = {"concurrency_id": "model", "concurrency_limit": 1, "api_visibility": "private"}
QUICK: dict[str, Any] = {"queue": False, "api_visibility": "private"}


class PromptWidget:
    """Widget of the prompts that a model reads; none for an unconditional one."""

    def __init__(self, model: Model):
        kind = model.condition.modality.kind
        build: dict[str, Callable[[], tuple[Any, Settings]]] = {
            "classes": self._classes,
            "captions": self._captions,
            "condition images": self._images,
            "coordinates": self._coordinates,
            "": lambda: (None, lambda value, folder: {}),
        }
        self.model = model
        self.widget, self._settings = build[kind]()

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


class OptionWidgets:
    """Widgets of the sampling options that a model supports."""

    def __init__(self, model: Model):
        import gradio as gr

        self.model, first = model, "default" if "default" in model.presets else "as trained"
        named = [(name or first, name) for name in presets(model) if name != "default"]
        with gr.Accordion("Sampling options", open=False):
            self.preset = gr.Dropdown(named, value="", label="Preset")
            self.options = {offer.name: self._widget(offer) for offer in offers(model)}
        self.preset.change(self._values, self.preset, list(self.options.values()), **QUICK)

    @property
    def widgets(self) -> set[Any]:
        return {self.preset, *self.options.values()}

    def settings(self, values: Values, model: Model) -> dict[str, Any]:
        """Options of `genstack sample` with a model, which may be another one."""
        chosen = {name: self._value(name, values[widget]) for name, widget in self.options.items()}
        return option_settings(model, values[self.preset] or "", chosen)

    def _values(self, preset: str) -> list[Any]:
        options = self.model.options(preset or "")
        found = [as_text(getattr(options, name)) for name in self.options]
        return found if len(found) > 1 else found[0]

    def _value(self, name: str, value: Any) -> Any:
        """Value of an option, whose widget may hold it as text."""
        default = getattr(self.model.options(), name)
        if value is None:
            return None
        if not isinstance(default, tuple):
            return type(default)(value)
        return tuple(parse_numbers(value, len(default), name))

    def _widget(self, offer: Offer) -> Any:
        import gradio as gr

        shared = {"value": as_text(offer.default), "label": offer.label}
        if offer.choices:
            named = [(choice or "as trained", choice) for choice in offer.choices]
            return gr.Dropdown(named, info=offer.words, **shared)
        if offer.ends:
            return gr.Slider(*offer.ends, step=0.01, **shared)
        if isinstance(offer.default, tuple):
            return gr.Textbox(info=offer.words, **shared)
        whole = isinstance(offer.default, int)
        return gr.Number(precision=0 if whole else None, minimum=0, info=offer.words, **shared)


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


def squares(model: Model) -> list[str]:
    """Classes of the style of pictures: the pixels of small ones are squares."""
    small = max(model.preprocessing.height, model.preprocessing.width) < PIXELATED
    return ["pictures", "squares"] if small else ["pictures"]


class SampleWidgets:
    """Widgets of prompts, number, seed and sampling options."""

    def __init__(self, model: Model, count: int):
        import gradio as gr

        self.prompts = PromptWidget(model)
        with gr.Row():
            self.count = gr.Number(
                count, label="Pictures", precision=0, minimum=1, maximum=MOST, min_width=80
            )
            self.seed = gr.Number(0, label="Seed", precision=0, minimum=0, min_width=80)
        self.place = gr.Column()  # of the button
        self.options = OptionWidgets(model)

    @property
    def widgets(self) -> set[Any]:
        return {self.count, self.seed, *self.prompts.widgets, *self.options.widgets}

    def job(self, run: OpenRun, space: Workspace, values: Values, *parts: Any) -> Samples:
        """Samples with the chosen settings, in a folder named by them and by `parts`."""
        numbers = {"count": values[self.count], "seed": values[self.seed]}
        absent = [name for name, value in numbers.items() if value is None]
        if absent:
            raise UserError(f"{absent[0]} is empty; expected a number")
        options = self.options.settings(values, run.model)
        prompt = values.get(self.prompts.widget)
        fingerprint = run.model.fingerprint
        folder = new_folder(space.folder, "sample", run.name, fingerprint, numbers, options, prompt, *parts)
        settings = {**self.prompts.settings(values, folder), **numbers, **options}
        return Samples(run, folder, settings)


class Output:
    """Pictures of a job, its progress, its command and its lines of Python, and a button that saves all."""

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
            shared = {"interactive": False, "wrap_lines": True, "show_line_numbers": False, "lines": 1}
            self.command = gr.Code(language="shell", label="Command", **shared)
            self.python = gr.Code(language="python", label="Python", **shared)
        self.save = gr.DownloadButton("Save with settings (.zip)", visible=False, size="sm")

    @property
    def widgets(self) -> list[Any]:
        return [self.gallery, self.use, self.note, self.same, self.command, self.python, self.save]

    def waiting(self) -> dict[Any, Any]:
        """Updates before a job: nothing is shown of the one before."""
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
        yield {widget: update for output in outputs for widget, update in output.waiting().items()}
        with space.request(str(request.session_hash), partial(progress, desc="sampling")) as report:
            for number, (job, output) in enumerate(zip(jobs, outputs, strict=True)):
                share = partial(report_part, report, number, len(jobs))
                share(0.0)
                files: list[Path] = []
                for files in job.make(share):
                    yield output.show(job, files, done=False)
                yield output.show(job, files, done=True)

    def end(request: gr.Request) -> None:
        space.stop(str(request.session_hash))

    widgets = [status, *(widget for output in outputs for widget in output.widgets)]
    start.click(make, inputs, widgets, show_progress_on=status, **QUEUED)
    stop.click(end, None, None, **QUICK)


def as_text(value: Any) -> Any:
    """Value of a widget: several numbers as one text."""
    return ", ".join(f"{one:g}" for one in value) if isinstance(value, tuple) else value


def parse_numbers(text: str, count: int, name: str) -> list[float]:
    """Read numbers separated by commas."""
    try:
        found = [float(word) for word in str(text).split(",")]
    except ValueError:
        found = []
    if len(found) != count:
        raise UserError(f"invalid {name.replace('_', ' ')} '{text}'; expected {count} numbers, as in 0,1")
    return found
