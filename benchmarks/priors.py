"""Every prior on the codes or latents of digits, with about as many weights and as much processor time.

    OMP_NUM_THREADS=1 python benchmarks/priors.py [--seconds 60] [--compressor RUN] [--out priors.json]

Priors of one grid learn the same codes, those of configs/demo/digits_compressor.yaml: of a run, or trained
here.
ResidualTransformer, NextScale and Hierarchical read codes that other priors do not; each has a small
compressor of its own, and their nats are not those of the same codes. FlowMatching reads the latents of a VAE
of the same network; its nats are a density, per latent number. The table goes to the terminal; `--out`
also keeps the numbers, in a file that is whole after every prior: a run that was stopped goes on.
"""

import argparse
import json
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from functools import cache
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from genstack.atomic import atomic_path
from genstack.checkpoints.model_file import load
from genstack.compressor import Autoencoder, Compressor, Convolutional, Gaussian
from genstack.compressor.hierarchical import HierarchicalAutoencoder
from genstack.compressor.networks.strided import Strided
from genstack.compressor.quantizers import MultiScale, Residual, VectorQuantizer
from genstack.conditions import ClassLabels, Condition
from genstack.data import ImageData
from genstack.data.transforms import Augmentation
from genstack.evaluation.extractors.efficientnet import EfficientNetFeatures
from genstack.evaluation.metrics.kid import kid
from genstack.evaluation.metrics.neighbours import downsample, near_copies, vote
from genstack.evaluation.reference import as_saved
from genstack.layout import Layout
from genstack.losses.fidelity import psnr
from genstack.prior import Autoregressive, Prior, SamplingOptions, image_seeds
from genstack.prior.diffusion import Diffusion
from genstack.prior.flow_matching import FlowMatching
from genstack.prior.hierarchical import Hierarchical
from genstack.prior.masked import Masked
from genstack.prior.next_scale import NextScale
from genstack.prior.pixelcnn import GatedPixelCNN
from genstack.prior.pixelsnail import PixelSNAIL
from genstack.prior.random_order import RandomOrder
from genstack.prior.residual import ResidualTransformer
from genstack.training.ema import ema_model
from genstack.training.optimization import Optimization, clip
from genstack.transformer import Backbone

NETWORK = Convolutional(dim=32, width=32, multipliers=(1, 2), blocks=1, attention=(), middle_attention=False)
DATA = ImageData(
    "digits", 8, channels=1, validation=0.2, batch_size=64, augmentation=Augmentation(rotate=10.0, shift=0.06)
)
BATCH = 64
VIEWS = 120  # batches of varied training images whose codes the priors learn, drawn from at random
SAMPLES = 256
ROUND = 32  # images drawn at once
RESOLUTION = 1000  # steps that the schedule of the learning rate is told of: time has no number of steps
TITLE = ("weights", "steps", "nats/code", "nats/image", "likelihood", "label read", "KID", "near-copies")
TITLE += ("images/s", "compressor")

#: What turns 8x8 pixels into codes of 64: 16 of them, or 21 on three grids, or 20 on two.
COMPRESSORS: dict[str, Callable[[], Compressor]] = {
    "4x4": lambda: Autoencoder(1, NETWORK, VectorQuantizer(64, dim=8)),
    "4x4 latents": lambda: Autoencoder(1, NETWORK, Gaussian(4, divergence_weight=1e-3)),
    "2x2, depth 4": lambda: Autoencoder(
        1, replace(NETWORK, multipliers=(1, 2, 2)), Residual(4, 64, dim=8, codebook_init="kmeans")
    ),
    "1-2-4": lambda: Autoencoder(1, NETWORK, MultiScale((1, 2, 4), 64, dim=8)),
    "2x2 + 4x4": lambda: HierarchicalAutoencoder(
        1,
        Strided(dim=32, stride=2, blocks=1, inner=16),
        VectorQuantizer(64, dim=8),
        Strided(dim=32, stride=2, blocks=1, inner=16),
    ),
}

