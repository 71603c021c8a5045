"""Laws of exports."""

import ast
import tempfile
from pathlib import Path
from typing import Any

from genstack.checkpoints.exporting import write
from genstack.checkpoints.exports.export import Export
from genstack.compressor import Autoencoder, Convolutional
from genstack.compressor.quantizers import VectorQuantizer
from genstack.conditions import ClassLabels
from genstack.data.images import Preprocessing
from genstack.errors import UserError
from genstack.layout import CodeLayout
from genstack.model import Model
from genstack.prior import Autoregressive
from genstack.transformer import Backbone

CLASSES = ("rose", "tulip")


def make(part: type[Export], **given: Any) -> Export:
    """Build the export."""
    return part(**given)


def _models() -> list[Model]:
    """A compressor, and one with a prior, with random weights, for images of 16 x 24."""
    network = Convolutional(16, 32, (1, 2), 1, (1,))
    compressor = Autoencoder(3, network, VectorQuantizer(64, 8)).eval().requires_grad_(False)
    layout = CodeLayout((16, 24), 64, ((8, 12),))
    prior = Autoregressive(layout, ClassLabels(CLASSES), Backbone(16, 1, 2))
    alone = Model(compressor, Preprocessing(3, 16, 24), CLASSES)
    return [alone, Model(compressor, alone.preprocessing, CLASSES, prior.eval().requires_grad_(False))]


def name_and_summary_exist(export: Export) -> None:
    """`name` is one word for the command line, and `what` one line for people."""
    assert export.name and not {" ", "/"} & {*export.name}, export.name
    assert export.what and "\n" not in export.what


def files_appear_whole_or_with_one_line_why_not(export: Export) -> None:
    """Some model is written, with a card and unchanged; others are a UserError, and leave no file."""
    written = 0
    for model in _models():
        with tempfile.TemporaryDirectory() as folder:
            place, before = Path(folder) / "out", model.fingerprint
            try:
                write(model, export, place)
            except UserError as error:
                assert "\n" not in str(error) and not list(Path(folder).iterdir())
                continue
            written += 1
            assert Model(model.compressor, model.preprocessing, prior=model.prior).fingerprint == before
            assert {path.name for path in place.iterdir()} > {"README.md", "model.json"}
    assert written


def example_is_python(export: Export) -> None:
    """The lines for the card are Python."""
    for model in _models():
        try:
            ast.parse(export.use(model, "out", 1))
        except UserError:
            continue
