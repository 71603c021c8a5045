"""Agreement of images with their condition: by geometry for `shapes`, otherwise by a classifier."""

import re
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from genstack.conditions import Condition
from genstack.data import ImageData
from genstack.data.oracle import Seen, ShapeOracle
from genstack.data.scene import Scene, Thing
from genstack.data.sources.shapes import ShapesSource
from genstack.errors import UserError
from genstack.evaluation.classifier import Classifier
from genstack.inputs import ConditionInputs
from genstack.model import Model

UNKNOWN = torch.nan  # for images whose condition names no class


class Matcher(ABC):
    """Check if images show their condition."""

    #: Part of the metric's name.
    name: str

    @property
    @abstractmethod
    def metadata(self) -> dict[str, Any]:
        """Description for the metric card."""

    @abstractmethod
    def __call__(self, images: Float[Tensor, "b c H W"], inputs: ConditionInputs) -> Float[Tensor, " b"]:
        """Return 1 for each image that shows its condition, 0 for others, and UNKNOWN if it cannot tell."""


class OracleMatcher(Matcher):
    """Read images of `shapes` by geometry and compare the captions."""

    name = "oracle"

    def __init__(self) -> None:
        self.oracle = ShapeOracle()

    @property
    def metadata(self) -> dict[str, Any]:
        return {"method": "hue and moments of coloured regions, compared with the caption"}

    def __call__(self, images: Float[Tensor, "b c H W"], inputs: ConditionInputs) -> Float[Tensor, " b"]:
        pairs = zip(self.oracle(images), inputs.captions, strict=True)
        return torch.tensor([float(caption_of(things) == caption) for things, caption in pairs])


class ClassifierMatcher(Matcher):
    """Compare a classifier's prediction with the label, or with the class that the caption names.

    Args:
        classifier: classifier of the user.
        condition: condition of the model.
    """

    name = "classifier"

    def __init__(self, classifier: Classifier, condition: Condition):
        self.classifier, self.condition = classifier, condition

    @property
    def metadata(self) -> dict[str, Any]:
        return self.classifier.metadata

    def __call__(self, images: Float[Tensor, "b c H W"], inputs: ConditionInputs) -> Float[Tensor, " b"]:
        predicted = self.classifier(images)
        texts = self.condition.modality.describe(inputs)
        labels = torch.tensor([requested_class(text, self.classifier.classes) for text in texts])
        return torch.where(labels < 0, UNKNOWN, (predicted == labels).float())


def matchers_for(
    model: Model, data: ImageData, examples: ConditionInputs, classifier: Classifier | None
) -> list[Matcher]:
    """Return the matchers that apply to a model's condition.

    Args:
        model: model with a condition.
        data: the real images.
        examples: condition inputs of some real images.
        classifier: classifier of the user, if any.

    Raises:
        UserError: the classifier does not know the model's classes.
    """
    texts = model.condition.modality.describe(examples)
    named = bool({"class", "caption"} & set(texts[0]))
    matchers: list[Matcher] = []
    if isinstance(data.catalog, ShapesSource) and data.channels == 3 and named:
        matchers.append(OracleMatcher())
    if classifier is None:
        return matchers
    if not named:
        raise UserError("the model was trained without classes and captions; leave out --classifier")
    unknown = set(model.classes) - set(classifier.classes) if "class" in texts[0] else set()
    if unknown or all(requested_class(text, classifier.classes) < 0 for text in texts):
        missing = ", ".join(sorted(unknown)[:5]) if unknown else "any class in the captions"
        raise UserError(
            f"the classifier does not know {missing}; its classes are {', '.join(classifier.classes[:10])}"
        )
    return [*matchers, ClassifierMatcher(classifier, model.condition)]


def requested_class(text: Mapping[str, str], classes: Sequence[str]) -> int:
    """Return the label that a condition requests; -1 if its caption names no class, or several."""
    if "class" in text:
        return classes.index(text["class"]) if text["class"] in classes else -1
    caption = text.get("caption", "")
    named = [
        label
        for label, name in enumerate(classes)
        if re.search(rf"\b{re.escape(name)}\b", caption, flags=re.IGNORECASE)
    ]
    return named[0] if len(named) == 1 else -1


def caption_of(seen: Sequence[Seen]) -> str:
    """Caption things as `shapes` does; "" if there are none."""
    things = (Thing(one.shape, one.colour, one.row, one.column, radius=0.0) for one in seen[:2])
    return Scene(tuple(things)).caption if seen else ""
