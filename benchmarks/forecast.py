"""Forecast of sample quality from a compressor alone: rank correlation with the samples of a later prior.

    python benchmarks/pictures.py --out PICTURES
    OMP_NUM_THREADS=1 python benchmarks/forecast.py --pictures PICTURES --out forecast.json

Compressors of different quality (codes, positions, width, losses, steps) get the same autoregressive prior
for the same processor time. KID-EffLite0 of reconstructions (rKID), of reconstructions of perturbed codes
(pKID, as in `genstack evaluate --perturb`) and of samples (gKID) are measured on held-out pictures. The last
table has the rank correlation of each number of the compressor with gKID.
"""

import argparse
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from statistics import median
from typing import Any

import torch
from families import (
    BACKBONE,
    DROPPED,
    SIDE,
    bits_per_pixel,
    features,
    learn,
    measure_all,
    posteriors,
    read,
    sample,
)
from scipy.stats import spearmanr
from speedrun import PLAIN, Contender, recipe, train
from torch import Tensor

from genstack.compressor import Autoencoder
from genstack.compressor.bottleneck import Quantizer
from genstack.compressor.quantizers import FSQ, LFQ, VectorQuantizer
from genstack.conditions.class_labels import ClassLabels
from genstack.evaluation.metrics.kid import kid
from genstack.evaluation.perturbation import perturb
from genstack.prior import Autoregressive

SAMPLES = 512
RATES = (0.1, 0.25, 0.5, 1.0)  # shares of perturbed positions


@dataclass(frozen=True)
class Variant:
    """A compressor that differs from the others in quality.

    Args:
        quantizer: builds the quantizer.
        network: changes of the convolutional network, which has 8 x 8 positions and 16 channels.
        perceptual: train with LPIPS.
        pace: share of the steps.
    """

    quantizer: Callable[[], Quantizer] = lambda: VectorQuantizer(1024, dim=8)
    network: dict[str, Any] = field(default_factory=dict)
    perceptual: bool = True
    pace: float = 1.0

    def contender(self) -> Contender:
        """The compressor and all that trains it."""
        given = recipe("vqgan", **({"width": 16, "multipliers": (1, 2, 4), "attention": ()} | self.network))
        model = Autoencoder(3, given.model.network, self.quantizer())
        return replace(given, model=model, ema=0.98, perceptual=given.perceptual if self.perceptual else None)


VARIANTS = {
    "VQ, 2^10": Variant(),
    "VQ, 2^6": Variant(lambda: VectorQuantizer(64, dim=8)),
    "VQ, 2^13": Variant(lambda: VectorQuantizer(8192, dim=8)),
    "VQ, 2^10, of 256 dimensions, random rows": Variant(
        lambda: VectorQuantizer(1024, dim=256, normalize=False, **PLAIN)
    ),
    "VQ, 2^10, a quarter of the steps": Variant(pace=0.25),
    "VQ, 2^10, without LPIPS": Variant(perceptual=False),
    "VQ, 2^10, 8 channels": Variant(network={"width": 8}),
    "VQ, 2^10, 4 x 4 positions": Variant(network={"multipliers": (1, 2, 4, 4)}),
    "VQ, 2^10, 16 x 16 positions": Variant(network={"multipliers": (1, 4)}),
    "FSQ, 1000": Variant(lambda: FSQ((8, 5, 5, 5))),
    "LFQ, 2^10": Variant(lambda: LFQ(10)),
    "LFQ, 2^18 as two codes of 2^9": Variant(lambda: LFQ(18, depth=2)),
}
#: Compressors with other numbers of positions or codes, whose priors have more or less to learn.
OTHER_LAYOUTS = {
    "VQ, 2^6",
    "VQ, 2^13",
    "VQ, 2^10, 4 x 4 positions",
    "VQ, 2^10, 16 x 16 positions",
    "LFQ, 2^18 as two codes of 2^9",
}


@dataclass(frozen=True)
class Row:
    """One compressor and its prior, with one seed.

    Args:
        variant: name of the compressor.
        pictures: name of the set.
        seed: of compressor, prior and samples.
        psnr: of reconstructions, dB.
        lpips: LPIPS-Alex of them.
        usage: share of the codebook that held-out pictures use.
        rkid: KID of reconstructions.
        pkids: KID of reconstructions of perturbed codes, by share.
        steps: optimizer steps of the prior.
        bits: per pixel of held-out pictures under the prior.
        gkid: KID of samples.
    """

    variant: str
    pictures: str
    seed: int
    psnr: float
    lpips: float
    usage: float
    rkid: float
    pkids: list[float]
    steps: int
    bits: float
    gkid: float


@torch.no_grad()
def decode(model: Autoencoder, codes: Tensor) -> Tensor:
    """Images of codes, as bytes."""
    layout = model.layout(SIDE, SIDE)
    images = torch.cat([model.decode(part, layout) for part in codes.split(64)])
    return ((images.float().clamp(-1, 1) + 1) * 127.5).round().byte()


