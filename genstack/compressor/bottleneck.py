"""Contract of the bottleneck between encoder and decoder: quantizers, and bottlenecks without codes."""

from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from typing import Any

from jaxtyping import Float, Int, Shaped
from torch import Tensor, nn

from genstack.errors import UserError
from genstack.layout import CodeLayout, Layout

REMEDY = "train one: genstack train prior --compressor RUN --config autoregressive"


@dataclass
class Bottlenecked:
    """Output of a bottleneck.

    Args:
        latents: what the decoder reads.
        losses: named terms, already weighted; their sum joins the training loss.
        nats: what each number of the latents says of its image; None where codes say it.
    """

    latents: Float[Tensor, "b d h w"]
    losses: dict[str, Float[Tensor, ""]] = field(default_factory=dict)
    nats: Float[Tensor, "b d h w"] | None = None


@dataclass
class Quantized(Bottlenecked):
    """Output of a quantizer: quantized latents and their codes."""

    codes: Int[Tensor, "b n"] = field(kw_only=True)


class Bottleneck(nn.Module, ABC):
    """Latents to latents of the same height and width, and named loss terms.

    `dim` is the number of channels it returns. All of it runs in float32, whatever the autocast.
    """

    dim: int

    @property
    def dim_in(self) -> int:
        """Channels that it reads."""
        return self.dim

    @abstractmethod
    def forward(self, latents: Float[Tensor, "b _ h w"]) -> Bottlenecked: ...

    @abstractmethod
    def layout(self, image_size: tuple[int, int], height: int, width: int) -> Layout:
        """Layout of the codes or latents of this height and width."""

    @abstractmethod
    def encode(self, latents: Float[Tensor, "b _ h w"]) -> Shaped[Tensor, "b ..."]:
        """Codes, or latents without codes."""

    def posterior(self, latents: Float[Tensor, "b _ h w"]) -> Shaped[Tensor, "b ..."]:
        """Distribution of codes or latents given the image: codes, which are certain, or `b 2 d h w`."""
        return self.encode(latents)

    @abstractmethod
    def lookup(self, values: Shaped[Tensor, "b ..."], layout: Any) -> Float[Tensor, "b d h w"]:
        """The latents that codes stand for; latents without codes as they are. `layout` is a `Layout`."""

    @property
    def standardization(self) -> tuple[float, float] | None:
        """Published mean and deviation of latents; None where they have to be measured."""
        return None

    def draw(
        self, seeds: Int[Tensor, " b"], height: int, width: int, temperature: float
    ) -> Float[Tensor, "b d h w"]:
        """Latents as they are distributed by design, one image per seed.

        Raises:
            UserError: they are not; only a prior knows how the codes are distributed.
        """
        raise UserError(f"the codes of {type(self).__name__} are distributed as only a prior knows; {REMEDY}")

    def after_step(self, skipped: bool) -> None:
        """Act on the statistics gathered since the last optimizer step; called once after each.

        Args:
            skipped: the step was thrown away (a loss or gradient was not finite); so must the statistics be.
        """


class Quantizer(Bottleneck):
    """A bottleneck whose latents can be written as codes.

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
        """The latents that codes stand for."""

    def layout(self, image_size: tuple[int, int], height: int, width: int) -> CodeLayout:
        """Layout of the codes of latents of this height and width: one grid, unless overridden."""
        return CodeLayout(image_size, self.codebook_size, ((height, width),), self.depth)
