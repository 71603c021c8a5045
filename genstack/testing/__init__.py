"""Laws that parts must keep, for parts of your own: `laws(Signs)` lists them, and each can be called.

import pytest
from genstack.testing import laws
from signs import Signs

@pytest.mark.parametrize("law", laws(Signs), ids=str)
def test_signs(law):
    law()
"""

import inspect
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any
from unittest import SkipTest

import torch

from genstack.checkpoints.exports.export import Export
from genstack.checkpoints.formats.format import Format
from genstack.compressor import Network, Quantizer
from genstack.conditions import Condition
from genstack.data.source import Source
from genstack.evaluation.extractor import Extractor
from genstack.losses.adversarial import AdversarialLoss
from genstack.losses.discriminator import Discriminator
from genstack.losses.features import Features
from genstack.losses.perceptual import Perceptual
from genstack.losses.reconstruction import ReconstructionLoss
from genstack.prior import CodePrior, LatentPrior
from genstack.testing import (
    adversarial_losses,
    conditions,
    discriminators,
    exports,
    extractors,
    features,
    formats,
    latent_priors,
    networks,
    perceptual_losses,
    priors,
    quantizers,
    reconstruction_losses,
    sources,
)

#: Modules of laws, by the contract of the parts that keep them.
LAWS: dict[type, ModuleType] = {
    Quantizer: quantizers,
    Network: networks,
    CodePrior: priors,
    LatentPrior: latent_priors,
    Condition: conditions,
    ReconstructionLoss: reconstruction_losses,
    Perceptual: perceptual_losses,
    Features: features,
    Discriminator: discriminators,
    AdversarialLoss: adversarial_losses,
    Source: sources,
    Extractor: extractors,
    Format: formats,
    Export: exports,
}


@dataclass(frozen=True)
class Law:
    """One law for one part; calling it raises an AssertionError if the part breaks it.

    Args:
        function: the law.
        make: builds what the function checks.
    """

    function: Callable[[Any], None]
    make: Callable[[], Any]

    def __call__(self) -> None:
        torch.manual_seed(0)
        self.function(self.make())

    def __str__(self) -> str:
        return self.function.__name__

    def failure(self) -> str:
        """Why the part breaks the law, in one line; empty if it keeps it.

        Raises:
            SkipTest: the law needs another argument.
        """
        try:
            self()
        except SkipTest:
            raise
        except Exception as error:  # the code of others can fail in any way
            frame = traceback.extract_tb(error.__traceback__)[-1]
            text = " ".join(str(error).split()) or str(frame.line)
            return f"{type(error).__name__}: {text[:200]} ({Path(frame.filename).name}, line {frame.lineno})"
        return ""


def laws(part: type, **arguments: Any) -> list[Law]:
    """List the laws of a part's kind.

    Args:
        part: a quantizer, network, prior, condition, loss, discriminator, source, extractor, format or
            export.
        arguments: for its constructor, where it needs some, or its defaults are large. A prior needs no
            layout and no condition. A source's `name` is the first of its `names()` if it is not given. A
            format needs a `file`, and options of `genstack import` where the file needs some.

    Raises:
        TypeError: there are no laws for parts of this kind.
    """
    module = laws_of(part)
    if module is None:
        kinds = ", ".join(kind.__name__ for kind in LAWS)
        raise TypeError(f"no laws for {part.__name__}; expected a subclass of {kinds}")
    return [Law(function, partial(module.make, part, **arguments)) for function in laws_in(module)]


def laws_of(part: type) -> ModuleType | None:
    """The module with the laws of a part's kind; None if there is none."""
    return next((module for kind, module in LAWS.items() if issubclass(part, kind)), None)


def laws_in(module: ModuleType) -> list[Callable[[Any], None]]:
    """The laws of a module: its public functions but `make`, in the order of the file."""
    return [
        member
        for name, member in vars(module).items()
        if inspect.isfunction(member)
        and member.__module__ == module.__name__
        and name[0] != "_"
        and name != "make"
    ]
