"""Usage of a compressor's codes or latents in training and validation: metrics, a warning and a chart."""

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

LOW = 0.2  # share of codes or channels in use below which there is a warning
ACTIVE = 0.01  # nats per position of a channel in use


class UsageMonitor(nn.Module, ABC):
    """Usage of codes or latents; the state is saved in checkpoints.

    Training batches count once their step is done, and validation batches until the metrics are computed.
    """

    #: Description of the codes or latents of an image.
    representation: str

    @abstractmethod
    def update(self, reconstruction: Reconstruction) -> None:
        """Add a training batch."""

    @abstractmethod
    def after_step(self, skipped: bool) -> None:
        """Count the step's batches of all processes, or drop them if the step was skipped."""

    @abstractmethod
    def training_metrics(self) -> dict[str, float]:
        """Compute metrics of recent training batches."""

    @abstractmethod
    def update_validation(self, reconstruction: Reconstruction) -> None:
        """Add a validation batch."""

    @abstractmethod
    def validation_metrics(self) -> dict[str, float]:
        """Compute metrics of the validation batches since the last call."""

    @abstractmethod
    def warning(self) -> str:
        """Describe a problem in recent training and its remedies; empty without one."""

    @abstractmethod
    def chart(self) -> PIL.Image.Image | None:
        """Draw the recent usage; None without codes."""


def usage_monitor(compressor: Compressor, height: int, width: int) -> UsageMonitor:
    """Build the monitor for a compressor and image size."""
    kind = CodebookUsage if compressor.has_codes else LatentUsage
    return kind(compressor, height, width)


class CodebookUsage(UsageMonitor):
    """Usage of a codebook, overall and by grid.

    The overall usage would hide the collapse of a coarse grid, which has few codes.

    Args:
        compressor: compressor with codes.
        height: height of the images.
        width: width of the images.
    """

    def __init__(self, compressor: Compressor, height: int, width: int):
        super().__init__()
        self.layout = layout = compressor.code_layout(height, width)
        self.representation = layout.representation
        self.window = Window(layout)
        several = layout.grids if len(layout.grids) > 1 else ()
        self.grids = nn.ModuleList(Window(replace(layout, grids=(grid,))) for grid in several)
        #: each grid of latents has its own quantizer and codebook
        self.codebooks = len(compressor.sizes((height, width)))
        self.pending: list[Tensor] = []
        self.validation: list[Tensor] = []

    def update(self, reconstruction: Reconstruction) -> None:
        assert reconstruction.codes is not None
        self.pending.append(reconstruction.codes)

    def after_step(self, skipped: bool) -> None:
        if self.pending and not skipped:
            codes = gather_rows(torch.cat(self.pending))
            self.window.add(codes)
            for window, part in zip(self.grids, self.split(codes), strict=True):
                window.add(part)  # type: ignore[operator]
        self.pending.clear()

    def split(self, codes: Int[Tensor, "b n"]) -> list[Int[Tensor, "b _"]]:
        """Split codes by grid; empty for a single grid."""
        if not len(self.grids):
            return []
        return [rearrange(grid, "b h w depth -> b (h w depth)") for grid in self.layout.split(codes)]

    def training_metrics(self) -> dict[str, float]:
        return metrics(self.window.usage(), [window.usage() for window in self.windows])

    @property
    def windows(self) -> list[Window]:
        """Windows of the grids; empty for a single grid."""
        return list(self.grids)  # type: ignore[arg-type]

    def update_validation(self, reconstruction: Reconstruction) -> None:
        assert reconstruction.codes is not None
        self.validation.append(reconstruction.codes)

    def validation_metrics(self) -> dict[str, float]:
        empty = self.window.codes.new_empty(0, self.layout.length)
        codes = gather_rows(torch.cat([empty, *self.validation]))
        self.validation.clear()
        return metrics(
            usage(self.window.numbers(codes), self.window.codebook_size),
            [
                usage(window.numbers(part), window.codebook_size)
                for window, part in zip(self.windows, self.split(codes), strict=True)
            ],
        )

    def warning(self) -> str:
        for name, windows in self.codebook_windows().items():
            share = usage(torch.cat([window.codes for window in windows]), self.window.codebook_size).share
            possible = max(window.possible for window in windows)
            if share < LOW * possible:
                return (
                    f"only {share:.0%} of the codebook{name} is in use; try fewer codes (codebook_size), "
                    f"fewer dimensions with normalize: true (dim 8), or earlier restarts of dead codes "
                    f"(dead_after)"
                )
        return ""

    def codebook_windows(self) -> dict[str, list[Window]]:
        """Return the windows of each codebook, by its name in the warning."""
        if self.codebooks == 1:
            return {"": [self.window]}
        each = len(self.grids) // self.codebooks
        return {
            f" of grid {number + 1} of {self.codebooks}": self.windows[number * each : (number + 1) * each]
            for number in range(self.codebooks)
        }

    def chart(self) -> PIL.Image.Image:
        """Histograms of code frequencies, a row for each grid."""
        if not len(self.grids):
            return histograms([histogram("all codes", self.window)])
        sizes = [f"{height}x{width}" for height, width in self.layout.grids]
        rows = zip(sizes, self.windows, strict=True)
        return histograms(
            [histogram(f"grid {number}, {size}", window) for number, (size, window) in enumerate(rows, 1)]
        )


