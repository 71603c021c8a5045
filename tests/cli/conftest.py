"""The settings of a compressor's training, and a recipe that is complete."""

from pathlib import Path

import pytest

from genstack.cli.commands import training_command
from genstack.cli.parsing.parser import Parser

CONFIG = """\
data: {source: digits}
model:
  compressor:
    class_path: genstack.compressor.Autoencoder
    init_args:
      network:
        class_path: genstack.compressor.Convolutional
        init_args: {width: 6}
      quantizer: VectorQuantizer
  ema: 99e-2
"""


@pytest.fixture(scope="session")
def parser() -> Parser:
    return Parser(training_command("compressor"))


@pytest.fixture
def config(tmp_path: Path) -> str:
    path = tmp_path / "vqgan.yaml"
    path.write_text(CONFIG)
    return str(path)
