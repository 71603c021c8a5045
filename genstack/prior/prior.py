"""Interface of priors: distributions over codes, to train, to evaluate and to sample from."""

from abc import ABC, abstractmethod
from typing import ClassVar, Literal, final

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from genstack.compressor.compressor import Compressor
from genstack.conditions.condition import Condition
from genstack.errors import UserError
from genstack.layout import CodeLayout
from genstack.prior.guidance import Guidance
from genstack.prior.known import Known
from genstack.prior.options import SamplingOptions
from genstack.transformer.weight_cast import cast_weights


class Prior(nn.Module, ABC):
    """A distribution over codes, built from the layout of the codes and a condition.

    Codes are int64 in [0, layout.codebook_size), `b n` with n = layout.length. Condition values are the
    output of `condition.encode`.
    """

    layout: CodeLayout
    condition: Condition
    #: What `nats` is: "exact", or the name of the bound.
    likelihood: ClassVar[str] = "exact"
    #: Known codes that affect a sampled one: all, or only those before it in the flat sequence.
    context: ClassVar[Literal["all", "earlier"]] = "earlier"
    #: Sampling steps if `SamplingOptions.steps` is 0; None if their number is fixed.
    steps: int | None = None

    def attach(self, compressor: Compressor) -> None:
        """Take what the prior needs of the compressor beyond the layout; most priors need nothing.

        Called once, before the prior is used. The compressor stays frozen and is not part of the prior's
        weights; it is saved beside the prior.

        Raises:
            UserError: the compressor lacks what the prior needs.
        """

    def before_step(self, progress: float) -> None:
        """Update whatever is scheduled over training; called before each training step.

        Args:
            progress: share of the optimizer steps that are done, at least 0 and below 1.
        """

    @abstractmethod
    def loss(self, codes: Int[Tensor, "b n"], condition: Tensor) -> Float[Tensor, ""]:
        """Training objective, in nats per code if it is a likelihood."""

    @abstractmethod
    def nats(self, codes: Int[Tensor, "b n"], condition: Tensor) -> Float[Tensor, " b"]:
        """Negative log-likelihood of each image in nats, summed over its codes; see `likelihood`.

        Call it in eval mode.
        """

    @final
    def check(self, options: SamplingOptions) -> None:
        """Check that this prior supports sampling options.

        Raises:
            UserError: guidance other than 1, but the prior was trained without condition dropout.
            UserError: a number of steps, but the prior has a fixed one.
        """
        if options.guidance != 1 and self.condition.dropout == 0:
            raise UserError(
                f"guidance {options.guidance} needs a prior trained with condition dropout; use guidance 1, "
                f"or train with a condition whose `dropout` is above 0"
            )
        if options.steps and self.steps is None:
            raise UserError(
                f"{type(self).__name__} samples one code or grid per step; leave out steps {options.steps}"
            )

    @final
    def sample(
        self,
        condition: Tensor,
        options: SamplingOptions,
        seeds: Int[Tensor, " b"],
        known: Known | None = None,
    ) -> Int[Tensor, "b n"]:
        """Sample codes for each row of `condition`; a row depends on its own condition, seed and known codes.

        Args:
            condition: values of the condition.
            options: sampling options.
            seeds: one per image.
            known: codes that are kept; None for none.

        Raises:
            UserError: the prior does not support these options: `check`.
        """
        self.check(options)
        device = next(self.parameters()).device
        known = known or Known.nothing(len(seeds), self.layout.length)
        training = self.training
        self.eval()
        try:
            with torch.inference_mode(), cast_weights(self, device):
                guidance = Guidance(self.condition, condition.to(device), options)
                codes = self.sample_codes(guidance, options, seeds, known.to(device))
                codes = torch.where(known.mask.to(device), known.codes.to(device), codes)
            return codes.clone()  # outside of inference mode, so that codes can be used in training
        finally:
            self.train(training)

    @abstractmethod
    def sample_codes(
        self, guidance: Guidance, options: SamplingOptions, seeds: Int[Tensor, " b"], known: Known
    ) -> Int[Tensor, "b n"]:
        """Sample codes, in eval mode, on the device of the weights; called by `sample`.

        Args:
            guidance: the condition's values, and guidance of logits.
            options: sampling options.
            seeds: one per image.
            known: codes that are given; `sample` restores them in the result.
        """
