"""Call a function of a test's file with a rank, and save what it returns; see `in_processes`."""

import importlib.util
import sys

import torch


def main(path: str, name: str, rank: str, out: str) -> None:
    """Import the file at `path`, call its function `name`, and save the result at `out`."""
    torch.set_num_threads(1)
    spec = importlib.util.spec_from_file_location("called", path)
    assert spec and spec.loader
    module = sys.modules["called"] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    torch.save(getattr(module, name)(int(rank)), out)


if __name__ == "__main__":
    main(*sys.argv[1:])
