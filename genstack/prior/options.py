"""Sampling options, and presets of them: built in, or saved in a run."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Any, Literal, get_args

from genstack.errors import UserError

Schedule = Literal["constant", "linear", "cosine", "power"]
Solver = Literal["default", "euler", "heun"]


@dataclass(frozen=True)
class SamplingOptions:
    """Sampling options.

    Args:
        temperature: divides the logits; 1 samples as learned, lower is safer, higher is more varied, 0 takes
            the likeliest code. Multiplies the noise of priors over latents.
        temperature_schedule: constant, or linear: the temperature falls to 0 at the last step of a masked
            prior.
        top_k: sample from the k likeliest codes; 0 for all.
        top_p: sample from the smallest set of codes with at least this probability; 1 for all.
        min_p: sample from codes with at least this share of the highest probability; 0 for all.
        guidance: scale s of classifier-free guidance, logits = null + s (conditional - null); 1 for none, 0
            ignores the condition.
        guidance_schedule: constant, or rise from 1 at the first codes to the scale at the last: linear,
            cosine, power (square of the progress).
        guidance_interval: part of sampling with guidance, from 0 (start) to 1 (end).
        guidance_power: exponent of the progress in the schedule cosine (arXiv:2303.14389).
        guidance_peak: when a rising schedule reaches its scale: last, at the last step; end, one step after
            it, as in RAR.
        steps: sampling steps of priors that can choose (masked, diffusion, flow matching); 0 for the prior's
            default.
        solver: solver of flow matching: euler (one pass per step), heun (two), or default: the prior's own.
    """

    temperature: float = 1.0
    temperature_schedule: Literal["constant", "linear"] = "constant"
    top_k: int = 0
    top_p: float = 1.0
    min_p: float = 0.0
    guidance: float = 1.0
    guidance_schedule: Schedule = "constant"
    guidance_interval: tuple[float, float] = (0.0, 1.0)
    guidance_power: float = 1.0
    guidance_peak: Literal["last", "end"] = "last"
    steps: int = 0
    solver: Solver = "default"

    def __post_init__(self) -> None:
        first, last = self.guidance_interval
        limits = {
            "temperature": (self.temperature >= 0, "at least 0"),
            "temperature_schedule": (
                self.temperature_schedule in ("constant", "linear"),
                "constant or linear",
            ),
            "top_k": (self.top_k >= 0, "at least 0 (0 keeps all codes)"),
            "top_p": (0 < self.top_p <= 1, "above 0 and at most 1"),
            "min_p": (0 <= self.min_p <= 1, "at least 0 and at most 1"),
            "guidance": (0 <= self.guidance < math.inf, "at least 0, and finite"),
            "guidance_schedule": (
                self.guidance_schedule in get_args(Schedule),
                f"one of {', '.join(get_args(Schedule))}",
            ),
            "guidance_interval": (0 <= first <= last <= 1, "two numbers from 0 to 1, the smaller first"),
            "guidance_power": (0 < self.guidance_power < math.inf, "above 0, and finite"),
            "guidance_peak": (self.guidance_peak in ("last", "end"), "last or end"),
            "steps": (self.steps >= 0, "at least 0 (0 for the prior's default)"),
            "solver": (self.solver in get_args(Solver), "default, euler or heun"),
        }
        for name, (valid, limit) in limits.items():
            if not valid:
                raise UserError(f"{name} must be {limit}, got {getattr(self, name)}")

    def at_progress(self, progress: float) -> "SamplingOptions":
        """Return the options at a progress, from 0 before the first step to 1 after the last."""
        if self.temperature_schedule == "constant":
            return self
        return replace(self, temperature=self.temperature * (1 - progress))

    def resolve_solver(self, default: str) -> str:
        """Return the solver, or the prior's own."""
        return default if self.solver == "default" else self.solver

    def progress(self, step: int, steps: int) -> float:
        """Share of sampling that is done before a step, by which guidance is scheduled."""
        return step / max(1, steps - 1 if self.guidance_peak == "last" else steps)

    def guidance_at(self, progress: float) -> float:
        """Guidance at a progress from 0 at the first codes to 1 at the last."""
        first, last = self.guidance_interval
        if not first <= progress <= last:
            return 1.0
        growth = {
            "constant": 1.0,
            "linear": progress,
            "cosine": (1 - math.cos(math.pi * progress**self.guidance_power)) / 2,
            "power": progress**2,
        }[self.guidance_schedule]
        return 1 + (self.guidance - 1) * growth


#: Presets of priors over codes: `fid` samples the learned distribution, as metrics expect; `pretty` trades
#: variety for fewer mistakes.
PRESETS: Mapping[str, Mapping[str, Any]] = {
    "fid": {},
    "pretty": {"temperature": 0.9, "top_p": 0.95, "guidance": 2.0},
}


def resolve_options(
    preset: str,
    given: Mapping[str, Any],
    saved: Mapping[str, Any],
    guided: bool,
    built_in: Mapping[str, Mapping[str, Any]] = PRESETS,
) -> SamplingOptions:
    """Combine a preset with options that are given.

    Args:
        preset: name of the preset; "" for the run's `default`, if it has one.
        given: options by name; None for options that are not given.
        saved: presets saved in the run, by name.
        guided: True if the prior supports guidance; otherwise, built-in presets leave it out.
        built_in: built-in presets of the prior.
    """
    preset = preset or ("default" if "default" in saved else "")
    values: dict[str, Any] = {name: value for name, value in given.items() if value is not None}
    try:
        if preset in saved:
            chosen = {
                name: tuple(value) if isinstance(value, list) else value
                for name, value in saved[preset].items()
            }
        elif preset in built_in:
            chosen = {name: value for name, value in built_in[preset].items() if guided or name != "guidance"}
        elif preset:
            raise UserError(
                f"unknown preset '{preset}'; available: {', '.join(dict.fromkeys([*saved, *built_in]))}"
            )
        else:
            chosen = {}
        return SamplingOptions(**{**chosen, **values})
    except (TypeError, AttributeError) as error:  # the file may hold anything
        known = ", ".join(field.name for field in fields(SamplingOptions))
        raise UserError(f"invalid preset '{preset}' in the run; expected some of {known}") from error
