"""Codes, bits and latents under one transformer at equal time: what samples of each are worth.

    python benchmarks/pictures.py --out PICTURES
    OMP_NUM_THREADS=1 python benchmarks/families.py --pictures PICTURES --out families.json [--seeds 0 1]

Compressors share the network of configs/compressor/vqgan.yaml, 16 channels wide at 32 px (8 x 8 positions),
and its losses without the adversary; only what lies between encoder and decoder differs. Priors share a
backbone, the class as condition, the optimizer, and the processor time. Samples are compared with held-out
pictures by KID-EffLite0; a linear layer over these features, fitted to training pictures, reads the class.
"""

import argparse
import csv
import json
import math
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from functools import cache
from itertools import product
from pathlib import Path
from statistics import median

import numpy as np
import torch
from PIL import Image
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler
from speedrun import Contender, recipe, train
from torch import Tensor

from genstack.atomic import atomic_path
from genstack.compressor import Autoencoder, Gaussian
from genstack.compressor.bottleneck import Bottleneck
from genstack.compressor.quantizers import BSQ, LFQ, MultiScaleResidual, VectorQuantizer
from genstack.conditions.class_labels import ClassLabels
from genstack.evaluation.extractors.efficientnet import EfficientNetFeatures
from genstack.evaluation.metrics.kid import kid
from genstack.prior import Autoregressive, Prior, SamplingOptions, image_seeds
from genstack.prior.flow_matching import FlowMatching
from genstack.prior.masked import Masked
from genstack.prior.masked_bits import MaskedBits
from genstack.prior.next_scale import NextScale
from genstack.prior.symbols import Bits
from genstack.training.ema import ema_model
from genstack.training.optimization import Optimization, clip
from genstack.transformer.backbone import Backbone

SIDE, BATCH, SAMPLES, ROUND = 32, 32, 256, 32
DROPPED = 0.1  # share of training pictures without their class
PLAN = Optimization(learning_rate=1e-3, weight_decay=0.05, warmup="5%", muon=6e-3)
RESOLUTION = 1000  # points of the schedule over the time of a training
BACKBONE = Backbone(width=128, depth=4, heads=4)
OWN_ADALN = replace(BACKBONE, adaln="own")  # as VAR and Infinity
GUIDANCES = (1.0, 2.0)

#: What lies between encoder and decoder. Bits of one position are one code for bit heads, two for softmax.
BOTTLENECKS: dict[str, Callable[[], Bottleneck]] = {
    "VQ, 2^10": lambda: VectorQuantizer(1024, dim=8),
    "LFQ, 2^18": lambda: LFQ(18),
    "LFQ, 2^18 as two codes of 2^9": lambda: LFQ(18, depth=2),
    "BSQ, 2^32": lambda: BSQ(32),
    "BSQ, 2^16 on six grids": lambda: MultiScaleResidual(BSQ(16), scales=(1, 2, 3, 4, 6, 8)),
    "VAE, 8 channels": lambda: Gaussian(8, divergence_weight=1e-4, free_bits=0.1),
}
#: Each prior by its bottleneck and what it makes of a layout and a condition.
PRIORS: dict[str, tuple[str, Callable[..., Prior]]] = {
    "Autoregressive, softmax": ("VQ, 2^10", lambda *to: Autoregressive(*to, BACKBONE)),
    "Autoregressive, regions 2,2": ("VQ, 2^10", lambda *to: Autoregressive(*to, BACKBONE, regions=(2, 2))),
    "Autoregressive, regions 4,4": ("VQ, 2^10", lambda *to: Autoregressive(*to, BACKBONE, regions=(4, 4))),
    "Masked, softmax": ("VQ, 2^10", lambda *to: Masked(*to, BACKBONE)),
    "Autoregressive, two softmax": (
        "LFQ, 2^18 as two codes of 2^9",
        lambda *to: Autoregressive(*to, BACKBONE),
    ),
    "Autoregressive, bits": ("LFQ, 2^18", lambda *to: Autoregressive(*to, BACKBONE, symbols=Bits())),
    "Autoregressive, bits of 32": ("BSQ, 2^32", lambda *to: Autoregressive(*to, BACKBONE, symbols=Bits())),
    "Autoregressive, masked bits of 32": (
        "BSQ, 2^32",
        lambda *to: Autoregressive(*to, BACKBONE, symbols=MaskedBits(width=128)),
    ),
    "NextScale, bits": ("BSQ, 2^16 on six grids", lambda *to: NextScale(*to, OWN_ADALN, Bits())),
    "NextScale, bits, 30 % flipped": (
        "BSQ, 2^16 on six grids",
        lambda *to: NextScale(*to, OWN_ADALN, Bits(), bit_flips=0.3),
    ),
    "FlowMatching": ("VAE, 8 channels", lambda *to: FlowMatching(*to, replace(BACKBONE, adaln="shared"))),
}


