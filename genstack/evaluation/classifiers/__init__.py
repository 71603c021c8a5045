"""Kinds of classifiers that a user can provide, one file each."""

from collections.abc import Sequence
from pathlib import Path

import torch

from genstack.data import ImageData
from genstack.errors import UserError
from genstack.evaluation.classifier import Classifier
from genstack.evaluation.classifiers.exported import RUNNERS, ExportedClassifier
from genstack.evaluation.classifiers.nearest import NearestClassifier
from genstack.evaluation.extractor import Extractor


def load_classifier(
    name: str,
    classes: Sequence[str],
    data: ImageData,
    extractors: Sequence[Extractor],
    device: torch.device | str,
) -> Classifier:
    """Load a classifier.

    Args:
        name: a folder with one folder of images per class, or a file of torch.export or ONNX.
        classes: class names for a file without its own.
        data: the images to classify.
        extractors: networks for comparing images.
        device: device of the network.

    Raises:
        UserError: not found, or invalid.
    """
    path = Path(name).expanduser()
    if path.is_dir():
        return NearestClassifier(path, data, extractors)
    if not path.is_file() or path.suffix not in RUNNERS:
        raise UserError(
            f"invalid classifier {name}: expected a {' or '.join(RUNNERS)} file, or a folder with one folder "
            "of images per class"
        )
    return ExportedClassifier(path, classes, device)
