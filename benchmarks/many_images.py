"""Time and memory to name, split and shuffle very many images; prints a table.

    python benchmarks/many_images.py [IMAGES]

Names are made up, `shards/000123.tar/000456`. "from names" hashes each, as folders, lists and tables do;
"from stored hashes" reads those beside the index of a shard. A folder sorts its names first, a list has a
path, a label and a caption of some words in each row. Memory is what remains, and the growth of the process's
peak (Linux); each line has its own process.
"""

import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch

from genstack.data.permutation import Permutation
from genstack.data.sources.manifest import Row, Rows
from genstack.data.split import BLOCK, hash_keys, split
from genstack.data.text import Names, natural_key
from genstack.training.estimate import resident_peak

WORKS = (
    "names of a folder",
    "rows of a list",
    "split from names",
    "split from stored hashes",
    "order, kept",
    "order, computed",
)
BATCH, BATCHES = 256, 1000


def names(count: int) -> Iterator[str]:
    """Keys of samples in shards of 10,000."""
    return (f"shards/{number // 10_000:06d}.tar/{number % 10_000:06d}" for number in range(count))


def rows(count: int) -> Iterator[Row]:
    """Rows of a list, with some letters each."""
    kinds = ("circle", "square", "star")
    return (
        Row(number, name, kinds[number % 3], f"a red {kinds[number % 3]} left of a blue one")
        for number, name in enumerate(names(count))
    )


def places(count: int) -> Iterator[np.ndarray]:
    """Hashes as an index gives them."""
    random = np.random.default_rng(0)
    return (random.random(min(BLOCK, count - first)) for first in range(0, count, BLOCK))


def measure(work: str, count: int) -> None:
    """One line of the table."""
    before, begun = resident_peak(), time.process_time()
    if work == "names of a folder":
        stays = Names(sorted(names(count), key=natural_key)).nbytes
    elif work == "rows of a list":
        stays = Rows(rows(count)).nbytes
    elif work.startswith("split"):
        sides = split(hash_keys(names(count)) if work == "split from names" else places(count), 0.05)
        stays = sides.training.before.nbytes + sides.validation.numbers.nbytes  # type: ignore[attr-defined]
    elif work == "order, kept":
        stays = torch.randperm(count).nbytes
    else:
        order, stays = Permutation(count, 0), 0
        for batch in range(BATCHES):
            order[batch * BATCH : (batch + 1) * BATCH]
    seconds = time.process_time() - begun
    each = seconds / (BATCH * BATCHES if work == "order, computed" else count) * 1e6
    growth = resident_peak() - before
    print(f"| {work} | {seconds:.1f} | {each:.2f} | {stays / count:.2f} | {growth / 1e6:.0f} |", flush=True)


def main() -> None:
    """A line for each work."""
    if len(sys.argv) > 2:
        measure(sys.argv[2], int(sys.argv[1]))
        return
    count = sys.argv[1] if len(sys.argv) > 1 else str(10**7)
    print(f"{count} images\n\n| | s | us an image | bytes an image that stay | growth, MB |")
    print("|---|---|---|---|---|")
    for work in WORKS:
        subprocess.run([sys.executable, __file__, count, work], check=True, cwd=Path(__file__).parents[1])


if __name__ == "__main__":
    main()
