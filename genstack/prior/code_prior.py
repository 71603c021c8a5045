"""Priors over codes: int64 in [0, codebook_size), in a flat sequence."""

from abc import abstractmethod
from typing import final

from jaxtyping import Float, Int
from torch import Tensor

from genstack.layout import CodeLayout
from genstack.prior.guidance import Guidance
from genstack.prior.known import Known
from genstack.prior.options import SamplingOptions
from genstack.prior.prior import Prior


class CodePrior(Prior):
    """A distribution over codes `b n`, with n = layout.length."""

    layout: CodeLayout
    layouts = CodeLayout
    remedy = (
        "use the prior FlowMatching (--config flow), or a compressor with a quantizer such as VectorQuantizer"
    )
    unsupported = ("solver",)

    @final
    def read(self, posterior: Int[Tensor, "b *pair n"]) -> Int[Tensor, "b *pair n"]:
        """The codes, as they are."""
        return posterior

    @abstractmethod
    def loss(self, codes: Int[Tensor, "b n"], condition: Tensor) -> Float[Tensor, ""]:
        """Training objective, in nats per code if it is a likelihood."""

    @abstractmethod
    def nats(self, codes: Int[Tensor, "b n"], condition: Tensor) -> Float[Tensor, " b"]:
        """Negative log-likelihood of each image in nats, summed over its codes; see `likelihood`."""

    @final
    def sample_values(
        self, guidance: Guidance, options: SamplingOptions, seeds: Int[Tensor, " b"], known: Known
    ) -> Int[Tensor, "b n"]:
        return self.sample_codes(guidance, options, seeds, known)

    @abstractmethod
    def sample_codes(
        self, guidance: Guidance, options: SamplingOptions, seeds: Int[Tensor, " b"], known: Known
    ) -> Int[Tensor, "b n"]:
        """Sample codes, in eval mode, on the device of the weights; see `sample_values`."""