def histogram(name: str, window: Window) -> Histogram:
    """The histogram of a window."""
    found = window.usage()
    caption = (
        f"{name}: usage {found.share:.1%}; perplexity {found.perplexity:,.0f}; dead {found.dead:,} of "
        f"{window.codebook_size:,}; the latest {window.count:,} codes of training"
    )
    return Histogram(caption, window.counts(), window.codebook_size)


def metrics(whole: Usage, grids: Sequence[Usage]) -> dict[str, float]:
    """Usage of all codes, and of each grid, counted from 1, coarse to fine."""
    found = {"usage": whole.share, "perplexity": whole.perplexity, "dead": float(whole.dead)}
    for number, grid in enumerate(grids, 1):
        found |= {f"usage_grid{number}": grid.share, f"perplexity_grid{number}": grid.perplexity}
    return found


class LatentUsage(UsageMonitor):
    """Information in latents without codes, and the share of their channels in use.

    Args:
        compressor: compressor without codes.
        height: height of the images.
        width: width of the images.
    """

    def __init__(self, compressor: Compressor, height: int, width: int):
        super().__init__()
        grids = ", ".join(f"{rows}x{columns}" for rows, columns in compressor.sizes((height, width)))
        self.representation = f"latents of {grids} without codes"
        self.pending: list[Tensor] = []
        self.latest: list[Tensor] = []
        self.validation: list[Tensor] = []

    def update(self, reconstruction: Reconstruction) -> None:
        assert reconstruction.nats is not None
        self.pending.append(reconstruction.nats.detach())

    def after_step(self, skipped: bool) -> None:
        if not skipped:
            self.latest = self.pending
        self.pending = []

    def training_metrics(self) -> dict[str, float]:
        return latent_metrics(self.latest) if self.latest else {}

    def update_validation(self, reconstruction: Reconstruction) -> None:
        assert reconstruction.nats is not None
        self.validation.append(reconstruction.nats)

    def validation_metrics(self) -> dict[str, float]:
        found = latent_metrics(self.validation)
        self.validation.clear()
        return found

    def warning(self) -> str:
        share = self.training_metrics().get("active", 1.0)
        if share >= LOW:
            return ""
        return (
            f"only {share:.0%} of the latents' channels carry information; try a lower divergence_weight, "
            f"more free_bits, or fewer channels (dim)"
        )

    def chart(self) -> None:
        return None


def latent_metrics(nats: Sequence[Float[Tensor, "_ d h w"]]) -> dict[str, float]:
    """Compute nats per image and the share of active channels, over the batches of all processes."""
    positions = nats[0][0, 0].numel()
    counted = [torch.cat([each.sum((0, 2, 3)), each.new_tensor([len(each)])]) for each in nats]
    *channels, images = all_reduce_sum(torch.stack(counted).sum(0)).tolist()
    active = sum(channel / images / positions >= ACTIVE for channel in channels)
    return {"rate": sum(channels) / images, "active": active / len(channels)}
