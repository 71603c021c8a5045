"""Stage two's contract: the distribution of codes, to train, to measure and to draw from."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar, Literal, final

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from genstack.compressor.compressor import Compressor
from genstack.conditions.condition import Condition
from genstack.errors import UserError
from genstack.layout import CodeLayout
from genstack.prior.guidance import Guidance
from genstack.prior.options import SamplingOptions
from genstack.transformer.weight_cast import cast_weights


@dataclass(frozen=True)
class Known:
    """Codes that are given, while the others are drawn: completion, inpainting, windows of a larger image.

    Args:
        codes: of each image; those that are not known may be any.
        mask: True where a code is known.
    """

    codes: Int[Tensor, "b n"]
    mask: Bool[Tensor, "b n"]

    @classmethod
    def nothing(cls, images: int, length: int) -> "Known":
        """No code of so many images."""
        return cls(
            torch.zeros(images, length, dtype=torch.int64), torch.zeros(images, length, dtype=torch.bool)
        )

    def to(self, device: torch.device | str) -> "Known":
        return Known(self.codes.to(device), self.mask.to(device))


class Prior(nn.Module, ABC):
    """A distribution over codes, built from the layout of the codes and the condition that steers it.

    Codes are int64 in [0, layout.codebook_size), `b n` with n = layout.length. Condition values are whatever
    `condition.values` makes of a batch.
    """

    layout: CodeLayout
    condition: Condition
    #: What `nats` is: "exact", or the name of the bound.
    likelihood: ClassVar[str] = "exact"
    #: Which known codes steer the one that is drawn: all, or those before it in the flat sequence alone.
    sees: ClassVar[Literal["all", "earlier"]] = "earlier"
    #: Steps of one sample where `SamplingOptions.steps` is 0; None where their number is fixed.
    steps: int | None = None

    def attach(self, compressor: Compressor) -> None:
        """Take what this prior needs of the compressor of its codes beside their layout: mostly nothing.

        Called by whoever brings the two together, before the prior is used. The compressor is frozen, is no
        part of the prior's weights, and lies beside the prior in its file.

        Raises:
            UserError: the compressor lacks what the prior needs.
        """

    def before_step(self, progress: float) -> None:
        """Whatever changes over the training changes here; called before each loss of a training step.

        Args:
            progress: share of the training's optimizer steps that are done, from 0 up to below 1.
        """

    @abstractmethod
    def loss(self, codes: Int[Tensor, "b n"], condition: Tensor) -> Float[Tensor, ""]:
        """The training objective, in nats per code where it is a likelihood."""

    @abstractmethod
    def nats(self, codes: Int[Tensor, "b n"], condition: Tensor) -> Float[Tensor, " b"]:
        """Negative log-likelihood of each image's codes in nats, summed over its codes; see `likelihood`.

        Measured on a prior in eval mode.
        """

    @final
    def check(self, options: SamplingOptions) -> None:
        """Refuse options by which this prior cannot draw.

        Raises:
            UserError: guidance other than 1 of a prior that was trained without condition dropout.
            UserError: a number of steps asked of a prior that has no choice.
        """
        if options.guidance != 1 and self.condition.dropout == 0:
            raise UserError(
                f"guidance {options.guidance} needs a prior trained with a condition and its dropout, unlike "
                f"this one; use guidance 1, or train one with a condition whose `dropout` is above 0"
            )
        if options.steps and self.steps is None:
            raise UserError(
                f"{type(self).__name__} takes as many steps as there are codes to draw, not {options.steps}; "
                f"leave `steps` out"
            )

    @final
    def sample(
        self,
        condition: Tensor,
        options: SamplingOptions,
        seeds: Int[Tensor, " b"],
        known: Known | None = None,
    ) -> Int[Tensor, "b n"]:
        """Codes for each row of `condition`; row i depends on its own condition, seed and known codes alone.

        Args:
            condition: values of the condition.
            options: how codes are drawn.
            seeds: one for each image.
            known: codes that are kept as they are; None for none.

        Raises:
            UserError: the prior cannot draw by these options: `check`.
        """
        self.check(options)
        device = next(self.parameters()).device
        known = known or Known.nothing(len(seeds), self.layout.length)
        training = self.training
        self.eval()
        try:
            with torch.inference_mode(), cast_weights(self, device):
                guidance = Guidance(self.condition, condition.to(device), options)
                codes = self.draw(guidance, options, seeds, known.to(device))
                codes = torch.where(known.mask.to(device), known.codes.to(device), codes)
            return codes.clone()  # outside of inference mode, so that the codes may also train something
        finally:
            self.train(training)

    @abstractmethod
    def draw(
        self, guidance: Guidance, options: SamplingOptions, seeds: Int[Tensor, " b"], known: Known
    ) -> Int[Tensor, "b n"]:
        """What `sample` asks of each kind of prior: in eval mode, all on the device of its weights.

        Args:
            guidance: the condition's values, and how logits are steered.
            options: how codes are drawn.
            seeds: one for each image.
            known: codes that the others are drawn beside; they themselves are put back afterwards.
        """
