"""Whether images show what was asked of them: by geometry where pictures are drawn, else by a classifier."""

import re
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from genstack.data import ImageData
from genstack.data.oracle import Seen, ShapeOracle
from genstack.data.scene import Scene, Thing
from genstack.data.sources.shapes import ShapesSource
from genstack.errors import UserError
from genstack.evaluation.classifier import Classifier
from genstack.inputs import ConditionInputs
from genstack.model import Model

UNTOLD = torch.nan  # of an image of which nothing was asked that could be read


class Judge(ABC):
    """Reads images, and says whether they show what was asked."""

    #: In the name of the number.
    name: str

    @property
    @abstractmethod
    def told(self) -> dict[str, Any]:
        """What a card says of it."""

    @abstractmethod
    def __call__(self, images: Float[Tensor, "b c H W"], facts: ConditionInputs) -> Float[Tensor, " b"]:
        """1 for each image that shows what was asked, 0 for each that does not; `UNTOLD` of the others."""


class OracleJudge(Judge):
    """Reads pictures of `shapes` by geometry, and compares the captions."""

    name = "oracle"

    def __init__(self) -> None:
        self.oracle = ShapeOracle()

    @property
    def told(self) -> dict[str, Any]:
        return {"by": "hue and moments of coloured regions, held against the caption"}

    def __call__(self, images: Float[Tensor, "b c H W"], facts: ConditionInputs) -> Float[Tensor, " b"]:
        pairs = zip(self.oracle(images), facts.captions, strict=True)
        return torch.tensor([float(caption(seen) == asked) for seen, asked in pairs])


class ClassifierJudge(Judge):
    """Asks a classifier for the class of each image: that of its label, or the one that its caption names.

    Args:
        classifier: that a user gave.
        model: that says what steers it.
    """

    name = "classifier"

    def __init__(self, classifier: Classifier, model: Model):
        self.classifier, self.condition = classifier, model.condition

    @property
    def told(self) -> dict[str, Any]:
        return self.classifier.told

    def __call__(self, images: Float[Tensor, "b c H W"], facts: ConditionInputs) -> Float[Tensor, " b"]:
        read = self.classifier(images)
        asked = torch.tensor([wanted(told, self.classifier.classes) for told in self.condition.tell(facts)])
        return torch.where(asked < 0, UNTOLD, (read == asked).float())


def judges_of(
    model: Model, data: ImageData, sample: ConditionInputs, classifier: Classifier | None
) -> list[Judge]:
    """Those that can tell whether images show what steers a model.

    Args:
        model: with a condition.
        data: the real images.
        sample: what is known of some of them.
        classifier: that the user gave, if so.

    Raises:
        UserError: the classifier knows nothing of what the model is asked for.
    """
    told = model.condition.tell(sample)
    steered = bool({"class", "caption"} & set(told[0]))
    found: list[Judge] = []
    if isinstance(data.opened, ShapesSource) and data.channels == 3 and steered:
        found.append(OracleJudge())
    if classifier is None:
        return found
    if not steered:
        raise UserError("the model was trained without classes and captions; leave out --classifier")
    strangers = set(model.classes) - set(classifier.classes) if "class" in told[0] else set()
    if strangers or all(wanted(each, classifier.classes) < 0 for each in told):
        missing = sorted(strangers)[:5] if strangers else ["what captions name"]
        known = ", ".join(classifier.classes[:10])
        raise UserError(f"the classifier does not know {', '.join(missing)}; it reads {known}")
    return [*found, ClassifierJudge(classifier, model)]


def wanted(told: Mapping[str, str], classes: Sequence[str]) -> int:
    """The number of the class that was asked for; -1 where a caption names none of them, or several."""
    if "class" in told:
        return classes.index(told["class"]) if told["class"] in classes else -1
    words = told.get("caption", "")
    named = [
        number
        for number, name in enumerate(classes)
        if re.search(rf"\b{re.escape(name)}\b", words, flags=re.IGNORECASE)
    ]
    return named[0] if len(named) == 1 else -1


def caption(seen: Sequence[Seen]) -> str:
    """What `shapes` would say of the things in a picture; "" of none."""
    things = (Thing(one.shape, one.colour, one.row, one.column, radius=0.0) for one in seen[:2])
    return Scene(tuple(things)).caption if seen else ""
