"""Validation metrics of priors: likelihood of codes, flow-matching loss of latents."""

import math
from abc import ABC, abstractmethod

import torch
from jaxtyping import Float, Int, Shaped
from torch import Tensor

from genstack.dist import all_reduce_sum
from genstack.prior import CodePrior, LatentPrior, Prior


class HeldOut(ABC):
    """Metrics of validation images under a prior."""

    #: Metric to minimize for the model file.
    best_metric: str
    #: Metrics on the progress line.
    progress_metrics: tuple[str, ...]

    @abstractmethod
    def start(self, device: torch.device) -> None:
        """Reset before a validation."""

    @abstractmethod
    def measure(
        self, prior: Prior, values: Shaped[Tensor, "b ..."], condition: Tensor
    ) -> Float[Tensor, " b"]:
        """Measure each image; with sharded weights, all processes call it together."""

    @abstractmethod
    def metrics(self, values: Shaped[Tensor, "b ..."], measured: Float[Tensor, " b"]) -> dict[str, Tensor]:
        """Average over a batch, by metric name."""

    @abstractmethod
    def joint_metrics(self) -> dict[str, float]:
        """Compute metrics over all validation images, equal in all processes."""


def held_out(prior: Prior) -> HeldOut:
    """Choose the metrics for a prior of codes or latents."""
    if isinstance(prior, CodePrior):
        return HeldOutCodes(prior)
    assert isinstance(prior, LatentPrior)
    return HeldOutLatents()


class HeldOutCodes(HeldOut):
    """Nats per code, bits per pixel, and the entropy of code frequencies as a baseline."""

    best_metric = "nats"
    progress_metrics = ("nats", "unigram", "uniform")
    counts: Tensor  # not a buffer, because DDP may overwrite buffers by those of rank 0

    def __init__(self, prior: CodePrior):
        self.layout = prior.layout

    def start(self, device: torch.device) -> None:
        self.counts = torch.zeros(sum(self.layout.parts), dtype=torch.int64, device=device)

    def measure(self, prior: Prior, values: Int[Tensor, "b n"], condition: Tensor) -> Float[Tensor, " b"]:
        return prior.nats(values, condition)

    def metrics(self, values: Int[Tensor, "b n"], measured: Float[Tensor, " b"]) -> dict[str, Tensor]:
        self.counts += self.layout.count_parts(values)
        nats = measured.mean()
        bits = nats / math.log(2) / math.prod(self.layout.image_size)
        return {"nats": nats / self.layout.length, "bits_per_pixel": bits}

    def joint_metrics(self) -> dict[str, float]:
        entropy = self.layout.unigram_nats(all_reduce_sum(self.counts))
        return {"uniform": math.log(self.layout.codebook_size), "unigram": entropy}


class HeldOutLatents(HeldOut):
    """Flow-matching loss, comparable only between priors over the same latents."""

    best_metric = "flow_matching"
    progress_metrics = ("flow_matching",)

    def start(self, device: torch.device) -> None:
        pass

    def measure(
        self, prior: Prior, values: Float[Tensor, "b d h w"], condition: Tensor
    ) -> Float[Tensor, " b"]:
        assert isinstance(prior, LatentPrior)
        return prior.held_out_loss(values, condition)

    def metrics(self, values: Float[Tensor, "b d h w"], measured: Float[Tensor, " b"]) -> dict[str, Tensor]:
        return {"flow_matching": measured.mean()}

    def joint_metrics(self) -> dict[str, float]:
        return {}
