"""Interface of priors: distributions over codes or latents, to train, to evaluate and to sample from."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping
from typing import Any, ClassVar, Literal, final

import torch
from jaxtyping import Float, Int, Shaped
from torch import Tensor, nn

from genstack.compressor.compressor import Compressor
from genstack.conditions.condition import Condition
from genstack.errors import UserError
from genstack.layout import Layout
from genstack.prior.guidance import Guidance
from genstack.prior.known import Known
from genstack.prior.options import PRESETS, SamplingOptions
from genstack.transformer.packed_linear import pack_weights
from genstack.transformer.weight_cast import cast_weights


class Prior(nn.Module, ABC):
    """A distribution over codes (`CodePrior`) or latents (`LatentPrior`), of a layout and a condition.

    Condition values are the output of `condition.encode`.
    """

    layout: Layout
    condition: Condition
    #: Kind of layout that the prior takes, and the way out for others.
    layouts: ClassVar[type[Layout]]
    remedy: ClassVar[str]
    #: Kind of `nats`: "exact", or the name of the bound or estimate.
    likelihood: str = "exact"
    #: Known values that affect a sampled one: all, or only those before it in the order of sampling.
    context: ClassVar[Literal["all", "earlier"]] = "earlier"
    #: Sampling options that do not apply.
    unsupported: ClassVar[tuple[str, ...]] = ()
    #: Built-in presets of sampling options.
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = PRESETS
    #: Schedules of the temperature over sampling that it supports.
    temperature_schedules: ClassVar[tuple[str, ...]] = ("constant",)
    #: True if each pass over an image trains the same predictions, which a network memorizes; a null
    #: `Backbone.dropout` then grows from pass to pass. Random masks, orders, noise or times prevent this.
    repetitive: ClassVar[bool] = False
    #: Sampling steps if `SamplingOptions.steps` is 0; None if their number is fixed.
    steps: int | None = None
    #: Name of the setting that requires images instead of an archive of codes; "" for none.
    needs_images: str = ""

    def __new__(cls, layout: Layout | None = None, *_: Any, **__: Any) -> Any:
        """Reject a layout of the wrong kind before the constructor runs; a copy is made without a layout.

        Raises:
            UserError: the layout is of codes and the prior of latents, or the other way round.
        """
        if layout is not None and not isinstance(layout, cls.layouts):
            raise UserError(f"{cls.__name__} cannot model {layout.representation}; {cls.remedy}")
        return super().__new__(cls)

    @property
    def sampling_order(self) -> Int[Tensor, " n"] | None:
        """Indices of values in the order of sampling; None for the order of the flat sequence."""
        return None

    def attach(self, compressor: Compressor) -> None:
        """Keep the parts of the compressor that the prior needs; most priors need only the layout.

        Called once, before the prior is used. The compressor stays frozen and is not part of the prior's
        weights; it is saved beside the prior.

        Raises:
            UserError: the compressor lacks what the prior needs.
        """

    def fit(self, compressor: Compressor, posteriors: Iterable[Tensor]) -> None:
        """Measure what the prior needs of the training data, once, before training; most need nothing.

        Args:
            compressor: the compressor.
            posteriors: batches of encoded training images of this process, from `Compressor.posterior`.
        """

    def before_step(self, progress: float) -> None:
        """Update whatever is scheduled over training; called before each training step.

        Args:
            progress: share of the optimizer steps that are done, at least 0 and below 1.
        """

    def encode(self, compressor: Compressor, images: Float[Tensor, "b c H W"]) -> Shaped[Tensor, "b ..."]:
        """Encode images for `read`, by `Compressor.posterior` unless training needs more."""
        return compressor.posterior(images)

    @abstractmethod
    def read(self, posterior: Tensor) -> Shaped[Tensor, "b ..."]:
        """Codes or latents to model, from `encode` or an archive."""

    @abstractmethod
    def loss(self, values: Shaped[Tensor, "b ..."], condition: Tensor) -> Float[Tensor, ""]:
        """Training objective."""

    @abstractmethod
    def nats(self, values: Shaped[Tensor, "b ..."], condition: Tensor) -> Float[Tensor, " b"]:
        """Negative log-likelihood of each image in nats, summed over its codes or latents; see `likelihood`.

        Call it in eval mode.
        """

    @final
    def check(self, options: SamplingOptions) -> None:
        """Check that this prior supports sampling options.

        Raises:
            UserError: guidance other than 1, but the prior was trained without condition dropout.
            UserError: a schedule of the temperature that the prior does not have.
            UserError: a number of steps, but the prior has a fixed one.
            UserError: an option that applies to other priors.
        """
        if options.guidance != 1 and self.condition.dropout == 0:
            raise UserError(
                f"guidance {options.guidance} needs a prior trained with condition dropout; use guidance 1, "
                f"or train with a condition whose `dropout` is above 0"
            )
        if options.temperature_schedule not in self.temperature_schedules:
            raise UserError(
                f"{type(self).__name__} supports only temperature_schedule "
                f"{' or '.join(self.temperature_schedules)}, got {options.temperature_schedule}"
            )
        if options.steps and self.steps is None:
            raise UserError(
                f"the number of steps of {type(self).__name__} is fixed; leave out steps {options.steps}"
            )
        for name in self.unsupported:
            if (value := getattr(options, name)) != getattr(SamplingOptions(), name):
                raise UserError(f"{name} does not apply to {type(self).__name__}; leave out {name} {value}")

    @final
    def sample(
        self,
        condition: Tensor,
        options: SamplingOptions,
        seeds: Int[Tensor, " b"],
        known: Known | None = None,
        report: Callable[[float], None] = lambda progress: None,
    ) -> Shaped[Tensor, "b ..."]:
        """Sample each row of `condition`; a row depends on its own condition, seed and known values.

        Args:
            condition: values of the condition.
            options: sampling options.
            seeds: one per image.
            known: codes or latents that are kept; None for none.
            report: called with the progress from 0 to 1; an error that it raises ends sampling.

        Raises:
            UserError: the prior does not support these options: `check`.
        """
        self.check(options)
        device = next(self.parameters()).device
        known = (known or Known.nothing(self.layout, len(seeds))).to(device)
        training = self.training
        self.eval()
        try:
            with torch.inference_mode(), cast_weights(self, device), pack_weights(self, device):
                guidance = Guidance(self.condition, condition.to(device), options, report)
                values = self.sample_values(guidance, options, seeds, known)
                values = torch.where(known.mask, known.values, values)
            return values.clone()  # outside of inference mode, so that it can be used in training
        finally:
            self.train(training)

    @abstractmethod
    def sample_values(
        self, guidance: Guidance, options: SamplingOptions, seeds: Int[Tensor, " b"], known: Known
    ) -> Shaped[Tensor, "b ..."]:
        """Sample in eval mode, on the device of the weights; called by `sample`.

        Args:
            guidance: the condition's values, and guidance of predictions.
            options: sampling options.
            seeds: one per image.
            known: values that are given; `sample` restores them in the result.
        """
