"""How well what lies between encoder and decoder is used, as numbers and in plain words."""

from abc import ABC, abstractmethod
from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor, distributed, nn

from genstack.compressor import Compressor, Reconstruction
from genstack.training.usage import Usage, Window, everywhere, usage

LEAST = 0.2  # share of codes or channels in use below which something is wrong
ACTIVE = 0.01  # nats per position that a channel in use says at least


class Health(nn.Module, ABC):
    """Numbers of the middle of a compressor; what they need of training is saved with the run.

    `add` takes in training batches, `hold` held-out ones, which `held_out` then counts and forgets.
    """

    #: What an image becomes, in words.
    becomes: str

    @abstractmethod
    def add(self, reconstruction: Reconstruction) -> None:
        """Take in a batch of training, on all processes alike."""

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


def health(compressor: Compressor, height: int, width: int) -> Health:
    """What to watch in a compressor of images of this size."""
    kind = CodeHealth if compressor.coded else LatentHealth
    return kind(compressor, height, width)


class CodeHealth(Health):
    """How much of a codebook is in use.

    Args:
        compressor: with codes.
        height: of the images.
        width: of the images.
    """

    def __init__(self, compressor: Compressor, height: int, width: int):
        super().__init__()
        layout = compressor.layout(height, width)
        self.becomes = f"{layout.length} codes of {layout.codebook_size}"
        self.window = Window(layout)
        self.held: list[Tensor] = []

    def add(self, reconstruction: Reconstruction) -> None:
        assert reconstruction.codes is not None
        self.window.add(reconstruction.codes)

    def trained(self) -> dict[str, float]:
        return numbers(self.window.usage())

    def hold(self, reconstruction: Reconstruction) -> None:
        assert reconstruction.codes is not None
        self.held.append(self.window.numbers(reconstruction.codes))

    def held_out(self) -> dict[str, float]:
        nothing = torch.empty(0, dtype=torch.int64, device=self.window.codes.device)
        codes = everywhere(torch.cat([nothing, *self.held]))
        self.held.clear()
        return numbers(usage(codes, self.window.codebook_size))

    def complaint(self) -> str:
        possible = min(1.0, len(self.window.codes) / self.window.codebook_size)
        share = self.window.usage().share
        if share >= LEAST * possible:
            return ""
        return (
            f"only {share:.0%} of the codebook is in use; try fewer codes (codebook_size), fewer numbers per "
            f"code with normalize: true (dim 8), or quicker restarts of unused codes (dead_after)"
        )


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
        self.latest: Tensor | None = None
        self.held: list[Tensor] = []

    def add(self, reconstruction: Reconstruction) -> None:
        assert reconstruction.nats is not None
        self.latest = reconstruction.nats.detach()

    def trained(self) -> dict[str, float]:
        return {} if self.latest is None else amounts([self.latest])

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


def amounts(nats: Sequence[Float[Tensor, "_ d h w"]]) -> dict[str, float]:
    """Nats per image, and the share of channels that say at least `ACTIVE` per position, of all processes.

    Every process must hold at least one batch.
    """
    positions = nats[0][0, 0].numel()
    counted = [torch.cat([each.sum((0, 2, 3)), each.new_tensor([len(each)])]) for each in nats]
    *channels, images = everyones(torch.stack(counted).sum(0)).tolist()
    active = sum(channel / images / positions >= ACTIVE for channel in channels)
    return {"rate": sum(channels) / images, "active": active / len(channels)}


def everyones(sums: Float[Tensor, " n"]) -> Float[Tensor, " n"]:
    """The sums over all processes."""
    if distributed.is_initialized() and distributed.get_world_size() > 1:
        distributed.all_reduce(sums)
    return sums
