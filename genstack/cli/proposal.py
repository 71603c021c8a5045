"""Proposals for a source of pictures: resolution, recipes, and the size that fits pictures and machine."""

import gc
import re
import shlex
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

from genstack import plugins
from genstack.checkpoints.model_file import save
from genstack.cli.parsing.stages import STAGES, build_training
from genstack.data.source import Source
from genstack.errors import UserError
from genstack.model import Model
from genstack.training.estimate import Estimate, Memory, memory_errors, stop_at_once
from genstack.training.run import Run

#: Sides of images that are proposed.
RESOLUTIONS = (8, 16, 32, 64, 128, 256)
#: Fewest pictures for which a size is proposed; rules of thumb.
FEWEST = {"tiny": 0, "small": 5_000, "base": 100_000, "large": 1_000_000}
SAMPLED = 200  # pictures whose size is looked at
GENERATED = 64  # pixels of pictures that are drawn on demand
GRAY = ("1", "L", "LA", "I", "I;16", "F")  # modes of pictures without colours
STRIDE_RECIPES = 32  # pixels from which the recipes can halve the side three times
FEW_CODES = 256  # of one image, up to which a prior samples code after code
LARGEST_ON_CPU = 32  # pixels of images that a CPU learns within hours
STEPS_ON_CPU = "5000"


@dataclass(frozen=True)
class Survey:
    """Number, size and colours of pictures.

    Args:
        count: number of pictures.
        side: median of their shorter sides in pixels.
        gray: True if none has colours.
    """

    count: int
    side: int
    gray: bool


def survey(source: Source) -> Survey:
    """Look at some pictures, spread over all.

    Raises:
        UserError: none can be read.
    """
    found = []
    for number in range(0, len(source), max(1, len(source) // SAMPLED)):
        with suppress(UserError):
            found.append(source.info(number))
    if not found:
        raise UserError("no picture can be read; genstack data check lists why")
    side = median(min(info.height, info.width) or GENERATED for info in found)
    return Survey(len(source), int(side), all(info.mode in GRAY for info in found))


@dataclass(frozen=True)
class Cost:
    """Cost of the training of one stage.

    Args:
        stage: compressor or prior.
        weights: number of weights of the model.
        memory: peak memory.
        steps: steps of the training.
        seconds: seconds of a step; 0 if it does not fit into the memory.
    """

    stage: str
    weights: int
    memory: Memory
    steps: int
    seconds: float


@dataclass(frozen=True)
class Proposal:
    """Command lines of both stages for some pictures.

    Args:
        source: name of the source.
        pictures: what was seen of its pictures.
        size: name of a size.
        gpu: True if a GPU trains.
    """

    source: str
    pictures: Survey
    size: str
    gpu: bool

    @property
    def resolution(self) -> int:
        """Side of the images; most pictures are at least as large."""
        most = self.pictures.side if self.gpu else min(self.pictures.side, LARGEST_ON_CPU)
        return max((one for one in RESOLUTIONS if one <= most), default=RESOLUTIONS[0])

    @property
    def name(self) -> str:
        """Name of the compressor's run."""
        return re.sub(r"[^\w-]+", "-", Path(self.source).stem).strip("-") or "pictures"

    def compressor(self) -> list[str]:
        """Words after `genstack train compressor`."""
        small = self.resolution < STRIDE_RECIPES
        recipe = [
            "--config",
            "configs/demo/digits_compressor.yaml" if small else "vqgan",
            "--size",
            self.size,
        ]
        channels = ["--data.channels", "1" if self.pictures.gray else "3"] if small else []
        return [*recipe, *self.data, *channels, *self.steps, "--name", self.name]

    def prior(self, compressor: str = "") -> list[str]:
        """Words after `genstack train prior`, for the compressor's run or another place."""
        recipe = "autoregressive" if (self.resolution // 8) ** 2 <= FEW_CODES else "masked"
        if self.resolution < STRIDE_RECIPES:
            recipe = "configs/demo/digits_prior.yaml"
        below = ["--compressor", compressor or f"runs/{self.name}"]
        return [*below, "--config", recipe, "--size", self.size, *self.steps, "--name", f"{self.name}-prior"]

    @property
    def data(self) -> list[str]:
        """The pictures and their resolution."""
        return ["--data.source", self.source, "--data.resolution", str(self.resolution)]

    @property
    def steps(self) -> list[str]:
        """Steps on a CPU; on a GPU, the recipe's."""
        return [] if self.gpu else ["--trainer.max-steps", STEPS_ON_CPU]

    def commands(self) -> list[str]:
        """Both training commands."""
        stages = {"compressor": self.compressor(), "prior": self.prior()}
        return [
            f"genstack train {stage} {shlex.join(words)}{plugins.flags()}" for stage, words in stages.items()
        ]

    def costs(self) -> Iterator[Cost]:
        """Run steps of both stages, and yield what they cost, up to a stage that does not fit.

        Raises:
            OutOfMemory: the model and a few images do not fit into the memory.
        """
        estimate = self.estimate("compressor", self.compressor())
        yield (cost := measure("compressor", estimate))
        if not cost.memory.fits:
            return
        training = estimate.training
        model = Model(training.model, training.data.preprocessing, training.data.class_names)
        with TemporaryDirectory() as folder:
            save(model, Path(folder))
            del training, estimate, model
            estimate = self.estimate("prior", [*self.prior(folder), *self.data])
        yield measure("prior", estimate)

    def estimate(self, name: str, words: list[str]) -> Estimate:
        """Build the training of a command line, which is not run."""
        gc.collect()  # the training before
        stage = STAGES[name]
        with memory_errors(f"the weights of --size {self.size} do not fit into the memory"):
            parts, training = build_training(stage, stage.parse(words), Run(Path()))
        return Estimate(training, parts.trainer)


def measure(stage: str, estimate: Estimate) -> Cost:
    """Measure memory, and the time of a step if it fits."""
    weights = sum(parameter.numel() for parameter in estimate.training.model.parameters())
    with stop_at_once():
        memory = estimate.memory()
        seconds = estimate.seconds() if memory.fits else 0.0
    return Cost(stage, weights, memory, estimate.schedule.max_steps, seconds)
