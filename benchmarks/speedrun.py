"""Learning speed: held-out quality at fixed steps; steps, images and time to a fixed quality.

    python benchmarks/pictures.py --out PICTURES
    python benchmarks/speedrun.py compressor --pictures PICTURES [--only vqgan taming] [--seeds 0 1 2]
    python benchmarks/speedrun.py prior --pictures PICTURES --out prior.json [--steps 300] [--seeds 0 1 2]

`compressor` trains recipes of `configs/compressor` in one small form (64 px, width 32, batches of 16, no
adversary), beside layers and settings of other projects in the same loop, each with its own learning rate.
Batches are drawn from memory. The averaged weights are measured, on 256 held-out pictures, in float32.
"""

import argparse
import json
import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cache
from importlib import import_module
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import speedrun_prior
import torch
import yaml
from PIL import Image
from torch import Tensor, nn

from genstack.atomic import atomic_path
from genstack.compressor import Autoencoder
from genstack.compressor.bottleneck import Quantized, Quantizer
from genstack.compressor.quantizers import VectorQuantizer
from genstack.losses.fidelity import psnr
from genstack.losses.perceptual import LPIPS
from genstack.losses.reconstruction import L1, ReconstructionLoss
from genstack.training.ema import ema_model
from genstack.training.optimization import Optimization

RECIPES = Path(__file__).parents[1] / "configs/compressor"
SIDE, BATCH, WIDTH, CODES = 64, 16, 32, 1024
HELD_OUT = 256  # pictures to measure on
TRANSFORMER = {"width": 128, "depth": 3, "heads": 4}
SMALL: dict[str, dict[str, Any]] = {"ViT": TRANSFORMER, "TiTok": TRANSFORMER}  # the others are WIDTH wide
MOMENTS = 7  # measurements in a run
SETS = ("clipart", "emoji", "photos")


@dataclass
class Contender:
    """A compressor and all that trains it.

    Args:
        model: the compressor.
        reconstruction: distance of pixels.
        perceptual: LPIPS, or None.
        optimization: learning rate and schedule.
        ema: decay of the averaged weights.
    """

    model: Autoencoder
    reconstruction: ReconstructionLoss
    perceptual: LPIPS | None
    optimization: Optimization
    ema: float


@dataclass(frozen=True)
class Moment:
    """Held-out quality at one step of a run.

    Args:
        step: optimizer steps so far.
        seconds: of processor time for them.
        psnr: in dB.
        lpips: LPIPS-Alex.
        usage: share of codes that held-out pictures use.
    """

    step: int
    seconds: float
    psnr: float
    lpips: float
    usage: float


def construct(node: Any) -> Any:
    """The object that a part of a recipe describes."""
    if isinstance(node, dict) and "class_path" in node:
        module, name = node["class_path"].rsplit(".", 1)
        values = {key: construct(value) for key, value in node.get("init_args", {}).items()}
        return getattr(import_module(module), name)(**values)
    if isinstance(node, list):
        return tuple(construct(each) for each in node)
    return node


def recipe(name: str, **changes: Any) -> Contender:
    """A committed recipe without an adversary, with a network of the small form or with other changes."""
    model = yaml.safe_load((RECIPES / f"{name}.yaml").read_text())["model"]
    network = model["compressor"]["init_args"]["network"]
    network["init_args"] |= changes or SMALL.get(network["class_path"].rpartition(".")[2], {"width": WIDTH})
    parts = {key: construct(value) for key, value in model["compressor"]["init_args"].items()}
    return Contender(
        Autoencoder(3, **parts),
        construct(model.get("reconstruction")) or L1(),
        construct(model.get("perceptual")),
        construct(model.get("optimization")) or Optimization(),
        model.get("ema", 0.999),
    )


def with_quantizer(quantizer: Quantizer, optimization: Optimization) -> Contender:
    """Today's VQGAN network under another quantizer and other settings."""
    contender = recipe("vqgan")
    network = contender.model.network
    return replace(contender, model=Autoencoder(3, network, quantizer), optimization=optimization)


class Elsewhere(Quantizer):
    """A quantizer of vector-quantize-pytorch."""

    def __init__(self, layer: nn.Module, dim: int, codebook_size: int):
        super().__init__()
        self.layer, self.dim, self.codebook_size = layer, dim, codebook_size

    def forward(self, latents: Tensor) -> Quantized:
        with torch.autocast(latents.device.type, enabled=False):
            quantized, codes, *loss = self.layer(latents.float())
        losses = {"quantizer": loss[0].sum()} if loss else {}
        return Quantized(quantized, losses, codes=codes.flatten(1).long())

    def lookup(self, codes: Tensor, layout: Any) -> Tensor:
        raise NotImplementedError("only trained here")


