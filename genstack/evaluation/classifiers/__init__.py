"""Kinds of classifiers that a user can give, one file each; the name of what is given says which it is."""

from collections.abc import Sequence
from pathlib import Path

import torch

from genstack.data import ImageData
from genstack.errors import UserError
from genstack.evaluation.classifier import Classifier
from genstack.evaluation.classifiers.exemplars import Exemplars
from genstack.evaluation.classifiers.program import RUNNERS, Program
from genstack.evaluation.extractor import Extractor


def given(
    name: str,
    classes: Sequence[str],
    data: ImageData,
    extractors: Sequence[Extractor],
    device: torch.device | str,
) -> Classifier:
    """The classifier that lies somewhere.

    Args:
        name: a folder with a folder of pictures for each class, or a file of torch.export or ONNX.
        classes: those of a file that does not name its own.
        data: the images that will be judged.
        extractors: networks whose features pictures can be compared in.
        device: of the networks.

    Raises:
        UserError: there is nothing of either kind, or it reads no classes.
    """
    path = Path(name).expanduser()
    if path.is_dir():
        return Exemplars(path, data, extractors)
    if not path.is_file() or path.suffix not in RUNNERS:
        raise UserError(
            f"classifier {name} is no {' or '.join(RUNNERS)} file and no folder; give a network that was "
            "exported by torch.export or ONNX, or a folder with a folder of pictures for each class"
        )
    return Program(path, classes, device)
