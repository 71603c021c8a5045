"""Every quantizer on the same small network, images, batches and steps: what it keeps, what it costs.

    python benchmarks/quantizers.py [--data shapes photos] [--only FSQ LFQ] [--seed 0] [--out quantizers.json]

Each is trained in a process of its own, so that its memory is its own, in bfloat16, with the pixels' L1 and
its own terms as the loss; then a small prior learns the codes. Measured in float32 on held-out images: of the
built-in shapes, and of crops of seven photographs. The table goes to the terminal; `--out` also keeps the
numbers, in a file that is whole after every quantizer: a run that was stopped goes on.
"""

import argparse
import json
import math
import multiprocessing
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median

import torch
import torch.nn.functional as F
from jaxtyping import UInt8
from photos import crops
from torch import Tensor

from genstack.atomic import atomic_path
from genstack.compressor import Autoencoder, Bottleneck
from genstack.compressor.gaussian import Gaussian
from genstack.compressor.networks.strided import Strided
from genstack.compressor.quantizers import (
    BSQ,
    FSQ,
    IBQ,
    LFQ,
    Grouped,
    Gumbel,
    MultiScale,
    Residual,
    SimVQ,
    VectorQuantizer,
)
from genstack.compressor.quantizers.estimator import RotationTrick
from genstack.compressor.quantizers.update import EMAUpdate
from genstack.compressor.usage import Window, usage
from genstack.conditions.unconditional import Unconditional
from genstack.data import ImageData
from genstack.data.images import from_uint8, to_uint8
from genstack.errors import UserError
from genstack.layout import CodeLayout
from genstack.losses.fidelity import psnr
from genstack.losses.perceptual import LPIPS
from genstack.prior.autoregressive import Autoregressive
from genstack.training.optimization import Optimization
from genstack.transformer.backbone import Backbone

NETWORK = Strided(dim=64, stride=8, blocks=2, inner=32)
SIDE = 64  # of the images
BATCH = 16
LEARNED = 2048  # images to train on, compressor and prior
HELD_OUT = 256  # images to measure on
ROUNDS = 15  # steps whose time is compared
FORK = multiprocessing.get_context("fork")
DATA = ["shapes", "photos"]
TITLE = ("PSNR", "LPIPS", "usage", "perplexity", "bits", "unigram", "prior", "nats/code", "step", "memory")

