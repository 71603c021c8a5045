"""The device to run on, from a word of the command line."""

import torch

from genstack.errors import UserError


def choose(device: str, local: int = 0) -> str:
    """The device to run on; with several processes on one machine, each has its own."""
    if device == "auto":
        if torch.cuda.is_available():
            return f"cuda:{local % torch.cuda.device_count()}"
        return "mps" if torch.backends.mps.is_available() else "cpu"
    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:  # unknown, or this torch was built without it
        raise UserError(f"device {device} is not there; use auto, cpu, cuda or mps") from error
    return device
