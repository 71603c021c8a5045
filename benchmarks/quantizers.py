"""Every quantizer on the same small network, images, batches and steps: what it keeps, what it costs.

    python benchmarks/quantizers.py [--steps 150] [--only FSQ LFQ] [--seed 0] [--out quantizers.json]

Each is trained in a process of its own, so that its memory is its own, with the pixels' L1 and its own terms
as the loss; then a small prior learns the codes. Measured on held-out images. The table goes to the terminal;
`--out` also keeps the numbers, in a file that is whole after every quantizer: a run that was stopped goes on.
"""

import argparse
import json
import math
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median

import torch
import torch.nn.functional as F
from torch import Tensor

from genstack.atomic import replacing
from genstack.compressor import Autoencoder, Bottleneck, Convolutional
from genstack.compressor.gaussian import Gaussian
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
from genstack.compressor.quantizers.learning import ByAverage
from genstack.data import ImageData
from genstack.errors import UserError
from genstack.evaluation.fidelity import psnr
from genstack.layout import CodeLayout
from genstack.losses.perceptual import LPIPS
from genstack.prior.autoregressive import Autoregressive
from genstack.prior.conditions.nothing import Unconditional
from genstack.prior.transformer import Backbone
from genstack.training.optimization import Optimization
from genstack.training.usage import Window, usage

NETWORK = Convolutional(
    dim=32, width=16, multipliers=(1, 2, 2), blocks=1, attention=(), middle_attention=False
)
HELD_OUT = 256  # images to measure on
LEARNED = 1024  # images whose codes the prior learns
ROUNDS = 15  # steps whose time is compared
TITLE = ("PSNR", "LPIPS", "usage", "perplexity", "bits", "unigram", "prior", "nats/code", "step", "memory")

