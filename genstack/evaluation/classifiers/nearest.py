"""A k-nearest-neighbour classifier over example images (Cover & Hart 1967), in a network's features."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from jaxtyping import Float, Int
from torch import Tensor

from genstack.data import ImageData
from genstack.errors import UserError
from genstack.evaluation.classifier import Classifier
from genstack.evaluation.extractor import Extractor
from genstack.evaluation.measure import measure_set
from genstack.evaluation.metrics.neighbours import vote
from genstack.evaluation.reference import ReferenceSet

NEIGHBOURS = 5
BATCH_SIZE = 32


class NearestClassifier(Classifier):
    """A folder of example images per class.

    Args:
        path: folder of folders.
        data: the images to classify; examples are cropped and scaled alike.
        extractors: networks; the first is used.
    """

    def __init__(self, path: Path, data: ImageData, extractors: Sequence[Extractor]):
        if not extractors:
            raise UserError(
                f"classifier {path} is a folder of images, which needs the features of a network; "
                "run `genstack weights` to see how to get one"
            )
        examples = ReferenceSet(ImageData.for_model(data.preprocessing, str(path), "folder"), "all")
        self.path, self.classes, self.count = path, examples.data.class_names, len(examples)
        if len(self.classes) < 2 or self.count < NEIGHBOURS:
            raise UserError(
                f"classifier {path} has {self.count} images of {len(self.classes)} classes; expected at "
                f"least {NEIGHBOURS} images and 2 classes"
            )
        self.extractor = extractors[0]
        measured = measure_set(examples, extractors[:1], BATCH_SIZE)
        self.vectors, self.labels = measured.features[self.extractor.name].vectors, measured.labels

    @property
    def metadata(self) -> dict[str, Any]:
        return {
            "folder": str(self.path),
            "count": self.count,
            "classes": list(self.classes),
            "method": f"{NEIGHBOURS} nearest neighbours in the features of {self.extractor.name}",
        }

    def __call__(self, images: Float[Tensor, "b c H W"]) -> Int[Tensor, " b"]:
        return vote(self.extractor(images).vectors, self.vectors, self.labels, NEIGHBOURS)