@dataclass(frozen=True)
class Pictures:
    """One side of a set: bytes `n 3 H W`, classes `n`, and features `n d` of the pictures."""

    images: Tensor
    labels: Tensor
    features: Tensor


@dataclass(frozen=True)
class Row:
    """One prior on one compressor with one seed.

    Args:
        prior: its name.
        pictures: name of the set.
        seed: of compressor, prior and samples.
        psnr: of the compressor's reconstructions, dB.
        lpips: of these, LPIPS-Alex.
        usage: share of the codebook that held-out pictures use; entropy in bits of a bit, for codes of bits.
        reconstructions: KID of them.
        weights: number of the prior's parameters.
        steps: optimizer steps in the time.
        bits: per pixel of held-out pictures under the prior, or a bound of that; 0 for densities.
        kids: KID of samples, by guidance.
        right: share of samples whose class is read as asked, by guidance.
        ceiling: that share of the held-out pictures themselves.
        rate: images a second of processor time, sampled 32 at once.
    """

    prior: str
    pictures: str
    seed: int
    psnr: float
    lpips: float
    usage: float
    reconstructions: float
    weights: int
    steps: int
    bits: float
    kids: list[float]
    right: list[float]
    ceiling: float
    rate: float


@cache
def extractor() -> EfficientNetFeatures:
    """The network that looks at pictures."""
    return EfficientNetFeatures("cpu")


def features(images: Tensor) -> Tensor:
    """Features of bytes."""
    return torch.cat([extractor()(part / 127.5 - 1).vectors for part in images.split(64)])


@cache
def read(folder: Path, part: str) -> Pictures:
    """Pictures of one side of a set."""
    with (folder / "train.csv").open(newline="") as file:
        names = sorted({row["label"] for row in csv.DictReader(file)})
    with (folder / f"{part}.csv").open(newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["label"] in names]
    images = [Image.open(folder / row["path"]).convert("RGB") for row in rows]
    arrays = [np.asarray(image.resize((SIDE, SIDE), Image.Resampling.BOX)) for image in images]
    stacked = torch.from_numpy(np.stack(arrays)).permute(0, 3, 1, 2)
    return Pictures(stacked, torch.tensor([names.index(row["label"]) for row in rows]), features(stacked))


@cache
def reader(folder: Path) -> Pipeline:
    """A linear layer that reads classes from features."""
    train = read(folder, "train")
    linear = make_pipeline(StandardScaler(), LogisticRegression(max_iter=200, C=0.001))
    return linear.fit(train.features.numpy(), train.labels.numpy())


@cache
def compressor(name: str, folder: Path, seed: int, steps: int) -> tuple[Autoencoder, float, float, float]:
    """A trained compressor, PSNR, LPIPS and usage; codes of 2^9 and 2^18 come from the same weights."""
    if "two codes" in name:
        model, *quality = compressor("LFQ, 2^18", folder, seed, steps)
        same = Autoencoder(3, model.network, BOTTLENECKS[name]()).eval()
        same.load_state_dict(model.state_dict())
        return same, *quality

    def contender() -> Contender:
        given = recipe("vqgan", width=16, multipliers=(1, 2, 4), attention=())
        model = Autoencoder(3, given.model.network, BOTTLENECKS[name]())
        return replace(given, model=model, ema=0.98)

    model, moments = train(
        contender, read(folder, "train").images, read(folder, "held_out").images, steps, seed, bf16=True
    )
    last = moments[-1]
    return model, last.psnr, last.lpips, last.usage


@torch.no_grad()
def posteriors(model: Autoencoder, images: Tensor) -> Tensor:
    """Codes, or means and deviations of latents, of bytes."""
    return torch.cat([model.posterior(part / 127.5 - 1) for part in images.split(128)])


