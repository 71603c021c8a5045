"""Classes of images: proportional limits, balance, and classes without images."""

from collections.abc import Callable, Sequence

import numpy as np
from jaxtyping import Int64

from genstack.data.permutation import Permutation

Labels = Callable[[Sequence[int]], Int64[np.ndarray, " n"]]
BLOCK = 4096  # images read at once


def share_of_each(labels: Int64[np.ndarray, " n"], limit: int) -> Int64[np.ndarray, " limit"]:
    """Choose the first images of every class, `limit` in all, in proportion to its size.

    Every class keeps at least one image if there are at most `limit` classes.
    """
    _, classes, counts = np.unique(labels, return_inverse=True, return_counts=True)
    exact = limit * counts / len(labels)
    quotas = np.maximum(exact.astype(np.int64), 1)
    least = int(limit >= len(counts))
    while quotas.sum() > limit:
        quotas[np.argmax(np.where(quotas > least, quotas - exact, -np.inf))] -= 1
    while quotas.sum() < limit:
        quotas[np.argmax(np.where(quotas < counts, exact - quotas, -np.inf))] += 1
    return np.flatnonzero(ranks(classes) < quotas[classes])


def balance_classes(labels: Int64[np.ndarray, " n"], balance: float) -> Int64[np.ndarray, " m"]:
    """Return indices of images; indices of rare classes are repeated.

    Args:
        labels: class of each image.
        balance: 0 to repeat none, 1 to make all classes as frequent as the most frequent one.
    """
    _, classes, counts = np.unique(labels, return_inverse=True, return_counts=True)
    wanted = np.rint(counts * (counts.max() / counts) ** balance).astype(np.int64)
    whole, rest = np.divmod(wanted, counts)
    return np.repeat(np.arange(len(labels)), whole[classes] + (ranks(classes) < rest[classes]))


def ranks(classes: Int64[np.ndarray, " n"]) -> Int64[np.ndarray, " n"]:
    """Number of each image within its class."""
    order = np.argsort(classes, kind="stable")
    starts = np.searchsorted(classes[order], classes[order])
    found = np.empty(len(classes), np.int64)
    found[order] = np.arange(len(classes)) - starts
    return found


def find_untrained(labels: Labels, numbers: Sequence[int], classes: int) -> tuple[int, ...]:
    """Find labels of classes without an image among `numbers`; stops reading once every class was seen."""
    missing = {*range(classes)}
    order = Permutation(len(numbers), 0)
    for first in range(0, len(numbers), BLOCK):
        chosen = [numbers[int(index)] for index in order[first : first + BLOCK]]
        missing -= {*labels(chosen).tolist()}
        if not missing:
            break
    return tuple(sorted(missing))
