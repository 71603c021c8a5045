"""Measure a run, or compare two folders of pictures, each number with its protocol.

genstack evaluate runs/flowers-prior --samples 2048
"""

import inspect
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from genstack.atomic import replacing
from genstack.checkpoints.files import TENSORS, load
from genstack.cli.device import choose
from genstack.cli.parser import Parser
from genstack.cli.signatures import settings_of
from genstack.cli.stages import data_of
from genstack.data import ImageData
from genstack.data.sheet import sheet
from genstack.errors import UserError
from genstack.evaluation.agreement import Judge, judges_of
from genstack.evaluation.card import Card, machine
from genstack.evaluation.classifiers import given
from genstack.evaluation.extractors import available
from genstack.evaluation.folders import Folders, common_size, drawn_by, opened
from genstack.evaluation.reconstructions import Reconstructions, distances, trained_nats
from genstack.evaluation.reference import Reference
from genstack.evaluation.samples import Drawn, Others, known_of
from genstack.evaluation.sets import FEWEST
from genstack.evaluation.together import Columns, Together
from genstack.model import Model
from genstack.prior import ClassLabels
from genstack.prior.presets import options_of
from genstack.processes import Process
from genstack.training.run import CONFIG, Run

CARD = "card.json"
SAMPLES = 1000  # unless it is said how many
NETS = ("alex", "vgg")
TOLD = 64  # images whose captions a classifier has to know something of


def run(arguments: list[str]) -> int | None:
    """The verb; what it is to look at comes first, since that decides what images are read."""
    parser = command()
    settings = parser.parse(arguments, inherited(parser, arguments))
    wanted = Evaluation(**{field.name: getattr(settings, field.name) for field in fields(Evaluation)})
    wanted.run_on(parser.build(settings).data)
    return None


def command() -> Parser:
    """The command line: what is to be measured, and the images."""
    parser = Parser("genstack evaluate", inspect.getdoc(Evaluation) or "")
    for name, setting in settings_of(Evaluation).items():
        parser.add_option(name, setting.hint, setting.help, setting.default)
    parser.positional = ["run", "fake"]
    parser.add_class(ImageData, "data", otherwise="the run")
    return parser


def inherited(parser: Parser, arguments: list[str]) -> dict[str, Any]:
    """The images that a run or two folders mean, under what the command line says of them."""
    place, fake = (parser.peek(arguments, name) for name in ("run", "fake"))
    if place is None:
        return {}
    if fake:
        for name in (place, fake):
            if (Path(name) / TENSORS).is_file():
                raise UserError(
                    f"genstack evaluate: {name} is a run; name it alone, or two folders of pictures"
                )
        folders = [opened(name) for name in (place, fake)]
        if parser.peek(arguments, "data.resolution"):
            return {"data": {"source": place}}
        channels, height, width = common_size(folders)
        return {"data": {"source": place, "resolution": [height, width], "channels": channels}}
    if not (Path(place) / CONFIG).is_file():
        channels, height, width = load(Path(place)).preprocessing.shape
        return {"data": {"resolution": [height, width], "channels": channels}}
    data = Run(Path(place)).config()["data"]
    if other := parser.peek(arguments, "data.source"):
        data |= {"source": other, "limit": None, "condition_images": None}
    return {"data": data}


