"""What stands between encoder and decoder: the contract of quantizers, and of bottlenecks without codes."""

from abc import ABC, abstractmethod
from dataclasses import dataclass, field

from jaxtyping import Float, Int
from torch import Tensor, nn

from genstack.layout import CodeLayout


@dataclass
class Bottlenecked:
    """What a bottleneck makes of latents.

    Args:
        latents: what the decoder reads.
        losses: named terms, already weighted; their sum joins the training loss.
    """

    latents: Float[Tensor, "b d h w"]
    losses: dict[str, Float[Tensor, ""]] = field(default_factory=dict)


@dataclass
class Quantized(Bottlenecked):
    """What a quantizer makes of latents: bottlenecked latents and the codes that stand for them."""

    codes: Int[Tensor, "b n"] = field(kw_only=True)


class Bottleneck(nn.Module, ABC):
    """Latents to latents of the same shape, and named loss terms.

    `dim` is the number of channels it reads and returns. All of it runs in float32, whatever the autocast.
    """

    dim: int

    @abstractmethod
    def forward(self, latents: Float[Tensor, "b d h w"]) -> Bottlenecked: ...

    def after_step(self, skipped: bool) -> None:
        """Act on the statistics gathered since the last optimizer step; called once after each.

        Args:
            skipped: the step was thrown away (a loss or gradient was not finite); so must the statistics be.
        """


class Quantizer(Bottleneck):
    """A bottleneck whose latents can be written as codes.

    Law, in eval mode, within 1e-6: `lookup(quantizer(latents).codes, layout) == quantizer(latents).latents`.
    """

    codebook_size: int

    @abstractmethod
    def forward(self, latents: Float[Tensor, "b d h w"]) -> Quantized: ...

    @abstractmethod
    def lookup(self, codes: Int[Tensor, "b n"], layout: CodeLayout) -> Float[Tensor, "b d h w"]:
        """The latents that codes stand for."""

    def layout(self, image_size: tuple[int, int], height: int, width: int) -> CodeLayout:
        """Where the codes of latents of this height and width lie: one grid of one symbol per position."""
        return CodeLayout(image_size, self.codebook_size, ((height, width),))
