"""Stage two of `speedrun.py`: nats per held-out code at equal steps, beside GPT-2 and Llama of transformers.

The codes of a set of pictures (64 px, 64 codes of 1,000) are those of an FSQ compressor, which is trained for
some minutes once for each set, and kept beside `--out`. Every model sees the same batches in the same order,
with the same schedule: 6 layers, 256 wide, 4 heads, bf16. Language models read the class label first.
"""

import argparse
import csv
import json
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from statistics import median

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from genstack.compressor import Autoencoder, Convolutional
from genstack.compressor.quantizers import FSQ
from genstack.conditions.class_labels import ClassLabels
from genstack.conditions.unconditional import Unconditional
from genstack.layout import CodeLayout
from genstack.prior.autoregressive import Autoregressive
from genstack.prior.diffusion import Diffusion
from genstack.prior.masked import Masked
from genstack.prior.prior import Prior
from genstack.prior.random_order import RandomOrder
from genstack.training.optimization import Optimization, clip
from genstack.transformer.backbone import FEWEST_PASSES, Backbone

SIDE = 64  # pixels
BATCH = 32
HELD_OUT = 256  # pictures
DROPPED = 0.1  # share of training pictures without their label
ADAMW = Optimization(learning_rate=1e-3, weight_decay=0.05, warmup="5%")
MUON = replace(ADAMW, muon=6e-3)


@dataclass(frozen=True)
class Codes:
    """The codes of a set of pictures.

    Args:
        train: of the pictures to learn from.
        labels: their classes.
        held_out: of the pictures laid aside.
        held_out_labels: their classes.
        classes: number of classes; 1 for none.
    """

    train: Tensor
    labels: Tensor
    held_out: Tensor
    held_out_labels: Tensor
    classes: int

    @property
    def layout(self) -> CodeLayout:
        return CodeLayout((SIDE, SIDE), 1000, ((8, 8),), 1)


class Language(nn.Module):
    """A language model of transformers over codes, with the label of the picture as its first token."""

    def __init__(self, model: nn.Module, codes: int):
        super().__init__()
        self.model, self.codes = model, codes

    def logits(self, codes: Tensor, labels: Tensor) -> Tensor:
        tokens = torch.cat([self.codes + labels[:, None], codes[:, :-1]], dim=1)
        return self.model(tokens).logits[..., : self.codes].float()

    def loss(self, codes: Tensor, labels: Tensor, null: int) -> Tensor:
        dropped = torch.rand(len(labels)) < DROPPED
        logits = self.logits(codes, labels.masked_fill(dropped, null))
        return cross_entropy(logits.flatten(0, 1), codes.flatten())

    def nats(self, codes: Tensor, labels: Tensor) -> Tensor:
        logits = self.logits(codes, labels)
        return cross_entropy(logits.transpose(1, 2), codes, reduction="none").sum(dim=1)


def gpt2(codes: Codes, shape: tuple[int, int, int]) -> nn.Module:
    """GPT-2 of transformers, with its defaults."""
    from transformers import GPT2Config, GPT2LMHeadModel

    (width, depth, heads), layout = shape, codes.layout
    tokens = layout.codebook_size + codes.classes + 1
    config = GPT2Config(
        vocab_size=tokens,
        n_positions=layout.length,
        n_embd=width,
        n_layer=depth,
        n_head=heads,
        bos_token_id=0,
        eos_token_id=0,
        use_cache=False,
    )
    return Language(GPT2LMHeadModel(config), layout.codebook_size)


def llama(codes: Codes, shape: tuple[int, int, int]) -> nn.Module:
    """Llama of transformers, with its defaults."""
    from transformers import LlamaConfig, LlamaForCausalLM

    (width, depth, heads), layout = shape, codes.layout
    config = LlamaConfig(
        vocab_size=layout.codebook_size + codes.classes + 1,
        hidden_size=width,
        intermediate_size=Backbone(width, depth, heads).mlp_width,
        num_hidden_layers=depth,
        num_attention_heads=heads,
        max_position_embeddings=layout.length,
        use_cache=False,
    )
    return Language(LlamaForCausalLM(config), layout.codebook_size)


def prior(
    kind: Callable[..., Prior], **changes: object
) -> Callable[[Codes, tuple[int, int, int]], nn.Module]:
    """A prior of genstack whose backbone has its defaults but for some changes."""

    def made(codes: Codes, shape: tuple[int, int, int]) -> nn.Module:
        names = tuple(f"class {number}" for number in range(codes.classes))
        condition = ClassLabels(names, DROPPED) if codes.classes > 1 else Unconditional()
        return kind(codes.layout, condition, replace(Backbone(*shape), **changes))

    return made


