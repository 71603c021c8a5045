"""Lightning callbacks: checkpoints, metrics, pictures, progress, and those of users."""

from abc import ABC

import pytorch_lightning as pl


class UserCallback(pl.Callback, ABC):
    """A Lightning callback that settings can name: `--trainer.callbacks`. Subclass it in a plugin."""
