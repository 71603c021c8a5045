"""Settings of `genstack sample`: prompts, number, seed and sampling options."""

from typing import Any

from genstack.errors import UserError
from genstack.model import Model
from genstack.web.job import new_folder
from genstack.web.offers import Offer, offers
from genstack.web.runs import OpenRun
from genstack.web.samples import MOST, Samples, option_settings, presets
from genstack.web.widgets.events import QUICK, Values
from genstack.web.widgets.prompts import PromptWidget
from genstack.web.workspace import Workspace


class SampleWidgets:
    """Widgets of prompts, number, seed and sampling options."""

    def __init__(self, model: Model, count: int):
        import gradio as gr

        self.prompts = PromptWidget(model)
        with gr.Row():
            self.count = gr.Number(count, label="Pictures", info=f"1 to {MOST}", min_width=80)
            self.seed = gr.Number(0, label="Seed", info="0 or more", min_width=80)
        self.place = gr.Column()  # of the button
        self.options = OptionWidgets(model)

    @property
    def widgets(self) -> set[Any]:
        return {self.count, self.seed, *self.prompts.widgets, *self.options.widgets}

    def job(self, run: OpenRun, space: Workspace, values: Values, *parts: Any) -> Samples:
        """Samples with the chosen settings, in a folder named by them and by `parts`."""
        numbers = {
            "count": whole_number("Pictures", values[self.count]),
            "seed": whole_number("Seed", values[self.seed]),
        }
        options = self.options.settings(values, run.model)
        prompt = values.get(self.prompts.widget)
        fingerprint = run.model.fingerprint
        folder = new_folder(space.folder, "sample", run.name, fingerprint, numbers, options, prompt, *parts)
        settings = {**self.prompts.settings(values, folder), **numbers, **options}
        return Samples(run, folder, settings)

    def check_prompt(self, run: OpenRun, values: Values) -> None:
        """Raise a UserError if there is a prompt that another run cannot read."""
        kind, other = self.prompts.kind, run.model.condition.modality.kind
        if kind != other and values.get(self.prompts.widget):
            reads = f"reads {other}" if other else "has no prompts"
            raise UserError(f"the run {run.name} {reads}: leave {kind} empty, or choose another run")


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
        if isinstance(default, int):
            return whole_number(name.replace("_", " "), value)
        if not isinstance(default, tuple):
            return type(default)(value)
        return tuple(parse_numbers(value, len(default), name))

    def _widget(self, offer: Offer) -> Any:
        import gradio as gr

        shared = {"value": as_text(offer.default), "label": offer.label}
        if offer.choices:
            return gr.Dropdown(offer.choices, info=offer.words, **shared)
        if offer.ends:
            return gr.Slider(*offer.ends, step=0.01, **shared)
        if isinstance(offer.default, tuple):
            return gr.Textbox(info=offer.words, **shared)
        return gr.Number(info=offer.words, **shared)


def whole_number(name: str, value: float | None) -> int:
    """Return a number of a widget, which may have a fraction or be empty.

    Raises:
        UserError: it is empty or not whole.
    """
    if value is None or value != int(value):
        raise UserError(f"{name} must be a whole number, got {'nothing' if value is None else value}")
    return int(value)


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
