"""Compute metrics of a run, or compare two folders of images.

genstack evaluate runs/flowers-prior --samples 2048
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from functools import partial
from pathlib import Path
from typing import Any, Literal

from jsonargparse import Namespace

from genstack.checkpoints.model_file import TENSORS, load
from genstack.cli.commands import EVALUATE
from genstack.cli.parsing.device import choose_device
from genstack.cli.parsing.layers import Layers
from genstack.cli.parsing.parser import Parser, to_dataclass
from genstack.cli.parsing.paths import Place, Trained, data_settings, path_beside
from genstack.cli.parsing.sampling_options import resolve_options
from genstack.cli.parsing.stages import print_once, run_data
from genstack.cli.verbs.doctor import check_compiler, compiler_obstacle
from genstack.data import ImageData
from genstack.dist import Process, gloo_group, restart_warning
from genstack.errors import UserError
from genstack.evaluation import adm
from genstack.evaluation.agreement import Matcher, matchers_for
from genstack.evaluation.card import EVALUATION, Card, environment
from genstack.evaluation.classifiers import load_classifier
from genstack.evaluation.distances import FEWEST
from genstack.evaluation.evaluate import check_data, evaluate_folders, evaluate_run, is_training_source
from genstack.evaluation.extractors.inception import InceptionFeatures
from genstack.evaluation.folders import are_pairs, common_shape, open_folder
from genstack.evaluation.networks import Networks
from genstack.evaluation.reference import ReferenceSet
from genstack.evaluation.samples import Sampling
from genstack.model import Model
from genstack.prior import SamplingOptions
from genstack.training.files import CONFIG

CARD = "card.json"
SAMPLES = 1000  # by default
#: Flags that apply to samples only.
SAMPLING_FLAGS = ("classifier", "samples", "compile", "preset", "seed", "training", "precision")
NETS = ("alex", "vgg")
NONE = "none"  # of LPIPS or perturbations
EXAMPLES = 64  # images whose captions are checked for class names


def run(arguments: list[str]) -> int | None:
    """Run a command line."""
    parser = Parser(EVALUATE)
    settings = parser.parse(arguments, inherited_settings)
    if to_dataclass(Evaluation, settings).are_npz:
        evaluate_npz(settings)
    else:
        evaluate(settings, parser.build(settings).data)
    return None


def inherited_settings(given: Layers) -> dict[str, Any]:
    """Return the data settings of the run, or of the two folders."""
    place, generated = given.get("run"), given.get("generated")
    if place is None:
        return {}
    if generated and adm.NPZ in {Path(name).suffix for name in (place, generated)}:
        return {"data": {"source": place}}
    if generated:
        for name in (place, generated):
            if (Path(name) / TENSORS).is_file():
                raise UserError(f"{name} is a run; evaluate it alone, or give two folders of images")
        folders = [open_folder(name) for name in (place, generated)]
        if given.get("data.resolution"):
            return {"data": {"source": place}}
        channels, height, width = common_shape(folders)
        return {"data": {"source": place, "resolution": [height, width], "channels": channels}}
    data = data_settings(Path(place))
    if other := given.get("data.source"):
        data |= {"source": other, "limit": None, "condition_images": None}
    return {"data": data}


@dataclass(frozen=True)
class Evaluation:
    """Evaluate a run on held-out images, or compare two folders or two .npz files of images.

    For a compressor: PSNR, SSIM, LPIPS, rKID, rFID and codebook usage. For a prior also: likelihood, gKID,
    gFID, precision, recall, density, coverage, a classifier's score, agreement of samples with their
    condition, and near-copies of training images.

    Two .npz files, or one and a folder, are compared as ADM does (arXiv:2105.05233): FID, sFID, Inception
    score, precision and recall, by the Inception weights of torch-fidelity in $GENSTACK_WEIGHTS.

    Prints one line per number. Saves `card.json` with the whole protocol, and pictures of the worst, the best
    and the most copied images. Processes started by torchrun share the work and get the same numbers.

    Args:
        run: run folder or published file; or the real images: a folder, or an .npz file of images (arr_0) or
            of statistics (mu, sigma, mu_s, sigma_s).
        generated: folder or .npz file of images to compare with the real ones.
        statistics: .npz file to write with the statistics of the real images of an .npz file.
        samples: number of samples of a prior, 1000 by default; FID needs at least 2048.
        split: real images to use: validation, training or all; by default the held-out ones, or all images of
            another --data.source.
        seed: seed of the samples.
        training: maximum number of training images searched for near-copies.
        classifier: checks the classes of samples: a folder with one folder of images per class, a .pt2 file
            of torch.export, or an .onnx file; programs take images in [-1, 1] and are run, so use one you
            trust. A .txt file beside it lists its classes, one per line; by default they are the run's.
            Captions count if they name exactly one class.
        lpips: networks of LPIPS, separated by commas; vgg takes about 15 times as long as alex. `none` to
            skip LPIPS.
        perturb: shares of codes, separated by commas, that are replaced by others of the same image before
            decoding; their distances (pKID, pFID) predict the distances of samples.
            `none` to skip them.
        out: folder for the card and the pictures; RUN/evaluation or GENERATED.evaluation by default.
        batch_size: images per batch, and samples per batch.
        device: auto, cpu, cuda or mps.
        precision: precision of the sampling networks, fp32 or bf16; metrics use fp32.
        compile: sample with torch.compile (15 to 40 seconds on a CPU): true, false, or auto, which compiles
            if the remaining batches would take over 2.5 minutes.
    """

    run: Trained
    generated: Place = ""
    statistics: Place = ""
    samples: int | None = None
    split: Literal["", "validation", "training", "all"] = ""
    seed: int = 0
    training: int = 10_000
    classifier: Place = ""
    lpips: str = "alex,vgg"
    perturb: str = "0.25"
    out: Place = ""
    batch_size: int = 32
    device: str = "auto"
    precision: Literal["fp32", "bf16"] = "fp32"
    compile: bool | Literal["auto"] = "auto"

    def __post_init__(self) -> None:
        if self.training < FEWEST:
            raise UserError(f"training must be at least {FEWEST}, got {self.training}")
        if self.batch_size < 1:
            raise UserError(f"batch_size must be at least 1, got {self.batch_size}")
        if self.samples is not None and self.samples < FEWEST:
            raise UserError(f"samples must be at least {FEWEST}, got {self.samples}")
        if self.compile is True:
            check_compiler()
        if self.statistics and not self.are_npz:
            raise UserError("--statistics applies to comparisons with .npz files; leave it out")
        if any(not 0 < rate <= 1 for rate in self.rates):
            raise UserError(f"perturb must be numbers above 0, at most 1, got {self.perturb}")
        if unknown := set(self.nets) - set(NETS):
            raise UserError(
                f"unknown lpips {', '.join(sorted(unknown))}; use {' or '.join(NETS)}, both, or {NONE}"
            )

    @property
    def are_npz(self) -> bool:
        """True for two sets of images of which one is an .npz file."""
        return bool(self.generated) and adm.NPZ in {Path(self.run).suffix, Path(self.generated).suffix}

    @property
    def nets(self) -> list[str]:
        """Networks of LPIPS by name."""
        return [] if self.lpips == NONE else [name.strip() for name in self.lpips.split(",")]

    @property
    def rates(self) -> list[float]:
        """Shares of perturbed codes."""
        try:
            return [] if self.perturb == NONE else [float(rate) for rate in self.perturb.split(",")]
        except ValueError as error:
            raise UserError(
                f"perturb must be numbers separated by commas, or {NONE}, got {self.perturb}"
            ) from error

    @property
    def folder(self) -> Path:
        """Folder of the card."""
        if self.out:
            return Path(self.out)
        if self.generated:
            place = Path(self.generated)
            return place.with_name(f"{place.name}.{EVALUATION}")
        return path_beside(Path(self.run), EVALUATION)


def evaluate(settings: Namespace, data: ImageData) -> None:
    """Evaluate on the real images of `data`, save the card and print it."""
    flags, process = to_dataclass(Evaluation, settings), Process.from_environment()
    print_once(restart_warning(), error=True)
    with gloo_group(process.rank, process.world_size):
        shape, device = data.preprocessing.shape, choose_device(flags.device, process.local_rank)
        load_networks = partial(Networks.load, flags.nets, shape, device)  # once nothing is refused
        if flags.generated:
            card, model = compare_folders(flags, settings, data, load_networks), dict[str, Any]()
        else:
            card, model = measure_run(flags, settings, data, device, load_networks)
    if card is None:
        return
    command = {name: value for name, value in settings.as_dict().items() if name != "data"}
    card.protocol = {"command": command, **card.protocol, "processes": process.world_size, **model}
    card.save(flags.folder / CARD)
    print("\n".join([*card.lines(), f"protocol: {flags.folder / CARD}"]))


def evaluate_npz(settings: Namespace) -> None:
    """Compare .npz files or folders as ADM does, save the card and print it."""
    flags, process = to_dataclass(Evaluation, settings), Process.from_environment()
    if given := given_flags(settings, (*SAMPLING_FLAGS, "split", "perturb", "lpips")):
        name = given[0].replace("_", "-")
        raise UserError(f"--{name} does not apply to .npz files; leave it out")
    real, generated = (adm.Images.open(Path(name).expanduser()) for name in (flags.run, flags.generated))
    extractor = InceptionFeatures(choose_device(flags.device, process.local_rank), spatial=True)
    print_once(restart_warning(), error=True)
    with gloo_group(process.rank, process.world_size):
        card = adm.compare(real, generated, extractor, flags.batch_size, flags.statistics)
    if card is not None:
        card.protocol |= {**environment(), "processes": process.world_size}
        card.save(flags.folder / CARD)
        print("\n".join([*card.lines(), f"protocol: {flags.folder / CARD}"]))


def given_flags(settings: Namespace, names: Sequence[str]) -> list[str]:
    """Names of the flags of a run, and of sampling options, that have other values than their defaults."""
    defaults = {each.name: each.default for each in fields(Evaluation)} | {"preset": ""}
    options = [each.name for each in fields(SamplingOptions)]
    flags = [name for name in names if settings[name] != defaults[name]]
    return [*flags, *(name for name in options if settings[name] is not None)]


def compare_folders(
    flags: Evaluation, settings: Namespace, data: ImageData, load_networks: Callable[[], Networks]
) -> Card | None:
    """Compare two folders of images; return the card in the first process."""
    if given := given_flags(settings, (*SAMPLING_FLAGS, "split", "perturb")):
        name = given[0].replace("_", "-")
        raise UserError(f"--{name} applies to a run, not to folders; leave it out")
    other = ImageData.for_model(data.preprocessing, flags.generated)
    print_once("\n".join([*data.unread, *other.unread]), error=True)
    real, generated = ReferenceSet(data, "all"), ReferenceSet(other, "all")
    if min(len(real), len(generated)) < FEWEST and not are_pairs(real, generated):
        raise UserError(
            f"{flags.run} has {len(real)} images and {flags.generated} has {len(generated)}; a comparison "
            f"needs at least {FEWEST} images in each"
        )
    return evaluate_folders(real, generated, load_networks(), flags.batch_size)


def measure_run(
    flags: Evaluation,
    settings: Namespace,
    data: ImageData,
    device: str,
    load_networks: Callable[[], Networks],
) -> tuple[Card | None, dict[str, Any]]:
    """Evaluate a run; return the card in the first process, and the model's identity."""
    model, place = load(Path(flags.run)).to(device), Path(flags.run)
    if not model.can_sample and (given := given_flags(settings, SAMPLING_FLAGS)):
        name = given[0].replace("_", "-")
        raise UserError(
            f"{flags.run} is a compressor and has no samples; leave out --{name}, or train a prior on it"
        )
    training = run_data(place) if (place / CONFIG).is_file() else None
    check_data(flags.run, model, data, training)
    print_once("\n".join(data.unread), error=True)
    held_out = is_training_source(training, data)
    reference = ReferenceSet(data, flags.split or ("validation" if held_out else "all"))
    options = resolve_options(settings, model) if model.can_sample else None
    if options is not None:
        model.check_options(options)
    networks, sampling = load_networks(), None
    if options is not None:
        sampling = Sampling(
            options=options,
            count=flags.samples or SAMPLES,
            seed=flags.seed,
            matchers=matchers(flags.classifier, model, data, networks),
            training=flags.training,
            precision=flags.precision,
            batch_size=flags.batch_size,
            compile=flags.compile,
            obstacle=compiler_obstacle,
        )
    card = evaluate_run(
        model, reference, training, sampling, networks, flags.batch_size, flags.folder, flags.rates
    )
    return card, {"model": {"path": flags.run, "sha256": model.fingerprint}}


def matchers(name: str, model: Model, data: ImageData, networks: Networks) -> list[Matcher]:
    """Return the matchers, which check if samples show their condition.

    Args:
        name: path of the user's classifier; "" for none.
        model: the model of the run.
        data: the real images.
        networks: feature extractors for a classifier by nearest neighbours.
    """
    classifier = None
    if name:
        classifier = load_classifier(name, model.classes, data, networks.extractors, networks.device)
    examples = ReferenceSet(data, "all", EXAMPLES).batch(range(EXAMPLES)).inputs
    return matchers_for(model, data, examples, classifier)
