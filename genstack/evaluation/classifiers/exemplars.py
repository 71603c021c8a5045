"""Pictures of each class, and a vote of those nearest in the features of a network (Cover & Hart 1967)."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from genstack.data import ImageData
from genstack.errors import UserError
from genstack.evaluation.classifier import Classifier
from genstack.evaluation.extractor import Extractor
from genstack.evaluation.neighbours import Neighbours
from genstack.evaluation.reference import Reference

VOTES = 5
BATCH = 32  # pictures looked at in one go


class Exemplars(Classifier):
    """A folder of pictures for each class.

    Args:
        path: of the folder of folders.
        data: the images that will be judged; pictures are cropped and scaled alike.
        extractors: networks; the first one is used.
    """

    def __init__(self, path: Path, data: ImageData, extractors: Sequence[Extractor]):
        if not extractors:
            raise UserError(
                f"classifier {path} is a folder of pictures, which needs the features of a network; "
                "`genstack weights` says how to have one"
            )
        alike = ImageData.for_model(data.preprocessing, str(path), "folder")
        pictures = Reference(alike, "all")
        self.path, self.classes, self.count = path, alike.class_names, len(pictures)
        if len(self.classes) < 2 or self.count < VOTES:
            raise UserError(
                f"classifier {path} has {self.count} pictures of {len(self.classes)} classes; give {VOTES} "
                "pictures and more, in a folder for each of two classes and more"
            )
        self.extractor = extractors[0]
        features, labels = [], []
        for first in range(0, self.count, BATCH):
            batch = pictures.batch(range(first, min(first + BATCH, self.count)))
            features.append(self.extractor(batch.images).features)
            labels.append(batch.labels)
        self.neighbours = Neighbours(torch.cat(features), torch.cat(labels), VOTES)

    @property
    def told(self) -> dict[str, Any]:
        return {
            "pictures": str(self.path),
            "count": self.count,
            "classes": list(self.classes),
            "by": f"{VOTES} nearest neighbours in the features of {self.extractor.known_as}",
        }

    def __call__(self, images: Float[Tensor, "b c H W"]) -> Int[Tensor, " b"]:
        return self.neighbours.read(self.extractor(images).features)