BACKBONE = Backbone(width=128, depth=4, heads=4)
#: Kinds of likelihood in the table, by their first word.
KINDS = {"exact": "exact", "upper": "bound", "estimate": "density"}

#: Each prior, and the compressor that it reads; about 0.9 million weights each.
MADE: dict[str, tuple[str, Callable[[Layout, Condition], Prior]]] = {
    "Autoregressive": ("4x4", lambda layout, condition: Autoregressive(layout, condition, BACKBONE)),
    "RandomOrder": ("4x4", lambda layout, condition: RandomOrder(layout, condition, BACKBONE)),
    "Masked": ("4x4", lambda layout, condition: Masked(layout, condition, BACKBONE)),
    "Diffusion": ("4x4", lambda layout, condition: Diffusion(layout, condition, BACKBONE)),
    "FlowMatching": (
        "4x4 latents",
        lambda layout, condition: FlowMatching(layout, condition, replace(BACKBONE, adaln="shared")),
    ),
    "GatedPixelCNN": (
        "4x4",
        lambda layout, condition: GatedPixelCNN(layout, condition, width=84, layers=5, kernel=3),
    ),
    "PixelSNAIL": (
        "4x4",
        lambda layout, condition: PixelSNAIL(layout, condition, width=104, blocks=2, layers=2, heads=4),
    ),
    "ResidualTransformer": (
        "2x2, depth 4",
        lambda layout, condition: ResidualTransformer(layout, condition, replace(BACKBONE, depth=3), 1),
    ),
    "NextScale": (
        "1-2-4",
        lambda layout, condition: NextScale(
            layout, condition, Backbone(width=120, depth=3, heads=5, adaln="own")
        ),
    ),
    "Hierarchical": (
        "2x2 + 4x4",
        lambda layout, condition: Hierarchical(
            layout, condition, replace(BACKBONE, depth=2), replace(BACKBONE, depth=2)
        ),
    ),
}


@dataclass(frozen=True)
class Measured:
    """Results of one prior.

    Args:
        name: of the prior.
        weights: number of its parameters.
        steps: optimizer steps that it could do in its time.
        nats_per_code: of held-out codes, given their class.
        nats: of a held-out image's codes, given its class.
        likelihood: whether these are exact, a bound, or an estimate of a density.
        agreement: share of samples in which a vote of the nearest training images reads the class.
        kid: KID-EffLite0 of samples to held-out images.
        kid_reconstructions: that of reconstructions of the held-out images, which is its floor.
        copies: share of samples nearer to a training image than 95 % of held-out images are.
        rate: images drawn in a second of processor time, codes alone.
        compressor: whose codes it learned.
        psnr: of that compressor's reconstructions of held-out images, dB.
    """

    name: str
    weights: int
    steps: int
    nats_per_code: float
    nats: float
    likelihood: str
    agreement: float
    kid: float
    kid_reconstructions: float
    copies: float
    rate: float
    compressor: str
    psnr: float

    @property
    def row(self) -> str:
        """A line of the table."""
        cells = [
            f"{self.weights / 1e6:.2f} M",
            f"{self.steps:,}",
            f"{self.nats_per_code:.3f}",
            f"{self.nats:.1f}",
            KINDS[self.likelihood.partition(" ")[0]],
            f"{self.agreement:.1%}",
            f"{self.kid:.3f} ({self.kid_reconstructions:.3f})",
            f"{self.copies:.1%}",
            f"{self.rate:,.0f}",
            f"{self.compressor}, {self.psnr:.1f} dB",
        ]
        return "| " + " | ".join([self.name, *cells]) + " |"


@dataclass(frozen=True)
class Codes:
    """Codes and reconstructions of a compressor.

    Args:
        compressor: in eval mode.
        learned: codes, or posteriors of latents, of varied training images.
        labels: their classes.
        held_out: codes of the images laid aside.
        psnr: of their reconstructions.
        kid: of their reconstructions.
    """

    compressor: Compressor
    learned: Tensor
    labels: Tensor
    held_out: Tensor
    psnr: float
    kid: float


