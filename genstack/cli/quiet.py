"""Hide messages of libraries that a user cannot act on, and print warnings of genstack as one line."""

import logging
import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import genstack

#: Warnings to hide, as regular expressions.
WARNINGS = (
    "The '.*_dataloader' does not have many workers",  # Lightning; our loader chooses its workers
    "The number of training batches .* is smaller than the logging interval",  # Lightning
    "Be aware that when using `ckpt_path`, callbacks used",  # Lightning; a callback was taken out of a run
    "Checkpoint directory .* exists and is not empty",  # Lightning; a resumed run
    "You are using `torch.load` with `weights_only=False`",  # libraries loading their own files
    "Found .* module\\(s\\) in eval mode at the start of training",  # Lightning; averaged weights never train
    ".*pkg_resources is deprecated",  # Lightning's imports
    ".*isinstance\\(treespec, LeafSpec\\).* is deprecated",  # Lightning with a newer torch
    "`torch.jit..*` is deprecated",  # torchvision and lpips
    "`broadcast_buffers` is deprecated",  # DistributedDataParallel; its new name does more
)
#: Loggers to filter; a filter acts only on the logger itself, not on its parents.
LOGGERS = (
    "pytorch_lightning.utilities.rank_zero",
    "pytorch_lightning.trainer.connectors.checkpoint_connector",
    "lightning_fabric.utilities.rank_zero",
    "lightning_fabric.utilities.seed",
)
#: Log messages to hide, by prefix.
LINES = (
    "GPU available",
    "TPU available",
    "HPU available",
    "LOCAL_RANK",
    "💡 Tip",
    "Seed set to",
    "`Trainer(",
    "`Trainer.fit` stopped",
    "`weights_only` was not set",
    "Restoring states from the checkpoint",
    "Restored all states from the checkpoint",
)

_format = warnings.formatwarning


@contextmanager
def quiet() -> Iterator[None]:
    """Install the filters for a while, in this process and in workers that it starts."""
    os.environ.setdefault("JSONARGPARSE_DEPRECATION_WARNINGS", "off")
    before = warnings.formatwarning
    loggers = [logging.getLogger(name) for name in LOGGERS]
    added = [logger for logger in loggers if _is_wanted not in logger.filters]  # none in nested calls
    with warnings.catch_warnings():
        warnings.formatwarning = _format_warning  # `showwarning` would end the recording of warnings
        for message in WARNINGS:
            warnings.filterwarnings("ignore", message=message)
        for logger in added:
            logger.addFilter(_is_wanted)
        try:
            yield
        finally:
            warnings.formatwarning = before
            for logger in added:
                logger.removeFilter(_is_wanted)


def _format_warning(
    message: Warning | str, category: type[Warning], filename: str, lineno: int, line: str | None = None
) -> str:
    """Format a warning; genstack's own omit the source line."""
    if category is UserWarning and Path(filename).is_relative_to(Path(genstack.__file__).parent):
        return f"warning: {message}\n"
    return _format(message, category, filename, lineno, line)


def _is_wanted(record: logging.LogRecord) -> bool:
    return not record.getMessage().startswith(LINES)
