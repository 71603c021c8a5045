"""Classes of images: a share of each for a limit, rare ones drawn more often, and those without an image."""

from collections.abc import Callable, Sequence

import numpy as np
from jaxtyping import Int64

from genstack.data.permutation import Permutation

Labels = Callable[[Sequence[int]], Int64[np.ndarray, " n"]]
BLOCK = 4096  # images looked at in one go


def share_of_each(labels: Int64[np.ndarray, " n"], limit: int) -> Int64[np.ndarray, " limit"]:
    """Choose `limit` images, the first ones of every class, as many of each as its share of the whole.

    Every class keeps at least one image if the limit is as large as the number of classes.
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
    """Indices of images in which those of rare classes come several times.

    Args:
        labels: the class of each image.
        balance: 0 leaves classes as frequent as they are, 1 makes all as frequent as the most frequent one.
    """
    _, classes, counts = np.unique(labels, return_inverse=True, return_counts=True)
    wanted = np.rint(counts * (counts.max() / counts) ** balance).astype(np.int64)
    whole, rest = np.divmod(wanted, counts)
    return np.repeat(np.arange(len(labels)), whole[classes] + (ranks(classes) < rest[classes]))


def ranks(classes: Int64[np.ndarray, " n"]) -> Int64[np.ndarray, " n"]:
    """The number of each image within its class."""
    order = np.argsort(classes, kind="stable")
    starts = np.searchsorted(classes[order], classes[order])
    found = np.empty(len(classes), np.int64)
    found[order] = np.arange(len(classes)) - starts
    return found


def find_untrained(labels: Labels, numbers: Sequence[int], classes: int) -> tuple[int, ...]:
    """Labels of the classes without an image among `numbers`; reads labels until every class was seen."""
    missing = {*range(classes)}
    order = Permutation(len(numbers), 0)
    for first in range(0, len(numbers), BLOCK):
        chosen = [numbers[int(index)] for index in order[first : first + BLOCK]]
        missing -= {*labels(chosen).tolist()}
        if not missing:
            break
    return tuple(sorted(missing))
