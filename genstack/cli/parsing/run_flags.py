"""Flags of a training beside its settings."""

from dataclasses import dataclass

from genstack.cli.parsing.paths import Place


@dataclass(frozen=True)
class CompressorRun:
    """Flags of a compressor's training.

    Args:
        init: run or published file whose weights the training starts from.
        name: name of the run; its folder is RUNS/NAME.
        runs: folder of all runs.
        dry_run: estimate memory and time as `genstack plan` does, and exit.
    """

    init: Place | None = None
    name: str = "compressor"
    runs: Place = "runs"
    dry_run: bool = False


@dataclass(frozen=True)
class PriorRun:
    """Flags of a prior's training.

    Args:
        compressor: run or published file of the compressor.
        init: run or published file whose prior's weights the training starts from.
        name: name of the run; its folder is RUNS/NAME.
        runs: folder of all runs.
        dry_run: estimate memory and time as `genstack plan` does, and exit.
    """

    compressor: Place
    init: Place | None = None
    name: str = "prior"
    runs: Place = "runs"
    dry_run: bool = False
