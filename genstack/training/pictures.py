"""Pictures of a run as it trains, written after every validation."""

from pathlib import Path

import pytorch_lightning as pl
import torch
from pytorch_lightning.loggers import TensorBoardLogger, WandbLogger

from genstack.atomic import replacing
from genstack.training.training import Training


class Pictures(pl.Callback):
    """Writes `images/STEP.png` into the run folder, and hands the same pixels to TensorBoard and wandb.

    Args:
        folder: of the run.
        count: images on a sheet; 0 for no sheets.
    """

    def __init__(self, folder: Path, count: int):
        self.folder, self.count = folder, count

    @torch.no_grad()
    def on_validation_end(self, trainer: pl.Trainer, training: pl.LightningModule) -> None:
        assert isinstance(training, Training)
        if self.count == 0 or not trainer.is_global_zero:
            return
        picture = training.picture(self.count)
        with replacing(self.folder / "images" / f"{trainer.global_step:08d}.png") as path:
            picture.save(path, format="PNG")
        for logger in trainer.loggers:
            if isinstance(logger, WandbLogger):
                logger.log_image("images", [picture])
            if isinstance(logger, TensorBoardLogger):
                pixels = torch.frombuffer(bytearray(picture.convert("RGB").tobytes()), dtype=torch.uint8)
                sheet = pixels.reshape(picture.height, picture.width, 3)
                logger.experiment.add_image("images", sheet, trainer.global_step, dataformats="HWC")
