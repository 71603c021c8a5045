"""The device to run on, and a check that it computes what the CPU computes."""

import warnings
from copy import deepcopy

import torch

from genstack.compressor.networks.convolutional import Convolutional
from genstack.errors import UserError

TOLERANCE = 0.01  # of the largest value; TF32 and the order of sums stay well below


def choose_device(device: str, local: int = 0) -> str:
    """Choose the device to run on; processes of one machine take different GPUs.

    On an Apple GPU, a small decoder is compared with the CPU: some releases of torch compute wrong images
    there without an error.
    """
    chosen = find_device(device, local)
    if torch.device(chosen).type == "mps" and (far := deviation(chosen)) > TOLERANCE:
        warnings.warn(
            f"{chosen} and the CPU decode differently, by {far:.1%} of the largest value: do not trust its "
            f"images; use --device cpu, or another release of torch",
            stacklevel=2,
        )
    return chosen


def find_device(device: str, local: int) -> str:
    """Resolve the name of a device, or raise a UserError; `auto` is the fastest one."""
    if device == "auto":
        if torch.cuda.is_available():
            return f"cuda:{local % torch.cuda.device_count()}"
        return "mps" if torch.backends.mps.is_available() else "cpu"
    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:  # unknown, or this torch was built without it
        raise UserError(f"device '{device}' is not available; use auto, cpu, cuda or mps") from error
    return device


@torch.inference_mode()
def deviation(device: str) -> float:
    """Return the largest relative difference between a small decoder's outputs on a device and the CPU."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        decoder = Convolutional(8, 32, (1, 2), attention=()).decoder(3)
        latents = torch.randn(1, decoder.dim, 5, 6)
    here = decoder(latents, (10, 12))
    there = deepcopy(decoder).to(device)(latents.to(device), (10, 12)).cpu()
    return float((there - here).abs().max() / here.abs().max())