#: 256 codes (FSQ: 240), everything else as it is by default but for what the name says. Gumbel's schedules
#: take as many steps as there are: its own are for long runs.
MADE: dict[str, Callable[[int], Bottleneck]] = {
    "VectorQuantizer": lambda steps: VectorQuantizer(256),
    "VectorQuantizer, EMAUpdate": lambda steps: VectorQuantizer(256, update=EMAUpdate()),
    "VectorQuantizer, RotationTrick": lambda steps: VectorQuantizer(256, estimator=RotationTrick()),
    "VectorQuantizer, entropy 0.1": lambda steps: VectorQuantizer(256, entropy_weight=0.1),
    "VectorQuantizer, kmeans": lambda steps: VectorQuantizer(256, codebook_init="kmeans"),
    "VectorQuantizer, dim 32": lambda steps: VectorQuantizer(256, dim=32),
    "VectorQuantizer, any length": lambda steps: VectorQuantizer(256, normalize=False),
    "VectorQuantizer, as in 2017": lambda steps: VectorQuantizer(
        256, dim=256, normalize=False, codebook_init=None, dead_after=None
    ),
    "SimVQ": lambda steps: SimVQ(256),
    "IBQ": lambda steps: IBQ(256),
    "Gumbel": lambda steps: Gumbel(256, annealing=steps, divergence_warmup=steps // 4),
    "FSQ": lambda steps: FSQ((8, 6, 5)),
    "LFQ": lambda steps: LFQ(bits=8),
    "BSQ": lambda steps: BSQ(bits=8),
    "Grouped, 2 groups": lambda steps: Grouped(2, 256),
    "Residual, depth 4": lambda steps: Residual(4, 256),
    "MultiScale, 1-2-4-8": lambda steps: MultiScale((1, 2, 4, 8), 256),
    "Gaussian (no codes)": lambda steps: Gaussian(),
}


@dataclass(frozen=True)
class Measured:
    """Results of one quantizer.

    Args:
        data: shapes or photos.
        name: of the quantizer.
        psnr: of held-out images, dB.
        lpips: of held-out images, Alex; None without its weights.
        usage: share of codes seen, joint ones of each place where there are not too many.
        perplexity: exp of their entropy.
        bits: of an image as its codes are stored; nats of the latents as bits where there are no codes.
        unigram: bits of an image for who knows how frequent each code is at each depth and grid.
        prior: bits of an image under the small prior.
        nats_per_code: the same, in nats for each code.
        step: processor time of a training step, as a ratio to that of VectorQuantizer.
        memory: growth of the peak in training, MB.
        seconds: of wall clock for everything.
    """

    data: str
    name: str
    psnr: float
    lpips: float | None
    usage: float | None
    perplexity: float | None
    bits: float
    unigram: float | None
    prior: float | None
    nats_per_code: float | None
    step: float
    memory: float
    seconds: float

    @property
    def row(self) -> str:
        """A line of the table."""
        cells = [
            f"{self.psnr:.1f} dB",
            told(self.lpips, ".4f"),
            told(self.usage, ".0%"),
            told(self.perplexity, ".0f"),
            f"{self.bits:,.0f}",
            told(self.unigram, ",.0f"),
            told(self.prior, ",.0f"),
            told(self.nats_per_code, ".2f"),
            f"{self.step:.2f}",
            f"{self.memory:.0f} MB",
        ]
        return "| " + " | ".join([self.name, *cells]) + " |"


def told(value: float | None, how: str) -> str:
    """A number, or nothing."""
    return "" if value is None else format(value, how)


class Learner:
    """An autoencoder and its optimizer, one step at a time."""

    def __init__(self, name: str, steps: int, seed: int):
        torch.manual_seed(seed)
        self.model = Autoencoder(3, NETWORK, MADE[name](steps))
        self.optimizer, self.schedule = Optimization(learning_rate=2e-3, warmup="5%").optimizer(
            [self.model], steps
        )

    def step(self, images: Tensor) -> None:
        """Learn from a batch."""
        with torch.autocast("cpu", torch.bfloat16):
            made = self.model(images)
            loss = F.l1_loss(made.images.float(), images) + sum(made.losses.values())
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        self.optimizer.step()
        self.schedule.step()
        self.model.after_step(skipped=False)


def peak() -> float:
    """The most memory that this process has had, in MB (Linux; `ru_maxrss` has that of its parent too)."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith("VmHWM")).split()[1]) / 1024


def grown(name: str, steps: int, seed: int) -> float:
    """Memory of a training, in MB; call it first in a process."""
    images = torch.rand(BATCH, 3, SIDE, SIDE) * 2 - 1
    before = peak()
    learner = Learner(name, steps, seed)
    for _ in range(3):
        learner.step(images)
    return peak() - before


def slower(learner: Learner, images: Tensor, steps: int) -> float:
    """Processor time of a step over that of VectorQuantizer, which takes turns with it."""
    usual = Learner("VectorQuantizer", steps, 0)
    ratios = []
    for _ in range(ROUNDS):
        times = []
        for each in (learner, usual):
            begun = time.process_time()
            each.step(images)
            times.append(time.process_time() - begun)
        ratios.append(times[0] / times[1])
    return median(ratios)


def unigram(trained: Tensor, held_out: Tensor, layout: CodeLayout) -> float:
    """Nats of a held-out image when each grid and depth has its own frequencies of codes, counted from 1."""
    positions = layout.positions()
    kinds = positions.grid * layout.depth + positions.depth
    nats = 0.0
    for kind in kinds.unique():
        counts = torch.bincount(trained[:, kinds == kind].flatten(), minlength=layout.codebook_size) + 1.0
        nats -= float((counts / counts.sum()).log()[held_out[:, kinds == kind]].sum())
    return nats / len(held_out)


def learn_codes(trained: Tensor, held_out: Tensor, layout: CodeLayout, steps: int, seed: int) -> float:
    """Nats of a held-out image under a small prior."""
    torch.manual_seed(seed)
    backbone = Backbone(width=64, depth=2, heads=4, dropout=0.0)
    prior = Autoregressive(layout, Unconditional(), backbone).train()
    optimizer, schedule = Optimization(learning_rate=3e-3, warmup="5%").optimizer([prior], steps)
    for _ in range(steps):
        batch = trained[torch.randint(len(trained), (16,))]
        optimizer.zero_grad(set_to_none=True)
        prior.loss(batch, torch.zeros(len(batch), dtype=torch.int64)).backward()
        optimizer.step()
        schedule.step()
    prior.eval()
    with torch.no_grad():
        nats = [prior.nats(part, torch.zeros(len(part), dtype=torch.int64)) for part in held_out.split(64)]
    return float(torch.cat(nats).mean())


def perceived(images: Tensor, made: Tensor) -> float | None:
    """LPIPS, where there are weights for it."""
    try:
        judge = LPIPS("alex").to("cpu")
    except UserError:
        return None
    pairs = zip(made.split(64), images.split(64), strict=True)
    return float(torch.cat([judge.distances(*pair) for pair in pairs]).mean())


@dataclass(frozen=True)
class Pictures:
    """Images to learn from and to measure on, as bytes."""

    trained: UInt8[Tensor, "n h w c"]
    held_out: UInt8[Tensor, "m h w c"]

    def batches(self, seed: int) -> Iterator[Tensor]:
        """Training images without end, half of them mirrored."""
        generator = torch.Generator().manual_seed(seed)
        while True:
            batch = self.trained[torch.randint(len(self.trained), (BATCH,), generator=generator)]
            mirrored = torch.rand((BATCH, 1, 1, 1), generator=generator) < 0.5
            yield from_uint8(torch.where(mirrored, batch.flip(2), batch))


def pictures(data: str, seed: int) -> Pictures:
    """The images of a data set."""
    if data == "photos":
        sides = [
            crops(count, SIDE, seed, held_out) for count, held_out in ((LEARNED, False), (HELD_OUT, True))
        ]
        return Pictures(*sides)
    shapes = ImageData("shapes", SIDE, seed=seed)
    return Pictures(
        to_uint8(shapes.examples("training", LEARNED).images),
        to_uint8(shapes.examples("validation", HELD_OUT).images),
    )


@torch.no_grad()
def judged(learner: Learner, images: Tensor) -> tuple[Tensor, list[Tensor]]:
    """Reconstructions of images, and their codes or nats."""
    parts = [learner.model.eval()(part) for part in images.split(64)]
    middle = [part.nats if part.codes is None else part.codes for part in parts]
    return torch.cat([part.images for part in parts]), middle


def measure(data: str, name: str, images: Pictures, steps: int, seed: int) -> Measured:
    """Train one, alone in this process."""
    begun = time.perf_counter()
    memory = grown(name, steps, seed)
    loader = images.batches(seed)
    learner = Learner(name, steps, seed)
    for _ in range(steps):
        learner.step(next(loader))
    held_out = from_uint8(images.held_out)
    made, middle = judged(learner, held_out)
    found = {"psnr": float(psnr(held_out, made).mean()), "lpips": perceived(held_out, made)}
    if learner.model.has_codes:
        found |= of_codes(learner, from_uint8(images.trained), torch.cat(middle), steps, seed)
    else:
        found |= of_nats(middle)
    ratio = slower(Learner(name, steps, seed), next(loader), steps)
    return Measured(data, name, step=ratio, memory=memory, seconds=time.perf_counter() - begun, **found)


def of_codes(learner: Learner, images: Tensor, held_out: Tensor, steps: int, seed: int) -> dict:
    """Statistics of codes."""
    layout = learner.model.layout(SIDE, SIDE)
    window = Window(layout)
    health = usage(window.numbers(held_out), window.codebook_size)
    with torch.no_grad():
        trained = torch.cat([learner.model.encode(part) for part in images.split(64)])
    nats = learn_codes(trained, held_out, layout, steps // 2, seed)
    return {
        "usage": health.share,
        "perplexity": health.perplexity,
        "bits": layout.length * math.log2(layout.codebook_size),
        "unigram": unigram(trained, held_out, layout) / math.log(2),
        "prior": nats / math.log(2),
        "nats_per_code": nats / layout.length,
    }


def of_nats(middle: list[Tensor]) -> dict:
    """Statistics of latents without codes."""
    rate = float(torch.cat(middle).sum((1, 2, 3)).mean()) / math.log(2)
    return dict.fromkeys(("usage", "perplexity", "unigram", "prior", "nats_per_code")) | {"bits": rate}


def main() -> None:
    """Measure each in a process of its own, and print a table for each data set."""
    arguments = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    arguments.add_argument("--data", nargs="+", choices=DATA, default=DATA, help="what to learn")
    arguments.add_argument("--steps", type=int, default=400, help="optimizer steps; half as many of a prior")
    arguments.add_argument("--seed", type=int, default=0, help="of weights, images and noise")
    arguments.add_argument("--only", nargs="+", choices=list(MADE), default=list(MADE), help="some of them")
    arguments.add_argument("--out", type=Path, help="a JSON file for the numbers")
    given = arguments.parse_args()
    torch.set_num_threads(1)
    known = {(each.data, each.name): each for each in kept(given.out, given.steps, given.seed)}
    for data in given.data:
        print(f"\n| {data} | " + " | ".join(TITLE) + " |\n" + "|---" * (len(TITLE) + 1) + "|", flush=True)
        images = None
        for name in given.only:
            if (data, name) not in known:
                images = images or pictures(data, given.seed)
                known[data, name] = apart(data, name, images, given.steps, given.seed)
            print(known[data, name].row, flush=True)
            if given.out:
                keep(given.out, given.steps, given.seed, list(known.values()))


def apart(data: str, name: str, images: Pictures, steps: int, seed: int) -> Measured:
    """Measure in a process of its own, which begins as a copy of this one."""
    receiving, sending = multiprocessing.Pipe(duplex=False)
    process = FORK.Process(target=lambda: sending.send(measure(data, name, images, steps, seed)))
    process.start()
    sending.close()
    found = receiving.recv()
    process.join()
    return found


def kept(path: Path | None, steps: int, seed: int) -> list[Measured]:
    """Results in a file with the same steps and seed."""
    if path is None or not path.exists():
        return []
    numbers = json.loads(path.read_text())
    if (numbers["steps"], numbers["seed"]) != (steps, seed):
        sys.exit(f"{path} has {numbers['steps']} steps of seed {numbers['seed']}; give another --out")
    return [Measured(**each) for each in numbers["measured"]]


def keep(path: Path, steps: int, seed: int, found: list[Measured]) -> None:
    """Write the numbers, whole."""
    numbers = {"steps": steps, "seed": seed, "torch": str(torch.__version__)}
    with atomic_path(path) as partial:
        partial.write_text(json.dumps(numbers | {"measured": [asdict(each) for each in found]}, indent=1))


if __name__ == "__main__":
    main()
