"""Where numbers go: always `metrics.jsonl`; TensorBoard and wandb by choice."""

import json
import math
import secrets
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pytorch_lightning.loggers import Logger, TensorBoardLogger, WandbLogger
from pytorch_lightning.utilities.rank_zero import rank_zero_only

METRICS = "metrics.jsonl"
WANDB_ID = "wandb_id"


class MetricsFile(Logger):
    """One JSON object per line: `step`, then numbers by name. Resuming drops the steps that it will redo.

    Args:
        path: the file.
        resumed_at: the step that the run continues from; later lines belong to steps that will be redone.
    """

    def __init__(self, path: Path, resumed_at: int):
        super().__init__()
        self.path = path
        self.keep_until(resumed_at)

    @rank_zero_only
    def keep_until(self, step: int) -> None:
        """Drop lines after a step, and a last line that was cut off."""
        kept = []
        if self.path.exists():
            for line in self.path.read_text(encoding="utf-8").splitlines(keepends=True):
                if line.endswith("\n") and json.loads(line)["step"] <= step:
                    kept.append(line)
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self.path.write_text("".join(kept), encoding="utf-8")

    @property
    def name(self) -> str:
        return "metrics"

    @property
    def version(self) -> str:
        return ""

    def log_hyperparams(self, *args: Any, **kwargs: Any) -> None:
        """The run's config.yaml has them."""

    @rank_zero_only
    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        numbers = {name: value for name, value in metrics.items() if name != "epoch"}
        line = {"step": step} | {
            name: value if math.isfinite(value) else str(value) for name, value in numbers.items()
        }
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")


@dataclass(frozen=True)
class Logging:
    """Where numbers and pictures go, beside `metrics.jsonl` and `images/` in the run folder.

    Args:
        wandb: "off", "offline" (kept in the run folder, for `wandb sync`) or "online".
        wandb_project: project that wandb files the run under.
        tensorboard: write TensorBoard files into the run folder.
        images: images on each sheet that is written after validation; 0 for no sheets.
    """

    wandb: Literal["off", "offline", "online"] = "off"
    wandb_project: str = "genstack"
    tensorboard: bool = False
    images: int = 32

    def loggers(self, folder: Path, resumed_at: int) -> list[Logger]:
        """The loggers of a run that begins or continues at a step."""
        loggers: list[Logger] = [MetricsFile(folder / METRICS, resumed_at)]
        if self.tensorboard:
            loggers.append(TensorBoardLogger(folder, name="", version="tensorboard"))
        if self.wandb != "off":
            identifier = wandb_identifier(folder)
            loggers.append(
                WandbLogger(
                    name=folder.name,
                    id=identifier,
                    project=self.wandb_project,
                    save_dir=folder,
                    offline=self.wandb == "offline",
                    resume="allow",
                )
            )
        return loggers


def wandb_identifier(folder: Path) -> str:
    """The run's id at wandb, written before wandb starts so that a killed run resumes as the same one."""
    path = folder / WANDB_ID
    if not path.exists():
        path.write_text(secrets.token_hex(4) + "\n")
    return path.read_text().strip()
