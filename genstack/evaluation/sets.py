"""Two sets of images held against one another, in the features of each network that is here."""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from genstack.errors import UserError
from genstack.evaluation.card import Card, Number
from genstack.evaluation.extractor import Extractor
from genstack.evaluation.frechet import check_count, frechet
from genstack.evaluation.kernel import kid
from genstack.evaluation.manifold import DENSE_NEIGHBOURS, NEIGHBOURS, Covering, covering
from genstack.evaluation.process_group import Columns
from genstack.evaluation.resampling import by_groups, of_mean
from genstack.evaluation.score import score

FEWEST = 16  # images on either side, so that each half of the real ones has neighbourhoods
COVERING = {
    "precision": f"share of fake images within the {NEIGHBOURS} nearest neighbours of a real one",
    "recall": f"share of real images within the {NEIGHBOURS} nearest neighbours of a fake one",
    "density": f"neighbourhoods ({DENSE_NEIGHBOURS} nearest) a fake image lies in, over {DENSE_NEIGHBOURS}",
    "coverage": f"share of real neighbourhoods ({DENSE_NEIGHBOURS} nearest) with a fake image in them",
}


def look(extractors: Sequence[Extractor], images: Float[Tensor, "b c H W"]) -> Columns:
    """What every network sees in images."""
    columns = {}
    for extractor in extractors:
        view = extractor(images)
        columns[extractor.features] = view.features
        columns[f"{extractor.kernel}/probabilities"] = view.probabilities
    return columns


def compare(
    card: Card,
    extractors: Sequence[Extractor],
    real: Columns,
    fake: Columns,
    prefix: str = "",
    distances_only: bool = False,
) -> None:
    """Write into a card how far a fake set is from a real one, by each network.

    Args:
        card: that is written into.
        extractors: the networks.
        real: what they see in the real images, from `look`.
        fake: what they see in the fake ones.
        prefix: before the names of distances: r for reconstructions, g for samples.
        distances_only: leave out how the sets cover each other, and the score.
    """
    for extractor in extractors:
        one, other = (side[extractor.features].double() for side in (real, fake))
        if min(len(one), len(other)) < FEWEST:
            card.refused[prefix + extractor.kernel] = (
                f"it needs {FEWEST} images on either side, and there are {min(len(one), len(other))}"
            )
            continue
        halves = one[::2], one[1::2]
        value, interval = kid(one, other)
        meaning = "squared kernel distance of features, unbiased; real: of two halves of the real images"
        card.numbers.append(
            Number(prefix + extractor.kernel, value, meaning, "lower", interval, kid(*halves)[0])
        )
        try:
            check_count(prefix + extractor.distance, prefix + extractor.kernel, len(one), len(other))
        except UserError as error:
            card.refused[prefix + extractor.distance] = str(error)
        else:
            meaning = (
                "Fréchet distance of features; real: of two halves of the real images, which is higher for "
                "being of half as many images"
            )
            interval = by_groups(frechet, (one, other))
            real_value = frechet(*halves)
            card.numbers.append(
                Number(
                    prefix + extractor.distance, frechet(one, other), meaning, "lower", interval, real_value
                )
            )
        if not distances_only:
            cover(card, extractor.known_as, covering(one, other), covering(*halves))
            judge(card, extractor, real, fake)


def cover(card: Card, network: str, fake: Covering, real: Covering) -> None:
    """Write precision, recall, density and coverage into a card."""
    for name, meaning in COVERING.items():
        values = getattr(fake, name)
        card.numbers.append(
            Number(
                f"{name}-{network}",
                float(values.mean()),
                f"{meaning}; real: one half of the real images for the other",
                "higher",
                of_mean(values),
                float(getattr(real, name).mean()),
            )
        )


def judge(card: Card, extractor: Extractor, real: Columns, fake: Columns) -> None:
    """Write a classifier's score into a card."""
    own, others = (score(side[f"{extractor.kernel}/probabilities"]) for side in (real, fake))
    meaning = "exp of the mean divergence of an image's classes from those of all; real: of the real images"
    card.numbers.append(Number(extractor.score, others[0], meaning, "higher", others[1], own[0]))


def mean(
    card: Card, name: str, values: Float[Tensor, " n"], meaning: str, better: str = "", unit: str = ""
) -> None:
    """Write a mean over images into a card."""
    values = torch.as_tensor(values).double()
    average = float(values.mean())
    card.numbers.append(Number(name, average, meaning, better, of_mean(values), unit=unit))  # type: ignore[arg-type]
