"""Image sheets of a run, written after each validation."""

from pathlib import Path

import PIL.Image
import pytorch_lightning as pl
import torch
from pytorch_lightning.loggers import Logger, TensorBoardLogger, WandbLogger

from genstack.data.images import write
from genstack.training.training import Training


class ImageLogger(pl.Callback):
    """Write `images/STEP.png` to the run folder, and charts as `images/NAME-STEP.png`.

    TensorBoard and wandb get the same pixels.

    Args:
        folder: run folder.
        count: images per sheet; 0 for none.
    """

    def __init__(self, folder: Path, count: int):
        self.folder, self.count = folder, count

    @torch.no_grad()
    def on_validation_end(self, trainer: pl.Trainer, training: pl.LightningModule) -> None:
        assert isinstance(training, Training)
        if self.count == 0 or not (trainer.is_global_zero or training.sharded):
            return
        pictures = {"": training.image_sheet(self.count)} | training.charts()
        for name, picture in pictures.items() if trainer.is_global_zero else ():
            file = "-".join(filter(None, (name, f"{trainer.global_step:08d}.png")))
            write(picture, self.folder / "images" / file)
            for logger in trainer.loggers:
                log_image(name or "images", picture, logger, trainer.global_step)


def log_image(name: str, picture: PIL.Image.Image, logger: Logger, step: int) -> None:
    """Log a picture to TensorBoard or wandb."""
    if isinstance(logger, WandbLogger):
        logger.log_image(name, [picture])
    if isinstance(logger, TensorBoardLogger):
        pixels = torch.frombuffer(bytearray(picture.convert("RGB").tobytes()), dtype=torch.uint8)
        sheet = pixels.reshape(picture.height, picture.width, 3)
        logger.experiment.add_image(name, sheet, step, dataformats="HWC")
