"""How well what lies between encoder and decoder is used, as numbers and in plain words."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import replace

import PIL.Image
import torch
from einops import rearrange
from jaxtyping import Float, Int
from torch import Tensor, nn

from genstack.compressor import Compressor, Reconstruction
from genstack.compressor.usage import Usage, Window, usage
from genstack.dist import all_reduce_sum, gather_rows
from genstack.training.histogram import Histogram, histograms

LEAST = 0.2  # share of codes or channels in use below which something is wrong
ACTIVE = 0.01  # nats per position that a channel in use says at least


class Health(nn.Module, ABC):
    """Numbers of the middle of a compressor; what they need of training is saved with the run.

    `add` takes in training batches, which count once the step that they are part of is done; `hold` takes in
    held-out ones, which `held_out` then counts and forgets.
    """

    #: What an image becomes, in words.
    becomes: str

    @abstractmethod
    def add(self, reconstruction: Reconstruction) -> None:
        """Take in a batch of training."""

    @abstractmethod
    def after_step(self, skipped: bool) -> None:
        """Count what was taken in since the last step, on all processes alike; forget it if thrown away."""

    @abstractmethod
    def trained(self) -> dict[str, float]:
        """The numbers of the latest training."""

    @abstractmethod
    def hold(self, reconstruction: Reconstruction) -> None:
        """Take in a batch of held-out images."""

    @abstractmethod
    def held_out(self) -> dict[str, float]:
        """The numbers of the held-out images since the last call."""

    @abstractmethod
    def complaint(self) -> str:
        """What is wrong with the latest training, and what to try; empty while nothing is."""

    @abstractmethod
    def picture(self) -> PIL.Image.Image | None:
        """What the latest training used, to look at; None where there is nothing to count."""


def health(compressor: Compressor, height: int, width: int) -> Health:
    """What to watch in a compressor of images of this size."""
    kind = CodeHealth if compressor.coded else LatentHealth
    return kind(compressor, height, width)


class CodeHealth(Health):
    """How much of a codebook is in use, of each grid by itself where there are several.

    A grid that has collapsed has few codes, and they hide among those of finer grids.

    Args:
        compressor: with codes.
        height: of the images.
        width: of the images.
    """

    def __init__(self, compressor: Compressor, height: int, width: int):
        super().__init__()
        self.layout = layout = compressor.layout(height, width)
        self.becomes = f"{layout.length} codes of {layout.codebook_size}"
        self.window = Window(layout)
        several = layout.grids if len(layout.grids) > 1 else ()
        self.grids = nn.ModuleList(Window(replace(layout, grids=(grid,))) for grid in several)
        #: each grid of latents has a quantizer, and with it a codebook, of its own
        self.codebooks = len(compressor.sizes((height, width)))
        self.fresh: list[Tensor] = []
        self.held: list[Tensor] = []

    def add(self, reconstruction: Reconstruction) -> None:
        assert reconstruction.codes is not None
        self.fresh.append(reconstruction.codes)

    def after_step(self, skipped: bool) -> None:
        if self.fresh and not skipped:
            codes = gather_rows(torch.cat(self.fresh))
            self.window.add(codes)
            for window, part in zip(self.grids, self.parts(codes), strict=True):
                window.add(part)  # type: ignore[operator]
        self.fresh.clear()

    def parts(self, codes: Int[Tensor, "b n"]) -> list[Int[Tensor, "b _"]]:
        """The codes of each grid, where there are several."""
        if not len(self.grids):
            return []
        return [rearrange(grid, "b h w depth -> b (h w depth)") for grid in self.layout.split(codes)]

    def trained(self) -> dict[str, float]:
        return told(self.window.usage(), [window.usage() for window in self.windows])

    @property
    def windows(self) -> list[Window]:
        """Those of the grids, where there are several."""
        return list(self.grids)  # type: ignore[arg-type]

    def hold(self, reconstruction: Reconstruction) -> None:
        assert reconstruction.codes is not None
        self.held.append(reconstruction.codes)

    def held_out(self) -> dict[str, float]:
        nothing = self.window.codes.new_empty(0, self.layout.length)
        codes = gather_rows(torch.cat([nothing, *self.held]))
        self.held.clear()
        return told(
            usage(self.window.numbers(codes), self.window.codebook_size),
            [
                usage(window.numbers(part), window.codebook_size)
                for window, part in zip(self.windows, self.parts(codes), strict=True)
            ],
        )

    def complaint(self) -> str:
        for name, windows in self.tables().items():
            share = usage(torch.cat([window.codes for window in windows]), self.window.codebook_size).share
            possible = max(window.possible for window in windows)
            if share < LEAST * possible:
                return (
                    f"only {share:.0%} of the codebook{name} is in use; try fewer codes (codebook_size), "
                    f"fewer numbers per code with normalize: true (dim 8), or quicker restarts of unused "
                    f"codes (dead_after)"
                )
        return ""

    def tables(self) -> dict[str, list[Window]]:
        """The windows that show the codes of each codebook, by what it is called."""
        if self.codebooks == 1:
            return {"": [self.window]}
        each = len(self.grids) // self.codebooks
        return {
            f" of grid {number + 1} of {self.codebooks}": self.windows[number * each : (number + 1) * each]
            for number in range(self.codebooks)
        }

    def picture(self) -> PIL.Image.Image:
        """How often each code was seen, a row for each grid."""
        if not len(self.grids):
            return histograms([histogram("all codes", self.window)])
        sizes = [f"{height}x{width}" for height, width in self.layout.grids]
        rows = zip(sizes, self.windows, strict=True)
        return histograms(
            [histogram(f"grid {number}, {size}", window) for number, (size, window) in enumerate(rows, 1)]
        )


def histogram(name: str, window: Window) -> Histogram:
    """What to draw of a window."""
    health = window.usage()
    caption = (
        f"{name}: usage {health.share:.1%}; perplexity {health.perplexity:,.0f}; dead {health.dead:,} of "
        f"{window.codebook_size:,}; the latest {window.filled:,} codes of training"
    )
    return Histogram(caption, window.counts(), window.codebook_size)


def told(whole: Usage, grids: Sequence[Usage]) -> dict[str, float]:
    """The health of all codes by name, and that of each grid, counted from 1, coarse to fine."""
    found = numbers(whole)
    for number, health in enumerate(grids, 1):
        found |= {f"usage_grid{number}": health.share, f"perplexity_grid{number}": health.perplexity}
    return found


def numbers(health: Usage) -> dict[str, float]:
    """The health of a codebook by name."""
    return {"usage": health.share, "perplexity": health.perplexity, "dead": float(health.dead)}


class LatentHealth(Health):
    """How much latents without codes say of their images, and how many of their channels say anything.

    Args:
        compressor: without codes.
        height: of the images.
        width: of the images.
    """

    def __init__(self, compressor: Compressor, height: int, width: int):
        super().__init__()
        grids = ", ".join(f"{rows}x{columns}" for rows, columns in compressor.sizes((height, width)))
        self.becomes = f"latents of {grids} without codes"
        self.fresh: list[Tensor] = []
        self.latest: list[Tensor] = []
        self.held: list[Tensor] = []

    def add(self, reconstruction: Reconstruction) -> None:
        assert reconstruction.nats is not None
        self.fresh.append(reconstruction.nats.detach())

    def after_step(self, skipped: bool) -> None:
        if not skipped:
            self.latest = self.fresh
        self.fresh = []

    def trained(self) -> dict[str, float]:
        return amounts(self.latest) if self.latest else {}

    def hold(self, reconstruction: Reconstruction) -> None:
        assert reconstruction.nats is not None
        self.held.append(reconstruction.nats)

    def held_out(self) -> dict[str, float]:
        found = amounts(self.held)
        self.held.clear()
        return found

    def complaint(self) -> str:
        share = self.trained().get("active", 1.0)
        if share >= LEAST:
            return ""
        return (
            f"only {share:.0%} of the latents' channels say anything about their image; try a lower "
            f"divergence_weight, more free_bits, or fewer channels (dim)"
        )

    def picture(self) -> None:
        return None


def amounts(nats: Sequence[Float[Tensor, "_ d h w"]]) -> dict[str, float]:
    """Nats per image, and the share of channels that say at least `ACTIVE` per position, of all processes.

    Every process must hold at least one batch.
    """
    positions = nats[0][0, 0].numel()
    counted = [torch.cat([each.sum((0, 2, 3)), each.new_tensor([len(each)])]) for each in nats]
    *channels, images = all_reduce_sum(torch.stack(counted).sum(0)).tolist()
    active = sum(channel / images / positions >= ACTIVE for channel in channels)
    return {"rate": sum(channels) / images, "active": active / len(channels)}
