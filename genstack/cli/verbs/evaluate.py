"""Measure a run, or compare two folders of pictures, each number with its protocol.

genstack evaluate runs/flowers-prior --samples 2048
"""

import inspect
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from jsonargparse import Namespace

from genstack.checkpoints.model_file import TENSORS, load
from genstack.cli.parsing.device import choose
from genstack.cli.parsing.options import add_options, chosen
from genstack.cli.parsing.parser import Parser, made
from genstack.cli.parsing.place import about, images_of
from genstack.cli.parsing.stages import data_of, say
from genstack.cli.verbs.doctor import check_compiler
from genstack.data import ImageData
from genstack.dist import Process, restart_warning
from genstack.errors import UserError
from genstack.evaluation.agreement import Judge, judges_of
from genstack.evaluation.bench import Bench
from genstack.evaluation.card import EVALUATION, Card
from genstack.evaluation.classifiers import given
from genstack.evaluation.examination import Draw, Examination, check, foreign
from genstack.evaluation.extractors import available
from genstack.evaluation.folders import Folders, common_size, drawn_by, opened
from genstack.evaluation.process_group import ProcessGroup
from genstack.evaluation.reconstructions import distances
from genstack.evaluation.reference import Reference
from genstack.evaluation.sets import FEWEST
from genstack.model import Model
from genstack.training.run import CONFIG

CARD = "card.json"
SAMPLES = 1000  # unless it is said how many
NETS = ("alex", "vgg")
TOLD = 64  # images whose captions a classifier has to know something of


def run(arguments: list[str]) -> int | None:
    """The verb; what it is to look at comes first, since that decides what images are read."""
    parser = command()
    settings = parser.parse(arguments, inherited(parser, arguments))
    evaluate(settings, parser.build(settings).data)
    return None


def command() -> Parser:
    """The command line: what is to be measured, how samples are drawn, and the images."""
    parser = Parser("genstack evaluate", inspect.getdoc(Evaluation) or "")
    parser.add_flags(Evaluation)
    add_options(parser)
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
    data = images_of(Path(place))
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
        compile: draw by networks compiled with torch.compile, half a minute or more; pays for many samples.
    """

    run: str
    fake: str = ""
    samples: int | None = None
    split: Literal["", "validation", "training", "all"] = ""
    seed: int = 0
    training: int = 10_000
    classifier: str = ""
    lpips: str = "alex,vgg"
    out: str = ""
    batch_size: int = 32
    device: str = "auto"
    compile: bool = False

    def __post_init__(self) -> None:
        if self.training < FEWEST:
            raise UserError(f"training {self.training} is too small; use {FEWEST} images or more")
        if self.batch_size < 1:
            raise UserError(f"batch_size {self.batch_size} is too small; it must be at least 1")
        if self.samples is not None and self.samples < FEWEST:
            raise UserError(f"samples {self.samples} is too small; use {FEWEST} or more")
        if self.compile:
            check_compiler()
        if unknown := set(self.nets) - set(NETS):
            raise UserError(
                f"lpips {', '.join(sorted(unknown))} is unknown; use {' or '.join(NETS)}, or both"
            )

    @property
    def nets(self) -> list[str]:
        """Networks of LPIPS."""
        return [name.strip() for name in self.lpips.split(",") if name.strip()]

    @property
    def folder(self) -> Path:
        """Where the card goes."""
        if self.out:
            return Path(self.out)
        if self.fake:
            place = Path(self.fake).expanduser()
            return place.with_name(f"{place.name}.{EVALUATION}")
        return about(Path(self.run).expanduser(), EVALUATION)


def evaluate(settings: Namespace, data: ImageData) -> None:
    """Measure, write and print.

    Args:
        settings: what is asked for.
        data: the real images.
    """
    wanted, process = made(Evaluation, settings), Process.from_environment()
    device, together = (
        choose(wanted.device, process.local_rank),
        ProcessGroup(process.rank, process.world_size),
    )
    command = {name: value for name, value in settings.as_dict().items() if name != "data"}
    say(restart_warning(), error=True)
    with together.joined():
        extractors, missing = available(device)
        perceptual, blind = distances(wanted.nets, data.preprocessing.shape, device)
        bench = Bench(
            extractors=extractors,
            perceptual=perceptual,
            refused=missing | blind,
            together=together,
            batch_size=wanted.batch_size,
            device=device,
            folder=wanted.folder,
            command=command,
        )
        card = of_folders(wanted, data, bench) if wanted.fake else of_run(wanted, settings, data, bench)
    if card is None:
        return
    card.save(wanted.folder / CARD)
    print("\n".join([*card.lines(), f"{wanted.folder / CARD} says how each was measured"]))


def of_folders(wanted: Evaluation, data: ImageData, bench: Bench) -> Card | None:
    """The card of two folders, in the first process."""
    if wanted.classifier:
        raise UserError("a classifier judges the samples of a prior's run; leave out --classifier")
    if wanted.samples is not None:
        raise UserError("samples are drawn from a prior's run, not from folders; leave out --samples")
    if wanted.compile:
        raise UserError("what is compiled draws samples of a run, not folders; leave out --compile")
    other = ImageData.for_model(data.preprocessing, wanted.fake)
    folders = Folders(data, other, bench.extractors, bench.perceptual, bench.device)
    real, fake = folders.sides
    if min(len(real), len(fake)) < FEWEST and not folders.paired:
        raise UserError(
            f"{wanted.run} has {len(real)} pictures and {wanted.fake} has {len(fake)}; {FEWEST} are the "
            "fewest that can be compared"
        )
    found = folders.look(bench.together, bench.batch_size)
    if not bench.together.first:
        return None
    card = bench.card("images", real, {"what": "pictures", **fake.told(), "drawn_by": drawn_by(other.opened)})
    if not folders.paired:
        card.refused = {name: why for name, why in card.refused.items() if not name.startswith("LPIPS")}
    folders.judge(card, found)
    return card


def of_run(wanted: Evaluation, settings: Namespace, data: ImageData, bench: Bench) -> Card | None:
    """The card of a run, in the first process."""
    model, place = load(Path(wanted.run)).to(bench.device), Path(wanted.run)
    draws = model.draws
    for name in ("samples", "classifier", "compile"):
        if not draws and getattr(wanted, name):
            raise UserError(
                f"{wanted.run} is a compressor, and has no samples; leave out --{name}, or train a prior "
                "on it"
            )
    trained = data_of(place) if (place / CONFIG).is_file() else None
    check(wanted.run, model, data, trained)
    reference = Reference(data, wanted.split or ("all" if foreign(trained, data) else "validation"))
    draw = None
    if draws:
        draw = Draw(
            options=chosen(settings, model),
            count=wanted.samples or SAMPLES,
            seed=wanted.seed,
            judges=judges(wanted.classifier, model, data, bench),
            training=wanted.training,
            compile=wanted.compile,
        )
        model.check(draw.options)
    return Examination(wanted.run, model, reference, trained, bench).card(draw)


def judges(classifier: str, model: Model, data: ImageData, bench: Bench) -> list[Judge]:
    """Those that can tell whether images show what steers the model."""
    reader = given(classifier, model.classes, data, bench.extractors, bench.device) if classifier else None
    return judges_of(model, data, Reference(data, "all", TOLD).batch(range(TOLD)).facts, reader)
