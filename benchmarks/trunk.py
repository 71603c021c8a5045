"""The convolutional trunk: a training step beside diffusers, memory formats, where large images take time.

    python benchmarks/trunk.py [--rounds 7] [--batch 8] [--precisions fp32,bf16] [--only training,images]

Each round times all models one after the other; the tables have medians of processor times and, by round, of
their ratios, and the least and the largest ratio. diffusers encodes and decodes latents, genstack codes.
"""

import argparse
import time
from collections.abc import Callable
from contextlib import nullcontext
from statistics import median

import torch
from diffusers import VQModel
from torch import Tensor, nn
from torch.profiler import ProfilerActivity, profile

from genstack.compressor import Autoencoder, Convolutional
from genstack.compressor.quantizers import VectorQuantizer

SHAPE = Convolutional(dim=64, width=64, multipliers=(1, 2, 4), blocks=2, attention=())
CODES, CODE = 1024, 8
SIDE = 64
LARGE = 256
FORMATS = {"rows": torch.contiguous_format, "channels last": torch.channels_last}


class Theirs(nn.Module):
    """diffusers' model of the same shape, with its own quantizer of as many codes."""

    def __init__(self, channels: int = 3):
        super().__init__()
        levels = len(SHAPE.multipliers)
        self.model = VQModel(
            in_channels=channels,
            out_channels=channels,
            down_block_types=("DownEncoderBlock2D",) * levels,
            up_block_types=("UpDecoderBlock2D",) * levels,
            block_out_channels=SHAPE.widths,
            layers_per_block=SHAPE.blocks,
            latent_channels=SHAPE.dim,
            norm_num_groups=SHAPE.groups,
            num_vq_embeddings=CODES,
            vq_embed_dim=CODE,
        )

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        decoded = self.model(images)
        return decoded.sample, decoded.commit_loss.sum()

    def after_step(self) -> None:
        """Nothing to do."""


class Ours(nn.Module):
    """genstack's autoencoder in a memory format.

    Args:
        format: of the weights and of the images.
        copies: latents are copied into the format before the decoder reads them.
    """

    def __init__(self, format: torch.memory_format, copies: bool):
        super().__init__()
        self.model = Autoencoder(3, SHAPE, VectorQuantizer(CODES, CODE)).to(memory_format=format)
        self.format, self.copies = format, copies

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        quantized = self.model.quantizer(self.model.latents(images.contiguous(memory_format=self.format)))
        latents = quantized.latents
        if self.copies:
            latents = latents.contiguous(memory_format=self.format)
        return self.model.images(latents, images.shape[-2:]), sum(quantized.losses.values())

    def after_step(self) -> None:
        """The codebook's."""
        self.model.after_step(skipped=False)


def step(model: nn.Module, images: Tensor, precision: str) -> Callable[[], None]:
    """One training step: forwards, backwards, optimizer."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4)
    autocast = torch.autocast("cpu", torch.bfloat16) if precision == "bf16" else nullcontext()

    def work() -> None:
        with autocast:
            decoded, losses = model(images)
        loss = (decoded.float() - images).square().mean() + losses
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        model.after_step()

    return work


def seconds(work: Callable[[], object]) -> float:
    """Processor time of one call, of all threads together: steadier than the clock where others work, too."""
    begun = time.process_time()
    work()
    return time.process_time() - begun


def table(title: str, works: dict[str, Callable[[], object]], rounds: int) -> None:
    """Time all, in rounds, and print medians; ratios are those to the first."""
    for work in works.values():
        work()
    times = [{name: seconds(work) for name, work in works.items()} for _ in range(rounds)]
    first = next(iter(works))
    print(title)
    for name in works:
        ratios = sorted(row[name] / row[first] for row in times)
        print(
            f"  {name:34} {median(row[name] for row in times):7.3f} s  {median(ratios):5.2f} x "
            f"({ratios[0]:.2f} to {ratios[-1]:.2f})",
            flush=True,
        )


def costs(title: str, work: Callable[[], object]) -> None:
    """Print the three operators that take the most time of their own."""
    work()
    with profile(activities=[ProfilerActivity.CPU]) as found:
        work()
    rows = sorted(found.key_averages(), key=lambda row: row.self_cpu_time_total, reverse=True)
    total = sum(row.self_cpu_time_total for row in rows)
    for row in rows[:3]:
        print(f"  {title}: {row.key:36} {row.self_cpu_time_total / total:6.1%}  {row.count} calls")


def main() -> None:
    """Print the tables."""
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--rounds", type=int, default=7)
    arguments.add_argument("--batch", type=int, default=8)
    arguments.add_argument("--precisions", default="fp32,bf16", help="of training; images are fp32")
    arguments.add_argument("--only", default="training,images")
    given = arguments.parse_args()
    torch.manual_seed(0)
    images = torch.rand(given.batch, 3, SIDE, SIDE) * 2 - 1
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads")
    if "training" in given.only:
        models: dict[str, nn.Module] = {"diffusers": Theirs()}
        for name, format in FORMATS.items():
            models[f"genstack, {name}"] = Ours(format, copies=False)
        models["genstack, rows, latents copied"] = Ours(torch.contiguous_format, copies=True)
        works = {
            f"{precision} {name}": step(model, images, precision)
            for precision in given.precisions.split(",")
            for name, model in models.items()
        }
        table(f"training step, {SIDE} px, batch {given.batch}", works, given.rounds)
    if "images" in given.only:
        with torch.inference_mode():
            large(given.rounds)


def large(rounds: int) -> None:
    """Encode and decode large images."""
    images = torch.rand(1, 3, LARGE, LARGE) * 2 - 1
    theirs = Theirs().eval()
    works: dict[str, dict[str, Callable[[], object]]] = {
        "encode": {"diffusers": lambda: theirs.model.encode(images).latents},
        "decode": {},
    }
    latents = torch.randn(1, CODE, *SHAPE.grid(LARGE, LARGE))
    works["decode"]["diffusers"] = lambda: theirs.model.decode(latents, force_not_quantize=True).sample
    for name, format in FORMATS.items():
        ours = Ours(format, copies=False).model.eval()
        layout = ours.layout(LARGE, LARGE)
        given = images.contiguous(memory_format=format)
        codes = ours.encode(given)
        works["encode"][f"genstack, {name}"] = lambda ours=ours, given=given: ours.encode(given)
        works["decode"][f"genstack, {name}"] = lambda ours=ours, codes=codes, layout=layout: ours.decode(
            codes, layout
        )
    for title, kinds in works.items():
        table(f"{title}, {LARGE} px, batch 1", kinds, rounds)
        for name, work in kinds.items():
            if name.startswith("genstack"):
                costs(name, work)


if __name__ == "__main__":
    main()
