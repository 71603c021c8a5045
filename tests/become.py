"""Become the process of a Python script in a process that exists; see the fixture `start`."""

import os
import runpy
import sys
from collections.abc import Mapping, Sequence

import torch


def main(words: Sequence[str], folder: str, environment: Mapping[str, str], out: str) -> None:
    """Run a script in a process group of its own.

    Args:
        words: path of the script, and its arguments.
        folder: working folder.
        environment: all environment variables.
        out: path for its output and its errors, without the endings `.out` and `.err`.
    """
    os.setsid()
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(folder)
    torch.set_num_threads(int(environment["OMP_NUM_THREADS"]))  # torch itself takes no more than cores
    for number, name in ((1, "out"), (2, "err")):
        os.dup2(os.open(f"{out}.{name}", os.O_WRONLY | os.O_CREAT | os.O_TRUNC), number)
    sys.argv = [*words]
    runpy.run_path(words[0], run_name="__main__")


if __name__ == "__main__":
    main(**globals()["given"])
