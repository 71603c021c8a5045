"""Metrics of one optimizer step, and means over validation images, across processes."""

from collections.abc import Mapping

import torch
from torch import Tensor

from genstack.dist import all_reduce_sum, is_distributed


class StepMetrics:
    """Metrics of the current optimizer step.

    Lightning's own log keeps old values, which a resumed run does not have, and logs only rank 0 and the last
    accumulated part.
    """

    def __init__(self) -> None:
        self.values: dict[str, list[Tensor]] = {}

    def update(self, numbers: Mapping[str, Tensor | float]) -> None:
        """Add metrics of an accumulated part, or of the whole step."""
        for name, value in numbers.items():
            self.values.setdefault(name, []).append(torch.as_tensor(value).detach().float())

    def clear(self) -> None:
        """Start a new step."""
        self.values.clear()

    def local_means(self) -> dict[str, float]:
        """Average over the parts of this process."""
        return {name: float(torch.stack(values).mean()) for name, values in self.values.items()}

    def means(self, device: torch.device) -> dict[str, float]:
        """Average over the parts of all processes, which must have logged the same names."""
        local = self.local_means()
        *sums, processes = sum_over_processes([*local.values(), 1.0], device)
        return {name: value / processes for name, value in zip(local, sums, strict=True)}


class MeanMetrics:
    """Means over images, for any batch size and number of images per process."""

    def __init__(self) -> None:
        self.sums: dict[str, float] = {}
        self.images = 0

    def update(self, numbers: Mapping[str, Tensor | float], images: int) -> None:
        """Add the means over a batch of images."""
        for name, value in numbers.items():
            self.sums[name] = self.sums.get(name, 0.0) + float(value) * images
        self.images += images

    def compute(self, device: torch.device) -> dict[str, float]:
        """Average over the images of all processes, at least one each, and reset."""
        *sums, images = sum_over_processes([*self.sums.values(), float(self.images)], device)
        means = {name: value / images for name, value in zip(self.sums, sums, strict=True)}
        self.sums, self.images = {}, 0
        return means


def sum_over_processes(numbers: list[float], device: torch.device) -> list[float]:
    """Sum each number over all processes."""
    if not is_distributed():
        return numbers
    return all_reduce_sum(torch.tensor(numbers, dtype=torch.float64, device=device)).tolist()
