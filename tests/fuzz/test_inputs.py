"""Inputs that once made a reader crash, hang or take memory, found by `fuzz.py`: read or refused."""

import runpy
import tracemalloc
from contextlib import suppress
from pathlib import Path

import pytest

from genstack.errors import UserError

HERE = Path(__file__).parent
TARGETS = runpy.run_path(str(HERE / "targets.py"))["TARGETS"]
INPUTS = sorted(path for path in (HERE / "inputs").glob("*/*") if path.is_file())
MOST = 2**28  # bytes that an input of a few kilobytes may cost


def test_every_input_has_its_reader():
    assert INPUTS
    assert {path.parent.name for path in INPUTS} <= set(TARGETS)


@pytest.mark.slow
@pytest.mark.parametrize("name", TARGETS)
def test_initial_inputs_of_the_fuzzer_are_read_or_rejected(name, tmp_path):
    """So that the fuzzer's targets stay in step with the readers."""
    target = TARGETS[name]
    for number, content in enumerate(target.seeds()):
        folder = tmp_path / str(number)
        folder.mkdir()
        with suppress(UserError):
            target.read(content, folder)


@pytest.mark.parametrize("path", INPUTS, ids=lambda path: f"{path.parent.name}/{path.name}")
def test_past_findings_are_read_or_rejected(path, tmp_path):
    content, target = path.read_bytes(), TARGETS[path.parent.name]
    target.seeds()  # what it keeps for all inputs
    tracemalloc.start()
    try:
        target.read(content, tmp_path)
    except UserError as error:
        assert str(error).isprintable()
    finally:
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert peak < MOST
