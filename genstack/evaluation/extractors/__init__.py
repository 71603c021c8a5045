"""Networks whose features two sets of images are compared in, one file each."""

from collections.abc import Sequence

import torch

from genstack.discovery import discover
from genstack.errors import UserError
from genstack.evaluation.extractor import Extractor


def available(device: torch.device | str) -> tuple[Sequence[Extractor], dict[str, str]]:
    """The extractors whose weights are on this machine; of the others, why they are not and what helps."""
    import genstack.evaluation.extractors as package

    found, missing = [], {}
    for kind in discover(package, Extractor).values():  # type: ignore[type-abstract]
        try:
            found.append(kind(device))
        except UserError as error:
            missing[kind.distance] = str(error)
    return found, missing