@cache
def varied() -> tuple[Tensor, Tensor]:
    """Training images as augmentation varies them, and their classes."""
    batches = [batch for batch, _ in zip(DATA.training_loader(), range(VIEWS), strict=False)]
    return torch.cat([batch.images for batch in batches]), torch.cat([batch.labels for batch in batches])


@cache
def held_out() -> tuple[Tensor, Tensor]:
    """Images laid aside, and their classes."""
    batch = DATA.examples("validation")
    return batch.images, batch.labels


@cache
def training_images() -> tuple[Tensor, Tensor]:
    """The downsampled training images, and their classes."""
    batch = DATA.examples("training")
    return downsample(batch.images), batch.labels


def distance(images: Tensor) -> float:
    """KID-EffLite0 of images to those held out; both rounded as files are."""
    return kid(features_held_out(), seen(images))[0]


@cache
def features_held_out() -> Tensor:
    """Features of held-out images."""
    return seen(held_out()[0])


def seen(images: Tensor) -> Tensor:
    """Features of images."""
    network = looking()
    parts = as_saved(images, DATA.preprocessing).split(64)
    return torch.cat([network(part).vectors for part in parts])


@cache
def looking() -> EfficientNetFeatures:
    """The network of the distance."""
    return EfficientNetFeatures("cpu")


def trained(compressor: Compressor, steps: int) -> Compressor:
    """A compressor of digits, trained by its recipe."""
    images = varied()[0]
    plan = Optimization(learning_rate=2e-3, warmup="5%")
    optimizer, schedule = plan.optimizer([compressor], steps)
    average = ema_model(compressor, 0.99)
    for _ in range(steps):
        batch = images[torch.randint(len(images), (BATCH,))]
        made = compressor(batch)
        loss = F.mse_loss(made.images, batch) + sum(made.losses.values())
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        schedule.step()
        compressor.after_step(skipped=False)
        average.update_parameters(compressor)
    return average.module


@cache
@torch.no_grad()
def encoded(name: str, run: Path | None, steps: int, seed: int) -> Codes:
    """The codes of the images by one compressor."""
    torch.manual_seed(seed)
    with torch.enable_grad():
        compressor = load(run).compressor if run else trained(COMPRESSORS[name](), steps)
    compressor.eval()
    images, labels = varied()
    real = held_out()[0]
    back = compressor(real).images.clamp(-1, 1)
    codes = torch.cat([compressor.posterior(part) for part in images.split(256)])
    return Codes(
        compressor, codes, labels, compressor.posterior(real), float(psnr(back, real).mean()), distance(back)
    )


def learn(prior: Prior, codes: Codes, seconds: float) -> tuple[Prior, int]:
    """The prior with averaged weights after so much processor time, and the steps that it took."""
    plan = Optimization(learning_rate=1e-3, weight_decay=0.05)
    optimizer, _ = plan.optimizer([prior], RESOLUTION)
    average = ema_model(prior, 0.99)
    begun, steps = time.process_time(), 0
    while (progress := (time.process_time() - begun) / seconds) < 1:
        for group in optimizer.param_groups:
            group["lr"] = plan.learning_rate * plan.factor(int(progress * RESOLUTION), RESOLUTION)
        chosen = torch.randint(len(codes.learned), (BATCH,))
        prior.before_step(progress)
        optimizer.zero_grad(set_to_none=True)
        prior.loss(prior.read(codes.learned[chosen]), codes.labels[chosen]).backward()
        clip(optimizer, 1.0)
        optimizer.step()
        average.update_parameters(prior)
        steps += 1
    return average.module.eval(), steps