@dataclass(frozen=True)
class Evaluation:
    """Measure a run on images that it was not trained on, or compare two folders of pictures.

    Of a compressor: PSNR, SSIM, LPIPS, rKID, rFID, the use of its codes. Of a prior also: nats, bits, gKID,
    gFID, precision, recall, density, coverage, a classifier's score, whether samples show what was asked, and
    what they copy from training images. Prints a line for each number, and writes `card.json` with the whole
    protocol, beside pictures of what stands out. Started by torchrun, several processes share the work, with
    the same result.

    Args:
        run: folder of a run, or published file; or folder of real pictures.
        fake: folder of pictures to be held against the real ones.
        samples: images to draw from a prior; 1000 if left out. FID needs 2048 and more.
        split: real images to look at, validation, training or all; left out, those held out in training, or
            all of another --data.source.
        seed: of the samples.
        preset: options of sampling under one name, see `genstack sample --help`.
        temperature: of sampling, likewise.
        top_k: of sampling, likewise.
        top_p: of sampling, likewise.
        min_p: of sampling, likewise.
        guidance: of sampling, likewise.
        steps: of sampling, likewise.
        training: images of the training among which the one nearest to each sample is looked for, at most;
            copies of the others are not seen.
        classifier: what reads classes in images, to see whether samples show theirs: a folder with a folder
            of pictures for each class, or a .pt2 file of torch.export or an .onnx file, which reads images
            in [-1, 1] and is run, so let it be one that you trust; a .txt beside it names its classes, one
            a line, or else they are the run's. Captions count that name one class.
        lpips: networks of LPIPS, separated by commas; vgg takes about 15 times as long as alex. Empty for
            none.
        out: folder for the card and the pictures; RUN/evaluation, or FAKE.evaluation, if left out.
        batch_size: images looked at, and drawn, at a time.
        device: auto, cpu, cuda or mps.
    """

    run: str
    fake: str = ""
    samples: int | None = None
    split: Literal["", "validation", "training", "all"] = ""
    seed: int = 0
    preset: str = ""
    temperature: float | None = None
    top_k: int | None = None
    top_p: float | None = None
    min_p: float | None = None
    guidance: float | None = None
    steps: int | None = None
    training: int = 10_000
    classifier: str = ""
    lpips: str = "alex,vgg"
    out: str = ""
    batch_size: int = 32
    device: str = "auto"

    def run_on(self, data: ImageData) -> None:
        """Measure, write and print.

        Args:
            data: the real images.
        """
        if self.training < FEWEST:
            raise UserError(f"training {self.training} is too small; use {FEWEST} images or more")
        if self.batch_size < 1 or (self.samples is not None and self.samples < FEWEST):
            raise UserError(
                f"samples {self.samples} and batch_size {self.batch_size} are too small; use {FEWEST} "
                "samples or more, and a batch_size of at least 1"
            )
        if unknown := set(self.nets) - set(NETS):
            raise UserError(
                f"lpips {', '.join(sorted(unknown))} is unknown; use {' or '.join(NETS)}, or both"
            )
        process = Process.here()
        device = choose(self.device, process.local)
        together = Together(process.rank, process.count)
        with together.joined():
            card = (
                self.of_folders(data, device, together) if self.fake else self.of_run(data, device, together)
            )
        if card is None:
            return
        card.save(self.folder / CARD)
        print("\n".join([*card.lines(), f"{self.folder / CARD} says how each was measured"]))

    @property
    def nets(self) -> list[str]:
        """Networks of LPIPS."""
        return [name.strip() for name in self.lpips.split(",") if name.strip()]

    @property
    def folder(self) -> Path:
        """Where the card goes."""
        if self.out:
            return Path(self.out)
        place = Path(self.fake or self.run).expanduser()
        if self.fake:
            return place.with_name(place.name + ".evaluation")
        return place / "evaluation" if place.is_dir() else place.with_suffix(".evaluation")

    def of_folders(self, data: ImageData, device: str, together: Together) -> Card | None:
        """The card of two folders, in the first process."""
        if self.classifier:
            raise UserError("a classifier judges the samples of a prior's run; leave out --classifier")
        if self.samples is not None:
            raise UserError("samples are drawn from a prior's run, not from folders; leave out --samples")
        other = ImageData(self.fake, data.resolution, data.channels, "none", window=data.window)
        extractors, missing = available(device)
        perceptual, blind = distances(self.nets, data.preprocessing.shape, device)
        folders = Folders(data, other, extractors, perceptual, device)
        real, fake = folders.sides
        if min(len(real), len(fake)) < FEWEST and not folders.paired:
            raise UserError(
                f"{self.run} has {len(real)} pictures and {self.fake} has {len(fake)}; {FEWEST} are the "
                "fewest that can be compared"
            )
        found = folders.look(together, self.batch_size)
        if not together.first:
            return None
        fakes = {"what": "pictures", **fake.told(), "drawn_by": drawn_by(other.opened)}
        card = Card("images", self.protocol(real, fakes, extractors, device, together))
        card.refused |= missing | (blind if folders.paired else {})
        folders.judge(card, found)
        return card

    def of_run(self, data: ImageData, device: str, together: Together) -> Card | None:
        """The card of a run, in the first process."""
        model = load(Path(self.run)).to(device)
        draws = model.prior is not None or not model.compressor.coded
        if not draws and self.samples is not None:
            raise UserError(
                f"{self.run} is a compressor, and has no samples; leave out --samples, or train a prior on it"
            )
        if not draws and self.classifier:
            raise UserError(f"{self.run} is a compressor, and has no samples; leave out --classifier")
        check(model, data)
        trained = data_of(Path(self.run)) if (Path(self.run) / CONFIG).is_file() else None
        foreign = trained is None or trained.source != data.source
        if trained is not None and not foreign and data.validation > trained.validation:
            raise UserError(
                f"validation {data.validation} would count images as held out that {self.run} was trained "
                f"on; use at most {trained.validation}, or leave out --data.validation"
            )
        reference = Reference(data, self.split or ("all" if foreign else "validation"))
        extractors, missing = available(device)
        perceptual, blind = distances(self.nets, data.preprocessing.shape, device)
        judges = self.judges(model, data, extractors, device) if draws else []
        there_and_back = Reconstructions(model, reference, extractors, perceptual)
        look = partial(together.columns, batch_size=self.batch_size)
        found = look(len(reference), look=there_and_back.look)
        real = {name.removeprefix("real:"): column for name, column in found.items()}
        card = Card(
            "compressor", self.protocol(reference, {"what": "reconstructions"}, extractors, device, together)
        )
        card.refused |= missing | blind
        if together.first:
            there_and_back.judge(card, found)
            pairs = {
                name: [self.index(reference, each["key"]) for each in card.images[name]]
                for name in card.images
            }
            self.draw_pairs(there_and_back, pairs, card)
        if model.prior is not None:
            nats = None
            if trained is not None and not foreign and reference.side == "validation":
                known = Reference(trained, "training", len(reference))
                seen = Reconstructions(model, known, (), {})
                nats = trained_nats(seen, together, self.batch_size)
            if together.first:
                there_and_back.judge_prior(card, found["nats"], found["codes"], nats)
        if draws:
            self.judge_samples(card, model, reference, trained, real, extractors, judges, together)
        card.protocol["model"] = {"path": self.run, "sha256": model.fingerprint}
        return card if together.first else None

    def judges(self, model: Model, data: ImageData, extractors: Any, device: str) -> list[Judge]:
        """Those that can tell whether images show what steers the model."""
        classifier = (
            given(self.classifier, model.classes, data, extractors, device) if self.classifier else None
        )
        return judges_of(model, data, Reference(data, "all", TOLD).batch(range(TOLD)).facts, classifier)

    def judge_samples(
        self,
        card: Card,
        model: Model,
        reference: Reference,
        trained: ImageData | None,
        real: Columns,
        extractors: Any,
        judges: Sequence[Judge],
        together: Together,
    ) -> None:
        """Draw samples, and write into a card what they are like."""
        names = ("temperature", "top_k", "top_p", "min_p", "guidance", "steps")
        given_options = {name: getattr(self, name) for name in names}
        kept, guided = model.made.get("presets", {}), model.condition.dropout > 0
        options = options_of(self.preset, given_options, kept, guided)
        drawn = Drawn(model, reference, extractors, options, self.seed, judges)
        count = self.samples or SAMPLES
        look = partial(together.columns, batch_size=self.batch_size)
        found = look(count, look=drawn.look)
        truth = look(len(reference), look=drawn.look_at_real) if judges else {}
        card.kind = "prior"
        card.protocol["samples"] = drawn.told(count)
        others = None
        if trained is not None:
            training = Reference(trained, "training", self.training)
            held_out = Reference(trained, "validation", self.training)
            seen = [
                look(len(each), look=partial(known_of, each, extractors)) for each in (training, held_out)
            ]
            others = Others(training, *seen)
        if not together.first:
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
            self.save_sheet(name, images, known, "sample, and its nearest training image")

    def draw_pairs(
        self, reconstructions: Reconstructions, pairs: Mapping[str, list[int]], card: Card
    ) -> None:
        """Sheets of the images that stand out, each beside its reconstruction."""
        for name, indices in pairs.items():
            images = reconstructions.reference.batch(indices).images
            back = reconstructions.model.reconstruct(images).cpu()
            self.save_sheet(name, images, back, f"{name}: image and reconstruction")

    def save_sheet(self, name: str, left: Tensor, right: Tensor, title: str) -> None:
        """Pairs of images as one picture beside the card."""
        pairs = torch.stack(list(chain(*zip(left, right, strict=True))))
        with replacing(self.folder / f"{name}.png") as path:
            sheet(pairs, 8, title=title).save(path, format="PNG")

    def index(self, reference: Reference, key: str) -> int:
        """The place of an image."""
        return next(index for index in range(len(reference)) if reference.key(index) == key)

    def protocol(
        self, real: Reference, fake: Mapping[str, Any], extractors: Any, device: str, together: Together
    ) -> dict[str, Any]:
        """Everything that changes a number."""
        return {
            "command": asdict(self),
            "real": real.told(),
            "fake": dict(fake),
            "extractors": {extractor.kernel: extractor.told for extractor in extractors},
            "networks": "float32",
            "device": device,
            "processes": together.count,
            **machine(),
        }


def check(model: Model, data: ImageData) -> None:
    """Refuse images that a model does not read.

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
