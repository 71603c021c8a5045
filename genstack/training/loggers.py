"""Optional loggers beside `metrics.jsonl`: TensorBoard and wandb."""

import secrets
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pytorch_lightning.loggers import Logger, TensorBoardLogger, WandbLogger
from pytorch_lightning.utilities.rank_zero import rank_zero_only

from genstack.errors import UserError
from genstack.yaml_files import read_yaml

WANDB_ID = "wandb_id"


@dataclass(frozen=True)
class Logging:
    """Loggers besides `metrics.jsonl` and `images/` in the run folder.

    Args:
        wandb: off, offline (kept in the run folder, for `wandb sync`) or online.
        wandb_project: project of the run at wandb.
        tensorboard: write TensorBoard files to the run folder.
        images: images per sheet after validation; 0 for no sheets.
    """

    wandb: Literal["off", "offline", "online"] = "off"
    wandb_project: str = "genstack"
    tensorboard: bool = False
    images: int = 32

    def __post_init__(self) -> None:
        if self.images < 0:
            raise UserError(f"images {self.images} is out of range; it must be at least 0")

    def loggers(self, folder: Path) -> list[Logger]:
        """Build the loggers of a run."""
        loggers: list[Logger] = []
        if self.tensorboard:
            loggers.append(TensorBoardLogger(folder, name="", version="tensorboard"))
        if self.wandb != "off":
            loggers.append(
                WandbLogger(
                    name=folder.name,
                    id=wandb_identifier(folder),
                    project=self.wandb_project,
                    save_dir=folder,
                    offline=self.wandb == "offline",
                    resume="allow",
                    config=read_yaml(folder / "config.yaml"),
                )
            )
        return loggers


@rank_zero_only
def wandb_identifier(folder: Path) -> str:
    """Return the run's id at wandb, saved before wandb starts so that a killed run keeps its id."""
    path = folder / WANDB_ID
    if not path.exists():
        path.write_text(secrets.token_hex(4) + "\n")
    return path.read_text().strip()
