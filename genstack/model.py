"""A trained model with all that its use needs: images to codes, codes to images, and samples."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from genstack.compressor import Compressor
from genstack.data.images import Preprocessing
from genstack.errors import UserError
from genstack.facts import Facts
from genstack.layout import CodeLayout
from genstack.prior import Prior, SamplingOptions, image_seeds


@dataclass
class Model:
    """A compressor, how files become what it reads, and the prior over its codes where one was trained.

    Args:
        compressor: stage one.
        preprocessing: how files become images, and back.
        classes: names of the classes in the order of their labels; empty without classes.
        prior: stage two, or None.
        made: how it was made, for people: data, steps, results, versions.
    """

    compressor: Compressor
    preprocessing: Preprocessing
    classes: tuple[str, ...] = ()
    prior: Prior | None = None
    made: dict[str, Any] = field(default_factory=dict)

    @property
    def layout(self) -> CodeLayout:
        """Where the codes of an image of the preprocessing's size lie."""
        return self.compressor.layout(self.preprocessing.height, self.preprocessing.width)

    def modules(self) -> nn.ModuleDict:
        """The parts with weights, by the names they have in a file."""
        parts: dict[str, nn.Module] = {"compressor": self.compressor}
        return nn.ModuleDict(parts if self.prior is None else parts | {"prior": self.prior})

    def to(self, device: torch.device | str) -> "Model":
        """The same model, moved to a device."""
        self.modules().to(device)
        return self

    @property
    def device(self) -> torch.device:
        """Where the weights lie."""
        return next(self.compressor.parameters()).device

    @torch.no_grad()
    def reconstruct(self, images: Float[Tensor, "b c H W"]) -> Float[Tensor, "b c H W"]:
        """Images, through the compressor and back, in [-1, 1]."""
        return self.compressor(images.to(self.device)).images.clamp(-1, 1)

    @torch.no_grad()
    def sample(
        self, facts: Facts, options: SamplingOptions, seed: int, indices: Iterable[int]
    ) -> Float[Tensor, "b c H W"]:
        """Images drawn from the prior, in [-1, 1].

        Args:
            facts: what steers each image, from `prior.condition.choose`.
            options: how codes are drawn.
            seed: of this set of samples.
            indices: number of each image in the set; image i of a seed is the same whatever is beside it.
        """
        if self.prior is None:
            raise UserError(
                "this is a compressor without a prior; train one: "
                "python train.py prior --compressor RUN --config configs/prior/autoregressive.yaml"
            )
        condition = self.prior.condition.values(facts).to(self.device)
        codes = self.prior.sample(condition, options, image_seeds(seed, indices).to(self.device))
        return self.compressor.decode(codes, self.prior.layout).clamp(-1, 1)
