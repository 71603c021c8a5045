"""What a prior draws, held against real images: the whole set, its conditions, and what it has copied."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from genstack.data.oracle import Seen, ShapeOracle
from genstack.data.scene import Scene, Thing
from genstack.evaluation import sets
from genstack.evaluation.card import Card, Number
from genstack.evaluation.extractor import Extractor
from genstack.evaluation.neighbours import Neighbours
from genstack.evaluation.reference import SIDE, Reference, small
from genstack.evaluation.rounding import as_saved
from genstack.evaluation.together import Columns
from genstack.facts import Facts
from genstack.model import Model
from genstack.prior import SamplingOptions

SHOWN = 12  # samples nearest to a training image that a card names


@dataclass
class Drawn:
    """Samples, steered by what is known of the real images, these taken in turn.

    Args:
        model: that draws them.
        reference: the real images.
        extractors: networks to compare both sets by.
        options: how codes are drawn.
        seed: of the set.
        oracle: reads what stands in a picture; None where there is none for such images.
    """

    model: Model
    reference: Reference
    extractors: Sequence[Extractor]
    options: SamplingOptions
    seed: int
    oracle: ShapeOracle | None

    def images(self, indices: Sequence[int]) -> tuple[Float[Tensor, "b c H W"], Facts]:
        """Samples with these numbers, and what steered them."""
        facts = self.reference.batch(indices).facts
        drawn = self.model.sample(facts, self.options, self.seed, indices)
        return as_saved(drawn.cpu(), self.reference.data.preprocessing), facts

    def look(self, indices: Sequence[int]) -> Columns:
        """All that is known of some of the samples."""
        images, facts = self.images(indices)
        found = sets.look(self.extractors, images) | {"small": small(images), "labels": facts.labels}
        if self.oracle is not None:
            found["shown"] = shows(self.oracle, images, facts)
        return found

    def judge(self, card: Card, real: Columns, found: Columns) -> None:
        """Write into a card how far the samples are from the real images."""
        sets.compare(card, self.extractors, real, found, "g")

    def judge_conditions(self, card: Card, found: Columns, others: "Others") -> None:
        """Write into a card whether samples show what they were asked to show."""
        if "shown" in found and others.shown is not None:
            meaning = "share of samples in which an oracle reads what was asked; real: of the real images"
            sets.mean(card, "agreement (oracle)", found["shown"].double(), meaning, "higher")
            card.numbers[-1] = replace(card.numbers[-1], real=float(others.shown.double().mean()))
        steered = self.model.classes and "class" in self.model.condition.tell(Facts.nothing(1))[0]
        if steered and others.known is not None:
            meaning = (
                "share of samples whose class a vote of the nearest training images reads, in "
                f"{SIDE} x {SIDE} pixels; real: of held-out images"
            )
            agree = others.known.agrees(found["small"], found["labels"]).double()
            sets.mean(card, "agreement (neighbours)", agree, meaning, "higher")
            real = others.known.agreement(others.held_out, others.held_out_labels)
            card.numbers[-1] = replace(card.numbers[-1], real=real)

    def judge_copies(self, card: Card, found: Columns, others: "Others") -> list[tuple[int, int]]:
        """Write into a card how near samples are to training images; the nearest pairs, sample and image."""
        if others.known is None or others.training is None:
            card.refused["near-copies"] = "the images that the model was trained on are not known"
            return []
        share = others.known.near_copies(found["small"], others.held_out)
        meaning = (
            f"share of samples nearer to one of {len(others.training):,} training images, in {SIDE} x {SIDE} "
            "pixels, than 95 % of held-out images are; real: by definition"
        )
        card.numbers.append(Number("near-copies", share, meaning, "lower", real=0.05))
        distances, numbers = others.known.nearest(found["small"])
        closest = distances.argsort(stable=True)[:SHOWN].tolist()
        card.images["nearest"] = [
            {
                "sample": index,
                "training": others.training.key(int(numbers[index])),
                "distance": float(distances[index]),
            }
            for index in closest
        ]
        return [(index, int(numbers[index])) for index in closest]

    def told(self, count: int) -> dict[str, Any]:
        """What a card says of the samples."""
        return {
            "what": "samples",
            "count": count,
            "seed": self.seed,
            "options": asdict(self.options),
            "conditions": "those of the real images, in turn",
        }


@dataclass
class Others:
    """Images beside the samples and the real ones that they are held against.

    Args:
        training: images that the model was trained on; None where they are not known.
        known: these, by nearest neighbours.
        held_out: small images that it was not trained on.
        held_out_labels: their classes.
        shown: whether each real image shows what it is said to, by the oracle; None without an oracle.
    """

    training: Reference | None
    known: Neighbours | None
    held_out: Float[Tensor, "n c h w"]
    held_out_labels: Int[Tensor, " n"]
    shown: Bool[Tensor, " b"] | None = None


def plainly(reference: Reference, indices: Sequence[int]) -> Columns:
    """Small images and classes, for nearest neighbours."""
    batch = reference.batch(indices)
    return {"small": small(batch.images), "labels": batch.labels}


def shows(oracle: ShapeOracle, images: Float[Tensor, "b 3 H W"], facts: Facts) -> Bool[Tensor, " b"]:
    """Whether the oracle reads in each image the caption that it has."""
    return torch.tensor(
        [caption(seen) == asked for seen, asked in zip(oracle(images), facts.captions, strict=True)]
    )


def caption(seen: Sequence[Seen]) -> str:
    """What `shapes` would say of the things in a picture; "" of none."""
    things = (Thing(one.shape, one.colour, one.row, one.column, radius=0.0) for one in seen[:2])
    return Scene(tuple(things)).caption if seen else ""