#: 256 codes (FSQ: 240), everything else as it is by default but for what the name says. Gumbel's schedules
#: take as many steps as there are: its own are for long runs.
MADE: dict[str, Callable[[int], Bottleneck]] = {
    "VectorQuantizer": lambda steps: VectorQuantizer(256),
    "VectorQuantizer, ByAverage": lambda steps: VectorQuantizer(256, learning=ByAverage()),
    "VectorQuantizer, RotationTrick": lambda steps: VectorQuantizer(256, estimator=RotationTrick()),
    "VectorQuantizer, entropy 0.1": lambda steps: VectorQuantizer(256, entropy_weight=0.1),
    "VectorQuantizer, as in 2017": lambda steps: VectorQuantizer(
        256, dim=256, normalize=False, seeding=None, dead_after=None
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
    """What one quantizer came to.

    Args:
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
        made = self.model(images)
        loss = F.l1_loss(made.images, images) + sum(made.losses.values())
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        self.optimizer.step()
        self.schedule.step()
        self.model.after_step(skipped=False)


def peak() -> float:
    """The most memory that this process has had, in MB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


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
    places = layout.places()
    kinds = places.grid * layout.depth + places.depth
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


def batches(data: ImageData) -> Iterator[Tensor]:
    """Training images, without end."""
    for batch in data.training_loader():
        yield batch.images


@torch.no_grad()
def judged(learner: Learner, data: ImageData) -> tuple[Tensor, Tensor, list[Tensor]]:
    """Held-out images, what becomes of them, and their codes or nats."""
    images = data.examples("validation", HELD_OUT).images
    parts = [learner.model.eval()(part) for part in images.split(64)]
    middle = [part.nats if part.codes is None else part.codes for part in parts]
    return images, torch.cat([part.images for part in parts]), middle


def measure(name: str, steps: int, seed: int) -> Measured:
    """Train one, alone in this process."""
    begun = time.perf_counter()
    data = ImageData("shapes", 32, batch_size=16, seed=seed)
    loader = batches(data)
    first = next(loader)
    before = peak()
    learner = Learner(name, steps, seed)
    learner.step(first)
    for _ in range(steps - 1):
        learner.step(next(loader))
    memory = peak() - before
    images, made, middle = judged(learner, data)
    found = {"psnr": float(psnr(images, made).mean()), "lpips": perceived(images, made)}
    found |= (
        of_codes(learner, data, torch.cat(middle), steps, seed) if learner.model.coded else of_nats(middle)
    )
    ratio = slower(Learner(name, steps, seed), first, steps)
    return Measured(name, step=ratio, memory=memory, seconds=time.perf_counter() - begun, **found)


def of_codes(learner: Learner, data: ImageData, held_out: Tensor, steps: int, seed: int) -> dict:
    """What there is to say of codes."""
    layout = learner.model.layout(32, 32)
    window = Window(layout)
    health = usage(window.numbers(held_out), window.codebook_size)
    with torch.no_grad():
        seen = data.examples("training", LEARNED).images
        trained = torch.cat([learner.model.encode(part) for part in seen.split(64)])
    nats = learn_codes(trained, held_out, layout, steps, seed)
    return {
        "usage": health.share,
        "perplexity": health.perplexity,
        "bits": layout.length * math.log2(layout.codebook_size),
        "unigram": unigram(trained, held_out, layout) / math.log(2),
        "prior": nats / math.log(2),
        "nats_per_code": nats / layout.length,
    }


def of_nats(middle: list[Tensor]) -> dict:
    """What there is to say of latents without codes."""
    rate = float(torch.cat(middle).sum((1, 2, 3)).mean()) / math.log(2)
    return dict.fromkeys(("usage", "perplexity", "unigram", "prior", "nats_per_code")) | {"bits": rate}


def main() -> None:
    """Measure each in a process of its own, and print the table."""
    arguments = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    arguments.add_argument("--steps", type=int, default=150, help="optimizer steps, of each and of its prior")
    arguments.add_argument("--seed", type=int, default=0, help="of weights, images' order and noise")
    arguments.add_argument("--only", nargs="+", choices=list(MADE), default=list(MADE), help="some of them")
    arguments.add_argument("--out", type=Path, help="a JSON file for the numbers")
    arguments.add_argument("--alone", help=argparse.SUPPRESS)
    given = arguments.parse_args()
    if given.alone:
        print(json.dumps(asdict(measure(given.alone, given.steps, given.seed))))
        return
    known = {each.name: each for each in kept(given.out, given.steps, given.seed)}
    print("| | " + " | ".join(TITLE) + " |\n" + "|---" * (len(TITLE) + 1) + "|", flush=True)
    for name in given.only:
        if name not in known:
            known[name] = apart(name, given.steps, given.seed)
        print(known[name].row, flush=True)
        if given.out:
            keep(given.out, given.steps, given.seed, list(known.values()))


def apart(name: str, steps: int, seed: int) -> Measured:
    """Measure in a process of its own."""
    words = ["--alone", name, "--steps", str(steps), "--seed", str(seed)]
    done = subprocess.run([sys.executable, __file__, *words], check=True, stdout=subprocess.PIPE, text=True)
    return Measured(**json.loads(done.stdout))


def kept(path: Path | None, steps: int, seed: int) -> list[Measured]:
    """What a file has of the same steps and seed."""
    if path is None or not path.exists():
        return []
    numbers = json.loads(path.read_text())
    if (numbers["steps"], numbers["seed"]) != (steps, seed):
        sys.exit(f"{path} has {numbers['steps']} steps of seed {numbers['seed']}; give another --out")
    return [Measured(**each) for each in numbers["measured"]]


def keep(path: Path, steps: int, seed: int, found: list[Measured]) -> None:
    """Write the numbers, whole."""
    numbers = {"steps": steps, "seed": seed, "torch": str(torch.__version__)}
    with replacing(path) as partial:
        partial.write_text(json.dumps(numbers | {"measured": [asdict(each) for each in found]}, indent=1))


if __name__ == "__main__":
    main()