def measure(name: str, folder: Path, seed: int, given: argparse.Namespace) -> Row:
    """Train one compressor and a prior on it, and compare reconstructions and samples with real pictures."""
    variant, pictures, held_out = VARIANTS[name], read(folder, "train"), read(folder, "held_out")
    steps = round(given.steps * variant.pace)
    model, (last,) = train(
        variant.contender, pictures.images, held_out.images, steps, seed, bf16=True, measurements=1
    )
    codes, real = posteriors(model, pictures.images), posteriors(model, held_out.images)
    layout, classes = model.layout(SIDE, SIDE), len(pictures.labels.unique())

    def distance(images: Tensor) -> float:
        return kid(held_out.features, features(images))[0]

    perturbed = [perturb(real, layout, rate, range(len(real))) for rate in RATES]
    torch.manual_seed(seed)
    condition = ClassLabels(tuple(f"class {number}" for number in range(classes)), DROPPED)
    prior = Autoregressive(layout, condition, BACKBONE)
    prior.attach(model)
    prior.fit(model, [codes])
    learned, taken = learn(prior, codes.__getitem__, pictures.labels, given.seconds)
    asked = held_out.labels[torch.arange(SAMPLES) % len(held_out.labels)]
    images, _ = sample(learned, model, asked, 1.0)
    return Row(
        name,
        folder.name,
        seed,
        last.psnr,
        last.lpips,
        last.usage,
        distance(decode(model, real)),
        [distance(decode(model, each)) for each in perturbed],
        taken,
        bits_per_pixel(learned, real, held_out.labels),
        distance(images),
    )


#: Numbers of a compressor without a prior that may forecast gKID; lower is better.
FORECASTS: dict[str, Callable[[Row], float]] = {
    "PSNR": lambda row: -row.psnr,
    "LPIPS": lambda row: row.lpips,
    "rKID": lambda row: row.rkid,
    **{f"pKID ({rate:.0%})": lambda row, at=at: row.pkids[at] for at, rate in enumerate(RATES)},  # type: ignore[misc]
}


def table(rows: list[Row]) -> str:
    """Medians over seeds of each compressor on each set, by gKID, and rank correlations with it."""
    title = ["PSNR", "LPIPS", "usage", *list(FORECASTS)[2:], "steps", "bits/pixel", "gKID"]
    lines, correlations = [], {}
    for pictures in dict.fromkeys(row.pictures for row in rows):
        found = [row for row in rows if row.pictures == pictures]
        kinds = [[row for row in found if row.variant == name] for name in {row.variant for row in found}]
        kinds.sort(key=lambda kind: median(row.gkid for row in kind))
        lines.append("\n| " + " | ".join((pictures, *title)) + " |")
        lines.append("|---" * (len(title) + 1) + "|")
        for kind in kinds:
            values = [f"{median(row.psnr for row in kind):.1f}", f"{median(row.lpips for row in kind):.3f}"]
            values.append(f"{median(row.usage for row in kind):.0%}")
            values += [f"{median(map(of, kind)):.2f}" for of in list(FORECASTS.values())[2:]]
            values += [f"{median(row.steps for row in kind):.0f}", f"{median(row.bits for row in kind):.3f}"]
            values.append(f"{median(row.gkid for row in kind):.2f}")
            lines.append("| " + " | ".join((kind[0].variant, *values)) + " |")
        alike = [kind for kind in kinds if kind[0].variant not in OTHER_LAYOUTS]
        for label, group in ((pictures, kinds), (f"{pictures}, equal layout", alike)):
            quality = [median(row.gkid for row in kind) for kind in group]
            for name, of in FORECASTS.items():
                ranked = spearmanr([median(map(of, kind)) for kind in group], quality).statistic
                correlations.setdefault(name, []).append((label, len(group), ranked))
    first = next(iter(correlations.values()))
    lines.append(
        "\n| rank correlation with gKID | " + " | ".join(f"{each[0]}, {each[1]}" for each in first) + " |"
    )
    lines.append("|---" * (len(first) + 1) + "|")
    for name, each in correlations.items():
        lines.append("| " + " | ".join((name, *(f"{value:.2f}" for *_, value in each))) + " |")
    return "\n".join(lines)


def main() -> None:
    """Measure every compressor on every set with every seed, and print the tables."""
    arguments = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    arguments.add_argument("--pictures", type=Path, required=True, help="folder of benchmarks/pictures.py")
    arguments.add_argument(
        "--out", type=Path, required=True, help="a JSON file; a run that was stopped goes on"
    )
    arguments.add_argument("--sets", nargs="+", default=["emoji", "clipart"], help="sets with classes")
    arguments.add_argument("--only", nargs="+", choices=list(VARIANTS), default=list(VARIANTS))
    arguments.add_argument("--seeds", type=int, nargs="+", default=[0], help="of weights, batches and noise")
    arguments.add_argument("--steps", type=int, default=250, help="of every compressor")
    arguments.add_argument("--seconds", type=float, default=50, help="processor time to train each prior")
    given = arguments.parse_args()
    torch.set_num_threads(1)
    print(table(measure_all(given, Row, "variant", measure)))


if __name__ == "__main__":
    main()