def learn(
    prior: Prior, codes: Callable[[Tensor], Tensor], labels: Tensor, seconds: float
) -> tuple[Prior, int]:
    """Train for so much processor time; the averaged prior, and the steps that it took.

    Args:
        codes: codes, or means and deviations of latents, of pictures by their numbers.
    """
    optimizer, _ = PLAN.optimizer([prior], RESOLUTION)
    first = [group["lr"] / PLAN.factor(0, RESOLUTION) for group in optimizer.param_groups]
    average = ema_model(prior.train(), 0.99)
    begun, steps = time.process_time(), 0
    while (progress := (time.process_time() - begun) / seconds) < 1:
        for group, rate in zip(optimizer.param_groups, first, strict=True):
            group["lr"] = rate * PLAN.factor(int(progress * RESOLUTION), RESOLUTION)
        chosen = torch.randint(len(labels), (BATCH,))
        prior.before_step(progress)
        optimizer.zero_grad(set_to_none=True)
        with torch.autocast("cpu", torch.bfloat16):
            loss = prior.loss(prior.read(codes(chosen)), labels[chosen])
        loss.backward()
        clip(optimizer, 1.0)
        optimizer.step()
        average.update_parameters(prior)
        steps += 1
    return average.module.eval(), steps


@torch.no_grad()
def sample(prior: Prior, model: Autoencoder, labels: Tensor, guidance: float) -> tuple[Tensor, float]:
    """Samples of classes as bytes, and how many images a second of processor time makes."""
    seeds, options = image_seeds(0, range(len(labels))), SamplingOptions(guidance=guidance)
    begun, layout = time.process_time(), model.layout(SIDE, SIDE)
    parts = []
    for asked, each in zip(labels.split(ROUND), seeds.split(ROUND), strict=True):
        with torch.autocast("cpu", torch.bfloat16):
            made = prior.sample(asked, options, each)
        parts.append(model.decode(made, layout))
    rate = len(labels) / (time.process_time() - begun)
    return ((torch.cat(parts).float().clamp(-1, 1) + 1) * 127.5).round().byte(), rate


@torch.no_grad()
def bits_per_pixel(prior: Prior, codes: Tensor, labels: Tensor) -> float:
    """Bits per pixel of pictures under a prior over codes."""
    pairs = zip(codes.split(64), labels.split(64), strict=True)
    nats = torch.cat([prior.nats(prior.read(part), classes) for part, classes in pairs])
    return float(nats.mean()) / math.log(2) / SIDE**2


def entropy_of_bits(codes: Tensor, bits: int) -> float:
    """Mean entropy of a bit of codes, in bits; 1 is the most."""
    ones = ((codes.flatten()[:, None] >> torch.arange(bits)) & 1).double().mean(dim=0).clamp(1e-9, 1 - 1e-9)
    return float(-(ones * ones.log2() + (1 - ones) * (1 - ones).log2()).mean())


def measure(name: str, folder: Path, seed: int, given: argparse.Namespace) -> Row:
    """Train one prior on one compressor, and look at what it samples."""
    kind, make = PRIORS[name]
    model, psnr, lpips, usage = compressor(kind, folder, seed, given.steps)
    train, held_out = read(folder, "train"), read(folder, "held_out")
    layout, classes = model.layout(SIDE, SIDE), len(train.labels.unique())
    torch.manual_seed(seed)
    flipped = torch.cat([train.images, train.images.flip(3)])
    codes, real = posteriors(model, flipped), posteriors(model, held_out.images)
    prior = make(layout, ClassLabels(tuple(f"class {number}" for number in range(classes)), DROPPED))
    prior.attach(model)
    prior.fit(model, [codes])

    @torch.no_grad()
    def encode(chosen: Tensor) -> Tensor:
        return prior.encode(model, flipped[chosen] / 127.5 - 1)

    chosen_codes = encode if prior.needs_images else codes.__getitem__
    learned, steps = learn(prior, chosen_codes, train.labels.repeat(2), given.seconds)
    with torch.no_grad():
        back = torch.cat([model(part / 127.5 - 1).images for part in held_out.images.split(64)])
    asked = held_out.labels[torch.arange(SAMPLES) % len(held_out.labels)]
    kids, right = [], []
    for guidance in GUIDANCES:
        images, rate = sample(learned, model, asked, guidance)
        seen = features(images)
        kids.append(kid(held_out.features, seen)[0])
        right.append(float((reader(folder).predict(seen.numpy()) == asked.numpy()).mean()))
        if given.sheets:
            save_sheet(images, given.sheets / f"{folder.name}-{name}-{seed}-{guidance:.0f}.png")
        if guidance == GUIDANCES[0]:
            first_rate = rate
    if getattr(model.quantizer, "bits", None):
        whole = compressor(kind.removesuffix(" as two codes of 2^9"), folder, seed, given.steps)[0]
        usage = entropy_of_bits(posteriors(whole, held_out.images), whole.quantizer.bits)
    rounded = ((back.float().clamp(-1, 1) + 1) * 127.5).round().byte()
    return Row(
        name,
        folder.name,
        seed,
        psnr,
        lpips,
        usage,
        kid(held_out.features, features(rounded))[0],
        sum(parameter.numel() for parameter in prior.parameters()),
        steps,
        0.0 if learned.likelihood.startswith("estimate") else bits_per_pixel(learned, real, held_out.labels),
        kids,
        right,
        float((reader(folder).predict(held_out.features.numpy()) == held_out.labels.numpy()).mean()),
        first_rate,
    )