#: Each model, and how its weights move.
MODELS: dict[str, tuple[Callable[[Codes, tuple[int, int, int]], nn.Module], Optimization]] = {
    "GPT-2": (gpt2, ADAMW),
    "Llama": (llama, ADAMW),
    "Autoregressive": (prior(Autoregressive), ADAMW),
    "Autoregressive, Muon": (prior(Autoregressive), MUON),
    "Autoregressive, untied": (prior(Autoregressive, tied=False), ADAMW),
    "Autoregressive, rotary alone": (prior(Autoregressive, positions="rotary"), ADAMW),
    "Autoregressive, no dropout": (prior(Autoregressive, dropout=0.0), ADAMW),
    "Autoregressive, dropout 0.1": (prior(Autoregressive, dropout=0.1), ADAMW),
    "Autoregressive, dropout 0.2": (prior(Autoregressive, dropout=0.2), ADAMW),
    "Autoregressive, dropout 0.3": (prior(Autoregressive, dropout=0.3), ADAMW),
    "Autoregressive, dropout 0.4": (prior(Autoregressive, dropout=0.4), ADAMW),
    "Autoregressive, no neighbors": (prior(partial(Autoregressive, neighbors=False)), ADAMW),
    "RandomOrder": (prior(RandomOrder), ADAMW),
    "RandomOrder, Muon": (prior(RandomOrder), MUON),
    "RandomOrder, dropout 0.4": (prior(RandomOrder, dropout=0.4), ADAMW),
    "Masked": (prior(Masked), ADAMW),
    "Masked, dropout 0.4": (prior(Masked, dropout=0.4), ADAMW),
    "Masked, Muon": (prior(Masked), MUON),
    "Diffusion": (prior(Diffusion), ADAMW),
}


@dataclass(frozen=True)
class Run:
    """One training.

    Args:
        model: its name.
        pictures: name of the set.
        seed: of weights and batches.
        steps: of the whole run.
        nats: per held-out code, by step.
        seconds: processor time of one step.
        weights: number of parameters.
    """

    model: str
    pictures: str
    seed: int
    steps: int
    nats: dict[int, float]
    seconds: float
    weights: int


def learn(name: str, pictures: str, codes: Codes, seed: int, given: argparse.Namespace) -> Run:
    """Train one model, and measure it on the way."""
    make, plan = MODELS[name]
    torch.manual_seed(seed)
    model = make(codes, tuple(given.shape)).train()
    optimizer, schedule = plan.optimizer([model], given.steps)
    generator, waiting = torch.Generator().manual_seed(seed), torch.empty(0, dtype=torch.int64)
    nats, spent = {}, 0.0
    for step in range(1, given.steps + 1):
        if len(waiting) < BATCH:
            waiting = torch.randperm(len(codes.train), generator=generator)
        chosen, waiting = waiting[:BATCH], waiting[BATCH:]
        if getattr(model, "repetitive", False):  # as in a training
            grows = given.steps * BATCH / len(codes.train) >= FEWEST_PASSES
            model.transformer.set_dropout((step - 1) * BATCH / len(codes.train) if grows else 0.0)
        begun = time.process_time()
        with torch.autocast("cpu", torch.bfloat16):
            batch = codes.train[chosen], codes.labels[chosen]
            if isinstance(model, Language):
                loss = model.loss(*batch, null=codes.classes)
            else:
                model.before_step((step - 1) / given.steps)
                loss = model.loss(*batch)
        loss.backward()
        clip(optimizer, 1.0)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad(set_to_none=True)
        spent += time.process_time() - begun
        if step % given.every == 0 or step == given.steps:
            nats[step] = measure(model, codes)
    weights = sum(parameter.numel() for parameter in model.parameters())
    return Run(name, pictures, seed, given.steps, nats, spent / given.steps, weights)


@torch.no_grad()
def measure(model: nn.Module, codes: Codes) -> float:
    """Nats per code of held-out pictures."""
    model.eval()
    torch_seed = torch.random.get_rng_state()
    with torch.autocast("cpu", torch.bfloat16):
        parts = zip(codes.held_out.split(64), codes.held_out_labels.split(64), strict=True)
        total = sum(float(model.nats(*part).sum()) for part in parts)
    torch.random.set_rng_state(torch_seed)
    model.train()
    return total / codes.held_out.numel()


def encoded(pictures: Path, kept: Path) -> Codes:
    """The codes of a set, from a file or by a compressor that is trained now."""
    if kept.exists():
        return Codes(**torch.load(kept))
    (images, labels), (held_out, held_out_labels) = read(pictures, "train"), read(pictures, "held_out")
    names = sorted({*labels, *held_out_labels})
    compressor = trained(images)
    made = {
        "train": codes_of(compressor, images),
        "labels": torch.tensor([names.index(label) for label in labels]),
        "held_out": codes_of(compressor, held_out[:HELD_OUT]),
        "held_out_labels": torch.tensor([names.index(label) for label in held_out_labels[:HELD_OUT]]),
        "classes": len(names),
    }
    kept.parent.mkdir(parents=True, exist_ok=True)
    torch.save(made, kept)
    return Codes(**made)


