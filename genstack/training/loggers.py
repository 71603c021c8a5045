"""Where numbers go beside `metrics.jsonl`: TensorBoard and wandb, by choice."""

import secrets
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pytorch_lightning.loggers import Logger, TensorBoardLogger, WandbLogger

WANDB_ID = "wandb_id"


@dataclass(frozen=True)
class Logging:
    """Where numbers and pictures go, beside `metrics.jsonl` and `images/` in the run folder.

    Args:
        wandb: off, offline (kept in the run folder, for `wandb sync`) or online.
        wandb_project: project that wandb files the run under.
        tensorboard: write TensorBoard files into the run folder.
        images: images on each sheet that is written after validation; 0 for no sheets.
    """

    wandb: Literal["off", "offline", "online"] = "off"
    wandb_project: str = "genstack"
    tensorboard: bool = False
    images: int = 32

    def loggers(self, folder: Path) -> list[Logger]:
        """The loggers of a run."""
        loggers: list[Logger] = []
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
