"""What a prior draws, held against real images: the whole set, its conditions, and what it has copied."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from jaxtyping import Float
from torch import Tensor

from genstack.evaluation import sets
from genstack.evaluation.agreement import Judge
from genstack.evaluation.card import Card, Number
from genstack.evaluation.extractor import Extractor
from genstack.evaluation.neighbours import SIDE, Neighbours, small
from genstack.evaluation.process_group import Columns
from genstack.evaluation.reference import Reference
from genstack.evaluation.rounding import as_saved
from genstack.inputs import ConditionInputs
from genstack.model import Model
from genstack.prior import SamplingOptions
from genstack.sampling.series import filled

SHOWN = 12  # samples nearest to a training image that a card names


@dataclass(frozen=True)
class Space:
    """Where images lie near one another.

    Args:
        suffix: of the numbers that are found there.
        column: of what is known of images that holds their vectors.
        words: what the vectors are.
    """

    suffix: str
    column: str
    words: str

    def neighbours(self, known: Columns) -> Neighbours:
        """The training images there."""
        return Neighbours(known[self.column], known["labels"])


def spaces(extractors: Sequence[Extractor]) -> list[Space]:
    """Small pixels, which show copies of small images, and the features of each network."""
    pixels = Space("", "small", f"{SIDE} x {SIDE} pixels")
    return [
        pixels,
        *(Space(f"-{each.known_as}", each.features, f"features of {each.known_as}") for each in extractors),
    ]


@dataclass
class Drawn:
    """Samples, steered by what is known of the real images, these taken in turn.

    Args:
        model: that draws them.
        reference: the real images.
        extractors: networks to compare both sets by.
        options: how codes are drawn.
        seed: of the set.
        judges: that can tell whether images show what was asked.
        size: of all batches, for compiled networks; 0 for any.
    """

    model: Model
    reference: Reference
    extractors: Sequence[Extractor]
    options: SamplingOptions
    seed: int
    judges: Sequence[Judge]
    size: int = 0

    def images(self, indices: Sequence[int]) -> tuple[Float[Tensor, "b c H W"], ConditionInputs]:
        """Samples with these numbers, and what steered them."""
        numbers = filled(indices, self.size)
        facts = self.reference.batch(numbers).facts
        drawn = self.model.sample(facts, self.options, self.seed, numbers)[: len(indices)]
        return as_saved(drawn.cpu(), self.reference.data.preprocessing), facts[range(len(indices))]

    def look(self, indices: Sequence[int]) -> Columns:
        """All that is known of some of the samples."""
        images, facts = self.images(indices)
        return view(self.extractors, images, facts) | verdicts(self.judges, images, facts)

    def look_at_real(self, indices: Sequence[int]) -> Columns:
        """What the judges say of some of the real images."""
        batch = self.reference.batch(indices)
        return verdicts(self.judges, batch.images, batch.facts)

    def judge(self, card: Card, real: Columns, found: Columns) -> None:
        """Write into a card how far the samples are from the real images."""
        sets.compare(card, self.extractors, real, found, "g")

    def judge_conditions(self, card: Card, found: Columns, real: Columns) -> None:
        """Write into a card whether samples, and real images, show what was asked."""
        for judge in self.judges:
            shown, truth = (side[judge.name][~side[judge.name].isnan()] for side in (found, real))
            number = f"agreement ({judge.name})"
            if not len(shown) or not len(truth):
                card.refused[number] = "no caption names one of its classes, and no other"
                continue
            told = "" if len(shown) == len(found[judge.name]) else f" {len(shown):,}"
            meaning = (
                f"share of{told} samples in which the {judge.name} reads what was asked; real: of real images"
            )
            sets.mean(card, number, shown, meaning, "higher")
            card.numbers[-1] = replace(card.numbers[-1], real=float(truth.double().mean()))

    def judge_neighbours(self, card: Card, found: Columns, others: "Others") -> None:
        """Write into a card whether the training images nearest to a sample have its class."""
        if not self.model.classes or "class" not in self.model.condition.tell(ConditionInputs.nothing(1))[0]:
            return
        for space in spaces(self.extractors):
            near = space.neighbours(others.known)
            meaning = (
                "share of samples whose class a vote of the nearest training images reads, in "
                f"{space.words}; real: of held-out images"
            )
            agree = near.agrees(found[space.column], found["labels"]).double()
            sets.mean(card, f"agreement (neighbours{space.suffix})", agree, meaning, "higher")
            real = near.agreement(others.held_out[space.column], others.held_out["labels"])
            card.numbers[-1] = replace(card.numbers[-1], real=real)

    def judge_copies(self, card: Card, found: Columns, others: "Others") -> dict[str, list[tuple[int, int]]]:
        """Write into a card how near samples are to training images; the nearest pairs, sample and image."""
        pairs = {}
        for space in spaces(self.extractors):
            near, vectors = space.neighbours(others.known), found[space.column]
            share = near.near_copies(vectors, others.held_out[space.column])
            meaning = (
                f"share of samples nearer to one of {len(others.training):,} training images, in "
                f"{space.words}, than 95 % of held-out images are; real: by definition"
            )
            card.numbers.append(Number(f"near-copies{space.suffix}", share, meaning, "lower", real=0.05))
            distances, numbers = near.nearest(vectors)
            closest = distances.argsort(stable=True)[:SHOWN].tolist()
            name = f"nearest{space.suffix}"
            pairs[name] = [(index, int(numbers[index])) for index in closest]
            card.images[name] = [
                {
                    "sample": index,
                    "training": others.training.key(number),
                    "distance": float(distances[index]),
                }
                for index, number in pairs[name]
            ]
        return pairs

    def told(self, count: int) -> dict[str, Any]:
        """What a card says of the samples."""
        return {
            "what": "samples",
            "count": count,
            "seed": self.seed,
            "options": asdict(self.options),
            "conditions": "those of the real images, in turn",
            "judges": {judge.name: judge.told for judge in self.judges},
        }


@dataclass
class Others:
    """Images beside the samples and the real ones that they are held against.

    Args:
        training: images that the model was trained on.
        known: what is known of these, from `known_of`.
        held_out: the same of images that it was not trained on.
    """

    training: Reference
    known: Columns
    held_out: Columns


def known_of(reference: Reference, extractors: Sequence[Extractor], indices: Sequence[int]) -> Columns:
    """What is known of some real images, for samples to be held against them."""
    batch = reference.batch(indices)
    return view(extractors, batch.images, batch.facts)


def view(
    extractors: Sequence[Extractor], images: Float[Tensor, "b c H W"], facts: ConditionInputs
) -> Columns:
    """Small pixels, classes, and what every network sees."""
    return sets.look(extractors, images) | {"small": small(images), "labels": facts.labels}


def verdicts(judges: Sequence[Judge], images: Float[Tensor, "b c H W"], facts: ConditionInputs) -> Columns:
    """What each judge says of images."""
    return {judge.name: judge(images, facts) for judge in judges}
