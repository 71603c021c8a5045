"""Pictures of a run as it trains, written after every validation."""

from pathlib import Path

import PIL.Image
import pytorch_lightning as pl
import torch
from pytorch_lightning.loggers import Logger, TensorBoardLogger, WandbLogger

from genstack.data.images import write
from genstack.training.training import Training


class Pictures(pl.Callback):
    """Writes `images/STEP.png` into the run folder, and charts beside it as `images/NAME-STEP.png`.

    TensorBoard and wandb are handed the same pixels.

    Args:
        folder: of the run.
        count: images on a sheet; 0 for no pictures.
    """

    def __init__(self, folder: Path, count: int):
        self.folder, self.count = folder, count

    @torch.no_grad()
    def on_validation_end(self, trainer: pl.Trainer, training: pl.LightningModule) -> None:
        assert isinstance(training, Training)
        if self.count == 0 or not (trainer.is_global_zero or training.sharded):
            return
        pictures = {"": training.picture(self.count)} | training.charts()
        for name, picture in pictures.items() if trainer.is_global_zero else ():
            file = "-".join(filter(None, (name, f"{trainer.global_step:08d}.png")))
            write(picture, self.folder / "images" / file)
            for logger in trainer.loggers:
                hand_on(name or "images", picture, logger, trainer.global_step)


def hand_on(name: str, picture: PIL.Image.Image, logger: Logger, step: int) -> None:
    """Give a picture to a logger that shows pictures."""
    if isinstance(logger, WandbLogger):
        logger.log_image(name, [picture])
    if isinstance(logger, TensorBoardLogger):
        pixels = torch.frombuffer(bytearray(picture.convert("RGB").tobytes()), dtype=torch.uint8)
        sheet = pixels.reshape(picture.height, picture.width, 3)
        logger.experiment.add_image(name, sheet, step, dataformats="HWC")
