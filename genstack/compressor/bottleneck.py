"""Contract of bottlenecks between encoder and decoder: quantizers, and bottlenecks without codes."""

from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from typing import Any

from jaxtyping import Float, Int, Shaped
from torch import Tensor, nn

from genstack.errors import UserError
from genstack.layout import CodeLayout, Layout

REMEDY = "train one: genstack train prior --compressor RUN --config autoregressive"


@dataclass
class BottleneckOutput:
    """Output of a bottleneck.

    Args:
        latents: input of the decoder.
        losses: weighted losses by name, added to the training loss.
        nats: KL divergence of each latent value; None for codes.
    """

    latents: Float[Tensor, "b d h w"]
    losses: dict[str, Float[Tensor, ""]] = field(default_factory=dict)
    nats: Float[Tensor, "b d h w"] | None = None


@dataclass
class Quantized(BottleneckOutput):
    """Output of a quantizer: quantized latents and their codes."""

    codes: Int[Tensor, "b n"] = field(kw_only=True)


class Bottleneck(nn.Module, ABC):
    """Map latents to latents of `dim` channels and the same size, and return losses by name.

    It runs in float32, also under autocast.
    """

    dim: int

    @property
    def dim_in(self) -> int:
        """Channels of the input."""
        return self.dim

    @abstractmethod
    def forward(self, latents: Float[Tensor, "b _ h w"]) -> BottleneckOutput: ...

    @abstractmethod
    def layout(self, image_size: tuple[int, int], height: int, width: int) -> Layout:
        """Return the layout of codes or latents of this height and width."""

    @abstractmethod
    def encode(self, latents: Float[Tensor, "b _ h w"]) -> Shaped[Tensor, "b ..."]:
        """Encode to codes, or to latents without codes."""

    def posterior(self, latents: Float[Tensor, "b _ h w"]) -> Shaped[Tensor, "b ..."]:
        """Return codes, or means and deviations of latents, `b 2 d h w`."""
        return self.encode(latents)

    @abstractmethod
    def lookup(self, values: Shaped[Tensor, "b ..."], layout: Any) -> Float[Tensor, "b d h w"]:
        """Return the latents of codes; latents without codes stay as they are. `layout` is a `Layout`."""

    @property
    def standardization(self) -> tuple[float, float] | None:
        """Published mean and deviation of latents; None if they must be measured."""
        return None

    def sample(
        self, seeds: Int[Tensor, " b"], height: int, width: int, temperature: float
    ) -> Float[Tensor, "b d h w"]:
        """Sample latents from a bottleneck without codes, one image per seed."""
        raise UserError(f"sampling the codes of {type(self).__name__} needs a prior; {REMEDY}")

    def after_step(self, skipped: bool) -> None:
        """Update buffers from the statistics since the last optimizer step; called once after each step.

        Args:
            skipped: the step was skipped because a value was not finite; drop the statistics.
        """


class Quantizer(Bottleneck):
    """A bottleneck that represents latents by codes.

    Law, in eval mode, within 1e-6: `lookup(quantizer(latents).codes, layout) == quantizer(latents).latents`.
    A position has `depth` codes, each of `codebook_size` values.
    """

    codebook_size: int
    depth: int = 1

    @abstractmethod
    def forward(self, latents: Float[Tensor, "b d h w"]) -> Quantized: ...

    def encode(self, latents: Float[Tensor, "b d h w"]) -> Int[Tensor, "b n"]:
        return self(latents).codes

    @abstractmethod
    def lookup(self, codes: Int[Tensor, "b n"], layout: CodeLayout) -> Float[Tensor, "b d h w"]:
        """Return the latents of codes."""

    def layout(self, image_size: tuple[int, int], height: int, width: int) -> CodeLayout:
        """Return the layout of the codes of latents of this size: one grid, unless overridden."""
        return CodeLayout(image_size, self.codebook_size, ((height, width),), self.depth)