def drawn(prior: Prior) -> tuple[Tensor, Tensor, float]:
    """Codes of all classes in turn, their classes, and how many images a second of processor time makes."""
    labels = torch.arange(SAMPLES) % 10
    seeds = image_seeds(0, range(SAMPLES))
    prior.sample(labels[:ROUND], SamplingOptions(), seeds[:ROUND])  # whatever is prepared once, is now
    begun = time.process_time()
    rounds = zip(labels.split(ROUND), seeds.split(ROUND), strict=True)
    codes = torch.cat([prior.sample(asked, SamplingOptions(), each) for asked, each in rounds])
    return codes, labels, SAMPLES / (time.process_time() - begun)


def measure(name: str, seconds: float, run: Path | None, steps: int, seed: int) -> Measured:
    """Train one prior and look at what it makes."""
    kind, make = MADE[name]
    codes = encoded(kind, run if kind == "4x4" else None, steps, seed)
    layout = codes.compressor.layout(*DATA.size)
    torch.manual_seed(seed)
    prior = make(layout, ClassLabels().fit(DATA.info)).train()
    prior.attach(codes.compressor)
    prior.fit(codes.compressor, [codes.learned])
    learned, taken = learn(prior, codes, seconds)
    images, labels = held_out()
    with torch.no_grad():
        values = learned.read(codes.held_out)
        nats = float(learned.nats(values, labels).mean())
        made, asked, rate = drawn(learned)
        pictures = as_saved(codes.compressor.decode(made, layout).clamp(-1, 1), DATA.preprocessing)
    return Measured(
        name,
        weights=sum(parameter.numel() for parameter in prior.parameters()),
        steps=taken,
        nats_per_code=nats / values[0].numel(),
        nats=nats,
        likelihood=learned.likelihood,
        agreement=float((vote(downsample(pictures), *training_images()) == asked).float().mean()),
        kid=distance(pictures),
        kid_reconstructions=codes.kid,
        copies=near_copies(downsample(pictures), training_images()[0], downsample(images)),
        rate=rate,
        compressor=kind,
        psnr=codes.psnr,
    )


def main() -> None:
    """Measure one after the other, and print the table."""
    arguments = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    arguments.add_argument("--seconds", type=float, default=60.0, help="processor time to train each prior")
    arguments.add_argument("--compressor", type=Path, help="run of digits_compressor; trained if left out")
    arguments.add_argument("--steps", type=int, default=200, help="of every compressor that is trained here")
    arguments.add_argument("--seed", type=int, default=0, help="of weights and of all noise in training")
    arguments.add_argument("--only", nargs="+", choices=list(MADE), default=list(MADE), help="some of them")
    arguments.add_argument("--out", type=Path, help="a JSON file for the numbers")
    given = arguments.parse_args()
    known = {each.name: each for each in kept(given)}
    print("| | " + " | ".join(TITLE) + " |\n" + "|---" * (len(TITLE) + 1) + "|", flush=True)
    for name in given.only:
        if name not in known:
            known[name] = measure(name, given.seconds, given.compressor, given.steps, given.seed)
        print(known[name].row, flush=True)
        keep(given, list(known.values()))


def protocol(given: argparse.Namespace) -> dict[str, object]:
    """Protocol, which all numbers of a file share."""
    run = given.compressor and str(given.compressor.resolve())
    return {"seconds": given.seconds, "compressor": run, "steps": given.steps, "seed": given.seed}


def kept(given: argparse.Namespace) -> list[Measured]:
    """Results in a file with the same protocol."""
    if given.out is None or not given.out.exists():
        return []
    numbers = json.loads(given.out.read_text())
    if numbers["protocol"] != protocol(given):
        sys.exit(f"{given.out} was measured with {numbers['protocol']}; give another --out")
    return [Measured(**each) for each in numbers["measured"]]


def keep(given: argparse.Namespace, found: list[Measured]) -> None:
    """Write the numbers, whole."""
    if given.out is None:
        return
    numbers = {"protocol": protocol(given), "torch": str(torch.__version__)}
    with atomic_path(given.out) as partial:
        partial.write_text(json.dumps(numbers | {"measured": [asdict(each) for each in found]}, indent=1))


if __name__ == "__main__":
    main()
