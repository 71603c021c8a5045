"""Priors: distributions over codes or latents."""

from genstack.prior.autoregressive import Autoregressive
from genstack.prior.code_prior import CodePrior
from genstack.prior.known import Known
from genstack.prior.latent_prior import LatentPrior
from genstack.prior.logits import image_seeds
from genstack.prior.options import SamplingOptions
from genstack.prior.prior import Prior

__all__ = [
    "Autoregressive",
    "CodePrior",
    "Known",
    "LatentPrior",
    "Prior",
    "SamplingOptions",
    "image_seeds",
]
