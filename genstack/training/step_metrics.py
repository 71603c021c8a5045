"""The numbers of a run: those of one optimizer step, and means over held-out images; of all processes."""

from collections.abc import Mapping

import torch
from torch import Tensor

from genstack.dist import all_reduce_sum, is_distributed


class StepMetrics:
    """What is said of the step at hand, by name; it knows nothing of earlier steps.

    Lightning remembers the last value of every number ever logged, which a resumed run could not know, and
    logs those of the first process and of the last accumulated part.
    """

    def __init__(self) -> None:
        self.values: dict[str, list[Tensor]] = {}

    def add(self, numbers: Mapping[str, Tensor | float]) -> None:
        """Take in numbers of a part, or of the step as a whole."""
        for name, value in numbers.items():
            self.values.setdefault(name, []).append(torch.as_tensor(value).detach().float())

    def clear(self) -> None:
        """Begin another step."""
        self.values.clear()

    def here(self) -> dict[str, float]:
        """The means over the parts that this process computed."""
        return {name: float(torch.stack(values).mean()) for name, values in self.values.items()}

    def everywhere(self, device: torch.device) -> dict[str, float]:
        """The means over the parts of all processes, which must have noted the same names."""
        here = self.here()
        *sums, processes = sum_over_processes([*here.values(), 1.0], device)
        return {name: value / processes for name, value in zip(here, sums, strict=True)}


class MeanMetrics:
    """Means over images, whatever the sizes of their batches and however many each process has."""

    def __init__(self) -> None:
        self.sums: dict[str, float] = {}
        self.images = 0

    def add(self, numbers: Mapping[str, Tensor | float], images: int) -> None:
        """Take in the means over so many images."""
        for name, value in numbers.items():
            self.sums[name] = self.sums.get(name, 0.0) + float(value) * images
        self.images += images

    def take(self, device: torch.device) -> dict[str, float]:
        """The means over the images of all processes, each of which must have some; begins anew."""
        *sums, images = sum_over_processes([*self.sums.values(), float(self.images)], device)
        means = {name: value / images for name, value in zip(self.sums, sums, strict=True)}
        self.sums, self.images = {}, 0
        return means


def sum_over_processes(numbers: list[float], device: torch.device) -> list[float]:
    """The sum of each number over all processes."""
    if not is_distributed():
        return numbers
    return all_reduce_sum(torch.tensor(numbers, dtype=torch.float64, device=device)).tolist()
