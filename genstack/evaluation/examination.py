"""A run held against real images: what its compressor keeps, what its prior expects, and what it draws."""

from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial

from torch import Tensor

from genstack.conditions import ClassLabels
from genstack.data import ImageData
from genstack.dist import gather_objects
from genstack.errors import UserError
from genstack.evaluation.agreement import Judge
from genstack.evaluation.bench import Bench
from genstack.evaluation.card import Card
from genstack.evaluation.process_group import Columns
from genstack.evaluation.reconstructions import Reconstructions, trained_nats
from genstack.evaluation.reference import Reference
from genstack.evaluation.samples import Drawn, Others, known_of
from genstack.model import Model
from genstack.prior import SamplingOptions
from genstack.sampling.compiled import compiled


@dataclass(frozen=True)
class Draw:
    """The samples of an examination.

    Args:
        options: how codes are drawn.
        count: of the samples.
        seed: of the set.
        judges: that can tell whether images show what was asked.
        training: images of the training that samples are compared with, at most.
        compile: draw by compiled networks.
    """

    options: SamplingOptions
    count: int
    seed: int
    judges: Sequence[Judge]
    training: int
    compile: bool = False


@dataclass(frozen=True)
class Examination:
    """A run, the images that it is held against, and those that it was trained on.

    Args:
        run: its place, for messages.
        model: of the run.
        reference: the real images.
        trained: images of the training; None where nobody knows.
        bench: what it is done with.
    """

    run: str
    model: Model
    reference: Reference
    trained: ImageData | None
    bench: Bench

    def card(self, draw: Draw | None) -> Card | None:
        """The card, in the first process.

        Args:
            draw: what is drawn; None for a run that cannot draw.
        """
        kept = Reconstructions(self.model, self.reference, self.bench.extractors, self.bench.perceptual)
        found = self.bench.look(len(self.reference), kept.look)
        card = self.bench.card("compressor", self.reference, {"what": "reconstructions"})
        if self.bench.together.first:
            kept.judge(card, found)
            self.show(card)
        if self.model.prior is not None:
            nats = self.nats_of_training()
            if self.bench.together.first:
                kept.judge_prior(card, found["nats"], found["codes"], nats)
        if draw is not None:
            real = {name.removeprefix("real:"): column for name, column in found.items()}
            with compiled(self.model) if draw.compile else nullcontext():
                self.judge_samples(card, draw, real)
        card.protocol["model"] = {"path": self.run, "sha256": self.model.fingerprint}
        card.protocol["real"]["unreadable"] = self.unreadable()
        return card if self.bench.together.first else None

    def unreadable(self) -> dict[str, str]:
        """Why real images could not be read, by key: others stood in for them, in any process."""
        met = gather_objects(self.reference.data.unreadable.reasons)
        return dict(sorted(pair for reasons in met for pair in reasons.items()))

    def show(self, card: Card) -> None:
        """Sheets of the images that stand out, each beside its reconstruction."""
        places = {self.reference.key(index): index for index in range(len(self.reference))}
        for name, listed in card.images.items():
            images = self.reference.batch([places[each["key"]] for each in listed]).images
            back = self.model.reconstruct(images).cpu()
            self.bench.save_pairs(name, images, back, f"{name}: image and reconstruction")

    def nats_of_training(self) -> Tensor | None:
        """What the prior expects of images that it was trained on, where the real ones are held-out ones."""
        data = self.reference.data
        if self.trained is None or foreign(self.trained, data) or self.reference.side != "validation":
            return None
        known = Reference(self.trained, "training", len(self.reference))
        return trained_nats(
            Reconstructions(self.model, known, (), {}), self.bench.together, self.bench.batch_size
        )

    def judge_samples(self, card: Card, draw: Draw, real: Columns) -> None:
        """Draw samples, and write into a card what they are like."""
        bench = self.bench
        drawn = Drawn(
            self.model,
            self.reference,
            bench.extractors,
            draw.options,
            draw.seed,
            draw.judges,
            bench.batch_size if draw.compile else 0,
        )
        found = bench.look(draw.count, drawn.look)
        truth = bench.look(len(self.reference), drawn.look_at_real) if draw.judges else {}
        card.kind = "prior"
        card.protocol["samples"] = drawn.told(draw.count)
        others = self.others(draw.training)
        if not bench.together.first:
            return
        drawn.judge(card, real, found)
        drawn.judge_conditions(card, found, truth)
        if others is None:
            card.refused["near-copies"] = "the images that the model was trained on are not known"
            return
        drawn.judge_neighbours(card, found, others)
        for name, pairs in drawn.judge_copies(card, found, others).items():
            images = drawn.images([sample for sample, _ in pairs])[0]
            known = others.training.batch([number for _, number in pairs]).images
            bench.save_pairs(name, images, known, "sample, and its nearest training image")

    def others(self, limit: int) -> Others | None:
        """Images of the training, and those laid aside in it, that samples are compared with."""
        if self.trained is None:
            return None
        sides = Reference(self.trained, "training", limit), Reference(self.trained, "validation", limit)
        seen = [self.bench.look(len(one), partial(known_of, one, self.bench.extractors)) for one in sides]
        return Others(sides[0], *seen)


def foreign(trained: ImageData | None, data: ImageData) -> bool:
    """Whether images are none of those among which a run was trained."""
    return trained is None or trained.source != data.source


def check(run: str, model: Model, data: ImageData, trained: ImageData | None) -> None:
    """Refuse images that a model does not read, or that would count as held out without being so.

    Raises:
        UserError: says what differs.
    """
    names = ("channels", "window", "bits", "background", *(("height", "width") if model.prior else ()))
    for name in names:
        here, there = (getattr(part.preprocessing, name) for part in (data, model))
        if here != there:
            raise UserError(
                f"the data's {name} is {here}, but the model reads {there}; leave out --data.{name}"
            )
    if isinstance(model.condition, ClassLabels) and len(data.class_names) > len(model.classes):
        raise UserError(
            f"the data has {len(data.class_names)} classes, and the prior knows {len(model.classes)}; name "
            f"data of its classes with --data.source, or leave them out with --data.labels none"
        )
    if trained is not None and not foreign(trained, data) and data.validation > trained.validation:
        raise UserError(
            f"validation {data.validation} would count images as held out that {run} was trained "
            f"on; use at most {trained.validation}, or leave out --data.validation"
        )