def save_sheet(images: Tensor, path: Path) -> None:
    """Save the first 64 images as a sheet."""
    from torchvision.utils import make_grid, save_image

    path.parent.mkdir(parents=True, exist_ok=True)
    save_image(make_grid(images[:64] / 255, nrow=16, padding=2), path)


TITLE = ("between", "PSNR", "LPIPS", "usage", "rKID", "steps", "bits/pixel", "gKID", "gKID at guidance 2")
TITLE += ("class read", "at guidance 2", "images/s")


def cells(kind: str, rows: list[Row]) -> list[str]:
    """Medians of a prior over seeds, with ranges of what decides."""

    def middle(number: Callable[[Row], float], form: str) -> str:
        values = [number(row) for row in rows]
        text = format(median(values), form)
        return text if len(values) == 1 else f"{text} ({min(values):{form}} to {max(values):{form}})"

    return [
        kind,
        f"{median(row.psnr for row in rows):.1f}",
        f"{median(row.lpips for row in rows):.3f}",
        f"{median(row.usage for row in rows):.0%}",
        f"{median(row.reconstructions for row in rows):.2f}",
        f"{median(row.steps for row in rows):.0f}",
        middle(lambda row: row.bits, ".3f") if rows[0].bits else "",
        middle(lambda row: row.kids[0], ".2f"),
        middle(lambda row: row.kids[1], ".2f"),
        middle(lambda row: row.right[0], ".0%"),
        middle(lambda row: row.right[1], ".0%"),
        f"{median(row.rate for row in rows):.1f}",
    ]


def table(rows: list[Row]) -> str:
    """A table per set."""
    lines = []
    for pictures in dict.fromkeys(row.pictures for row in rows):
        found = [row for row in rows if row.pictures == pictures]
        lines.append(f"\nThe class is read rightly from {found[0].ceiling:.0%} of held-out pictures.\n")
        lines.append("| " + " | ".join((pictures, *TITLE)) + " |")
        lines.append("|---" * (len(TITLE) + 1) + "|")
        for name in dict.fromkeys(row.prior for row in found):
            mine = [row for row in found if row.prior == name]
            lines.append("| " + " | ".join((name, *cells(PRIORS[name][0], mine))) + " |")
    return "\n".join(lines)


def measure_all(given: argparse.Namespace, kind: type, name: str, measure: Callable) -> list:
    """Measure every row that the file lacks, and write the file after each.

    Args:
        given: options `only`, `sets`, `seeds`, `pictures` and `out`.
        kind: dataclass of a row, with `pictures` and `seed`.
        name: its field that holds a value of `only`.
        measure: makes a row of that value, the folder of a set, a seed and the options.
    """
    rows = [kind(**each) for each in json.loads(given.out.read_text())] if given.out.exists() else []
    known = {(getattr(row, name), row.pictures, row.seed) for row in rows}
    for seed, pictures, only in product(given.seeds, given.sets, given.only):
        if (only, pictures, seed) in known:
            continue
        rows.append(measure(only, given.pictures / pictures, seed, given))
        print(rows[-1], flush=True)
        with atomic_path(given.out) as partial:
            partial.write_text(json.dumps([asdict(row) for row in rows], indent=1))
    return rows


def main() -> None:
    """Measure every prior on every set with every seed, and print the tables."""
    arguments = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    arguments.add_argument("--pictures", type=Path, required=True, help="folder of benchmarks/pictures.py")
    arguments.add_argument(
        "--out", type=Path, required=True, help="a JSON file; a run that was stopped goes on"
    )
    arguments.add_argument("--sets", nargs="+", default=["clipart", "emoji"], help="sets with classes")
    arguments.add_argument(
        "--only", nargs="+", choices=list(PRIORS), default=list(PRIORS), help="some priors"
    )
    arguments.add_argument(
        "--seeds", type=int, nargs="+", default=[0, 1], help="of weights, batches and noise"
    )
    arguments.add_argument("--steps", type=int, default=250, help="of every compressor")
    arguments.add_argument("--seconds", type=float, default=70, help="processor time to train each prior")
    arguments.add_argument("--sheets", type=Path, help="a folder for sheets of samples")
    given = arguments.parse_args()
    torch.set_num_threads(1)
    print(table(measure_all(given, Row, "prior", measure)))


if __name__ == "__main__":
    main()