def elsewhere_vq() -> Contender:
    from vector_quantize_pytorch import VectorQuantize

    layer = VectorQuantize(dim=256, codebook_size=CODES, accept_image_fmap=True)
    return with_quantizer(Elsewhere(layer, 256, CODES), STEADY)


def elsewhere_fsq() -> Contender:
    from vector_quantize_pytorch import FSQ

    layer = FSQ(levels=[8, 5, 5, 5])
    return with_quantizer(Elsewhere(layer, 4, 1000), STEADY)


STEADY = Optimization(4.5e-4, warmup=0, final=1.0)
PLAIN = {"codebook_init": None, "dead_after": None}
#: Settings of taming are those of its configs: 4.5e-6 for each image of a batch.
PEERS: dict[str, Callable[[], Contender]] = {
    "vector-quantize-pytorch VQ": elsewhere_vq,
    "vector-quantize-pytorch FSQ": elsewhere_fsq,
    "taming": lambda: with_quantizer(
        VectorQuantizer(CODES, dim=256, normalize=False, **PLAIN),
        Optimization(4.5e-6 * BATCH, (0.5, 0.9), warmup=0, final=1.0),
    ),
    "LlamaGen": lambda: with_quantizer(
        VectorQuantizer(CODES, dim=8, **PLAIN), Optimization(1e-4, (0.9, 0.95), warmup=0, final=1.0)
    ),
    "LlamaGen at 4.5e-4": lambda: with_quantizer(VectorQuantizer(CODES, dim=8, **PLAIN), STEADY),
}


@cache
def judge() -> LPIPS:
    """LPIPS-Alex, as a measure."""
    return LPIPS("alex").to("cpu")


@cache
def pictures(folder: Path) -> Tensor:
    """All pictures below a folder, as bytes."""
    files = sorted(folder.rglob("*.png"))
    read = [Image.open(file).convert("RGB").resize((SIDE, SIDE), Image.Resampling.LANCZOS) for file in files]
    return torch.from_numpy(np.stack([np.asarray(each) for each in read])).permute(0, 3, 1, 2)


def batches(images: Tensor, seed: int) -> Iterator[Tensor]:
    """Training batches without end, half of the images mirrored."""
    generator = torch.Generator().manual_seed(seed)
    while True:
        batch = images[torch.randint(len(images), (BATCH,), generator=generator)]
        mirrored = torch.rand((BATCH, 1, 1, 1), generator=generator) < 0.5
        yield torch.where(mirrored, batch.flip(3), batch) / 127.5 - 1


@torch.no_grad()
def measure(model: Autoencoder, images: Tensor, step: int, seconds: float) -> Moment:
    """Held-out quality of a model; usage is 0 without codes."""
    order = torch.randperm(len(images), generator=torch.Generator().manual_seed(1))[:HELD_OUT]
    parts = [(part / 127.5 - 1) for part in images[order].split(32)]
    made = [model.eval()(part) for part in parts]
    pairs = [(part, each.images) for part, each in zip(parts, made, strict=True)]
    codes = torch.cat([torch.empty(0), *(each.codes.flatten() for each in made if each.codes is not None)])
    return Moment(
        step,
        seconds,
        float(torch.cat([psnr(*pair) for pair in pairs]).mean()),
        float(torch.cat([judge().distances(each, part) for part, each in pairs]).mean()),
        len(codes.unique()) / getattr(model.quantizer, "codebook_size", 1),
    )


def train(
    contender: Callable[[], Contender],
    images: Tensor,
    held_out: Tensor,
    steps: int,
    seed: int,
    bf16: bool,
    measurements: int = MOMENTS,
) -> tuple[Autoencoder, list[Moment]]:
    """Train from scratch on bytes; the averaged model, and its held-out quality along the way."""
    torch.manual_seed(seed)
    learner = contender()
    model, averages = learner.model.train(), ema_model(learner.model, learner.ema)
    if learner.perceptual is not None:
        learner.perceptual.to("cpu")
    optimizer, schedule = learner.optimization.optimizer([model], steps)
    moments, seconds, loader = [], 0.0, batches(images, seed)
    for step in range(1, steps + 1):
        begun, batch = time.process_time(), next(loader)
        with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            made = model(batch)
            loss = sum(made.losses.values()) + learner.reconstruction.weight * learner.reconstruction.of(
                made, batch
            )
            if learner.perceptual is not None:
                loss = loss + learner.perceptual.weight * learner.perceptual(made.images, batch)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        schedule.step()
        model.after_step(skipped=False)
        averages.update_parameters(model)
        seconds += time.process_time() - begun
        if step % math.ceil(steps / measurements) == 0 or step == steps:
            moments.append(measure(averages.module, held_out, step, seconds))
    return averages.module.eval(), moments


