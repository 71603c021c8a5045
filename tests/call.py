"""Call a function of a test's file with a rank, and save what it returns; see `in_processes`."""

import importlib.util
import os
import sys

import torch


def main(path: str, name: str, folder: str) -> None:
    """Import the file at `path`, call its function `name` with the rank, and save the result in a folder."""
    rank = os.environ["RANK"]
    spec = importlib.util.spec_from_file_location("called", path)
    assert spec and spec.loader
    module = sys.modules["called"] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    torch.save(getattr(module, name)(int(rank)), f"{folder}/{rank}.pt")


if __name__ == "__main__":
    main(*sys.argv[1:])
