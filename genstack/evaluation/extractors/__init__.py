"""Feature extractors, one file each."""

from collections.abc import Sequence

import torch

from genstack.discovery import discover
from genstack.errors import UserError
from genstack.evaluation.extractor import Extractor


def available_extractors(device: torch.device | str) -> tuple[Sequence[Extractor], dict[str, str]]:
    """Return the extractors whose weights are on this machine, and why the others are missing."""
    import genstack.evaluation.extractors as package

    found, missing = [], {}
    for kind in discover(package, Extractor).values():  # type: ignore[type-abstract]
        try:
            found.append(kind(device))
        except UserError as error:
            missing[kind.frechet] = str(error)
    return found, missing
