"""What can steer a prior, one file per kind."""

from genstack.prior.conditions.labels import ClassLabels
from genstack.prior.conditions.nothing import Unconditional

__all__ = ["ClassLabels", "Unconditional"]