def read(pictures: Path, part: str) -> tuple[Tensor, list[str]]:
    """Images of one side of a set, in a fixed random order, and their labels."""
    with (pictures / f"{part}.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    rows = [rows[number] for number in np.random.default_rng(0).permutation(len(rows))]
    images = [Image.open(pictures / row["path"]).resize((SIDE, SIDE), Image.Resampling.BOX) for row in rows]
    stacked = torch.from_numpy(np.stack([np.asarray(image.convert("RGB")) for image in images]))
    return stacked.permute(0, 3, 1, 2), [row.get("label") or "" for row in rows]


def floats(images: Tensor) -> Tensor:
    """Bytes to numbers from -1 to 1."""
    return images.float() / 127.5 - 1


def trained(images: Tensor, steps: int = 220) -> Autoencoder:
    """A small FSQ compressor, trained for some minutes."""
    torch.manual_seed(0)
    network = Convolutional(
        dim=64, width=32, multipliers=(1, 2, 2, 4), blocks=1, attention=(), middle_attention=False
    )
    compressor = Autoencoder(3, network, FSQ((8, 5, 5, 5)))
    optimizer, schedule = Optimization(learning_rate=1e-3, warmup="5%").optimizer([compressor], steps)
    for _ in range(steps):
        batch = floats(images[torch.randint(len(images), (16,))])
        with torch.autocast("cpu", torch.bfloat16):
            made = compressor(batch)
        loss = (made.images.float() - batch).abs().mean() + sum(made.losses.values())
        optimizer.zero_grad()
        loss.backward()
        clip(optimizer, 1.0)
        optimizer.step()
        schedule.step()
        compressor.after_step(skipped=False)
    return compressor.eval()


@torch.no_grad()
def codes_of(compressor: Autoencoder, images: Tensor) -> Tensor:
    """The codes of images."""
    return torch.cat([compressor.encode(floats(part)) for part in images.split(100)])


def table(runs: list[Run], steps: int) -> str:
    """A table for each set: nats at thirds of the budget, and what GPT-2's last number took."""
    lines = []
    for pictures in dict.fromkeys(run.pictures for run in runs):
        found = [run for run in runs if run.pictures == pictures and run.steps == steps]
        marks = [
            mark for mark in sorted({mark for run in found for mark in run.nats}) if mark % (steps // 3) == 0
        ]
        lines += [
            f"| {pictures} | " + " | ".join(f"{mark} steps" for mark in marks) + " | steps to GPT-2's last"
        ]
        lines[-1] += " | seconds a step | weights |"
        lines.append("|---" * (len(marks) + 4) + "|")
        goals = [run.nats[steps] for run in found if run.model == "GPT-2"]
        for name in dict.fromkeys(run.model for run in found):
            mine = [run for run in found if run.model == name]
            cells = [spread([run.nats[mark] for run in mine]) for mark in marks]
            reached = [reaching(run, median(goals)) for run in mine] if goals else []
            cells.append(f"{median(reached):,.0f}" if reached else "")
            cells.append(f"{median(run.seconds for run in mine):.2f}")
            cells.append(f"{mine[0].weights / 1e6:.1f} M")
            lines.append(f"| {name} | " + " | ".join(cells) + " |")
        lines.append("")
    return "\n".join(lines)


def spread(numbers: list[float]) -> str:
    """The median, and the range where there are several."""
    middle = f"{median(numbers):.2f}"
    return middle if len(numbers) == 1 else f"{middle} ({min(numbers):.2f} to {max(numbers):.2f})"


def reaching(run: Run, goal: float) -> float:
    """The first measured step with at most so many nats; infinity for none."""
    return min((step for step, nats in run.nats.items() if nats <= goal), default=float("inf"))


def speedrun(given: argparse.Namespace) -> None:
    """Train every model on every set with every seed, and print the tables."""
    runs = []
    if given.out.exists():
        for kept in json.loads(given.out.read_text()):
            nats = {int(step): number for step, number in kept.pop("nats").items()}
            runs.append(Run(nats=nats, **kept))
    for pictures in given.sets:
        codes = encoded(given.pictures / pictures, given.out.parent / "codes" / f"{pictures}.pt")
        for seed in given.seeds:
            for name in given.models:
                key = (name, pictures, seed, given.steps)
                if key in [(run.model, run.pictures, run.seed, run.steps) for run in runs]:
                    continue
                runs.append(learn(name, pictures, codes, seed, given))
                print(f"{pictures} {name} seed {seed}: {runs[-1].nats}", flush=True)
                given.out.write_text(json.dumps([asdict(run) for run in runs]))
    print(table(runs, given.steps))


def add_verb(verbs: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add stage two to the command line."""
    verb = verbs.add_parser("prior", help="stage two: nats per held-out code")
    verb.add_argument("--pictures", type=Path, required=True, help="folder of benchmarks/pictures.py")
    verb.add_argument("--out", type=Path, required=True, help="a JSON file; a run that was stopped goes on")
    verb.add_argument("--sets", nargs="+", default=["clipart", "emoji", "photos"])
    verb.add_argument("--models", nargs="+", choices=list(MODELS), default=list(MODELS)[:4])
    verb.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    verb.add_argument("--steps", type=int, default=300)
    verb.add_argument("--every", type=int, default=50, help="steps between two measurements")
    verb.add_argument("--shape", type=int, nargs=3, default=[256, 6, 4], help="width, layers and heads")
    verb.set_defaults(run=speedrun)
