"""A clean terminal: advertisements and hints of libraries that a user can do nothing about, by name."""

import logging
import os
import warnings
from pathlib import Path

import genstack

#: Beginnings of warnings, as regular expressions, and where they come from.
WARNINGS = (
    "The '.*_dataloader' does not have many workers",  # Lightning; our loader chose its workers
    "The number of training batches .* is smaller than the logging interval",  # Lightning
    "Checkpoint directory .* exists and is not empty",  # Lightning; a resumed run
    "You are using `torch.load` with `weights_only=False`",  # libraries loading their own files
    "Found .* module\\(s\\) in eval mode at the start of training",  # Lightning; averaged weights never train
    ".*pkg_resources is deprecated",  # Lightning's imports
    ".*isinstance\\(treespec, LeafSpec\\).* is deprecated",  # Lightning with a newer torch
    "`torch.jit..*` is deprecated",  # torchvision and lpips
    "`broadcast_buffers` is deprecated",  # DistributedDataParallel; its new name does more
)
#: Who logs lines that nobody needs; a filter works on the very logger that is written to.
LOGGERS = (
    "pytorch_lightning.utilities.rank_zero",
    "pytorch_lightning.trainer.connectors.checkpoint_connector",
    "lightning_fabric.utilities.rank_zero",
    "lightning_fabric.utilities.seed",
)
#: Beginnings of log lines.
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


_whole = warnings.formatwarning


def quiet() -> None:
    """Silence them, for this process and the workers that it starts; everything else still speaks.

    What genstack itself warns of is for the user, and takes one line without a place in the source.
    """
    warnings.formatwarning = _line
    os.environ.setdefault("JSONARGPARSE_DEPRECATION_WARNINGS", "off")
    for message in WARNINGS:
        warnings.filterwarnings("ignore", message=message)
    for name in LOGGERS:
        logging.getLogger(name).addFilter(_unwanted)


def _line(
    message: Warning | str, category: type[Warning], filename: str, lineno: int, line: str | None = None
) -> str:
    """A warning as it is printed."""
    if category is UserWarning and Path(filename).is_relative_to(Path(genstack.__file__).parent):
        return f"warning: {message}\n"
    return _whole(message, category, filename, lineno, line)


def _unwanted(record: logging.LogRecord) -> bool:
    return not record.getMessage().startswith(LINES)