def compressor(given: argparse.Namespace) -> None:
    """Train each contender on each set with each seed, and print a table."""
    torch.set_num_threads(1)
    known = json.loads(given.out.read_text()) if given.out and given.out.exists() else {}
    print(
        f"\n| {given.steps} steps | " + " | ".join(TITLE) + " |\n" + "|---" * (len(TITLE) + 1) + "|",
        flush=True,
    )
    for pictured in given.sets:
        for name in given.only:
            runs = []
            for seed in given.seeds:
                key = f"{name}, {pictured}, {given.steps}, {seed}"
                if key not in known:
                    contender = PEERS.get(name) or (lambda: recipe(name))  # noqa: B023
                    parts = [pictures(given.pictures / pictured / part) for part in ("train", "held_out")]
                    _, moments = train(contender, *parts, given.steps, seed, given.bf16)
                    known[key] = [asdict(moment) for moment in moments]
                    if given.out:
                        with atomic_path(given.out) as file:
                            file.write_text(json.dumps(known, indent=1))
                runs.append([Moment(**each) for each in known[key]])
            print(row(f"{pictured}: {name}", runs, given), flush=True)


TITLE = ("PSNR", "LPIPS", "usage", "s/step", "steps", "images", "seconds")


def row(name: str, runs: Sequence[Sequence[Moment]], given: argparse.Namespace) -> str:
    """A line of the table: medians, and ranges where there are several seeds."""
    last = [run[-1] for run in runs]
    reached = [first(run, given.psnr, given.lpips) for run in runs]
    steps = [each.step for each in reached if each]
    seconds = [each.seconds for each in reached if each]
    cells = [
        spread([each.psnr for each in last], ".2f"),
        spread([each.lpips for each in last], ".3f"),
        spread([100 * each.usage for each in last], ".0f") + " %",
        f"{median(each.seconds / each.step for each in last):.2f}",
        *(
            (f"{median(steps):.0f}", f"{BATCH * median(steps):.0f}", f"{median(seconds):.0f}")
            if len(steps) == len(runs)
            else ("not reached", "", "")
        ),
    ]
    return "| " + " | ".join([name, *cells]) + " |"


def spread(values: Sequence[float], form: str) -> str:
    """The median, and the range of several."""
    middle = format(median(values), form)
    return middle if len(values) == 1 else f"{middle} ({min(values):{form}} to {max(values):{form}})"


def first(run: Sequence[Moment], least_psnr: float, most_lpips: float) -> Moment | None:
    """The first moment with both qualities."""
    return next((each for each in run if each.psnr >= least_psnr and each.lpips <= most_lpips), None)


def main() -> None:
    """Read the command line."""
    arguments = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    verbs = arguments.add_subparsers(required=True)
    verb = verbs.add_parser("compressor", help="stage one")
    verb.set_defaults(run=compressor)
    verb.add_argument("--pictures", type=Path, required=True, help="folder that benchmarks/pictures.py wrote")
    verb.add_argument("--sets", nargs="+", default=SETS, help="folders below it")
    verb.add_argument("--only", nargs="+", default=["vqgan", "fsq", *PEERS], help="recipes and peers")
    verb.add_argument("--steps", type=int, default=350, help="optimizer steps")
    verb.add_argument("--seeds", type=int, nargs="+", default=[0], help="of weights, batches and noise")
    verb.add_argument("--psnr", type=float, default=15.5, help="quality to reach, dB")
    verb.add_argument("--lpips", type=float, default=0.22, help="quality to reach beside it")
    verb.add_argument("--bf16", action="store_true", help="train in bfloat16")
    verb.add_argument(
        "--out", type=Path, help="a JSON file for the numbers; what it has is not trained again"
    )
    speedrun_prior.add_verb(verbs)
    given = arguments.parse_args()
    given.run(given)


if __name__ == "__main__":
    main()
