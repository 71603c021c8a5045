"""Small parts that are found as genstack's own are, and a command line made of them."""

import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from types import ModuleType

import pytest
from torch import nn

from genstack.cli.parsing.parser import Parser
from genstack.compressor import Bottleneck, Bottlenecked, Compressor, Network


@dataclass(frozen=True)
class Plain(Network):
    """A convolution either way.

    Args:
        width: channels of the latents.
        levels: a tuple, to be written a,b.
    """

    width: int = 4
    levels: tuple[int, ...] = (1, 2)

    def __post_init__(self) -> None:
        if self.width < 1:
            raise ValueError(f"width {self.width} is too small; use 1 or more")

    def encoder(self, channels):
        return self.half(channels, self.width)

    def decoder(self, channels):
        return self.half(self.width, channels)

    def half(self, channels, width):
        half = nn.Conv2d(channels, width, 1)
        half.dim = self.width
        return half

    def grid(self, height, width):
        return height, width


class Identity(Bottleneck):
    """Nothing is lost.

    Args:
        dim: channels.
        rate: a number or nothing.
    """

    def __init__(self, dim: int = 3, rate: float | None = 0.5):
        super().__init__()
        self.dim, self.rate = dim, rate

    def forward(self, latents):
        return Bottlenecked(latents)


class Halving(Identity):
    """Half is lost."""


@dataclass(frozen=True)
class Training:
    """Training of a compressor.

    Args:
        compressor: what to train.
        extra: bottlenecks beside it.
        learning_rate: of the optimizer.
        deep: a switch.
    """

    compressor: Callable[[int], Compressor]
    extra: tuple[Bottleneck, ...] = ()
    network: Network | None = Plain(width=7)
    learning_rate: float = 1e-4
    deep: bool = False


CONFIG = """\
model:
  compressor:
    class_path: genstack.compressor.Autoencoder
    init_args:
      network:
        class_path: genstack.standins.Plain
        init_args: {width: 6}
      quantizer: Identity
  learning_rate: 1e-3
"""


@pytest.fixture
def standins(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The classes above, under the roof of genstack."""
    module = ModuleType("genstack.standins")
    for kind in (Plain, Identity, Halving, Training):
        monkeypatch.setattr(kind, "__module__", module.__name__)
        setattr(module, kind.__name__, kind)
    monkeypatch.setitem(sys.modules, module.__name__, module)
    yield


@pytest.fixture
def parser(standins: None) -> Parser:
    parser = Parser("genstack train compressor", "Train a compressor.", files=True)
    parser.add_class(Training, "model")
    parser.add_option("name", str, "name of the run", "run")
    parser.add_option("seed", int | None, "seed", None)
    return parser


@pytest.fixture
def config(tmp_path) -> str:
    """A file of settings that is complete."""
    path = tmp_path / "vqgan.yaml"
    path.write_text(CONFIG)
    return str(path)
