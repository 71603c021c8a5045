"""Samples held against the images they were learned from: do they show their class, and are they copies?"""

import warnings

import torch
from einops import rearrange
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn.functional import adaptive_avg_pool2d

SIDE = 8  # of the small images that are compared by their pixels
ROWS = 256  # images whose distances are in memory at a time


def small(images: Float[Tensor, "b c H W"], side: int = SIDE) -> Float[Tensor, "b d"]:
    """The pixels of images averaged down to a square, where copies of small images are neighbours."""
    return rearrange(adaptive_avg_pool2d(images, side), "b c h w -> b (c h w)")


class Neighbours:
    """Training images by nearest neighbours, as vectors: small pixels, or the features of a network.

    Args:
        known: a vector for each training image.
        labels: their classes.
        votes: how many neighbours vote on a class.
    """

    def __init__(self, known: Float[Tensor, "n d"], labels: Int[Tensor, " n"], votes: int = 3):
        from sklearn.neighbors import KNeighborsClassifier  # takes two seconds, and brings pandas along

        self.known = known.double()
        with warnings.catch_warnings():  # many classes are no regression
            warnings.filterwarnings("ignore", message="The number of unique classes is greater than 50%")
            self.classifier = KNeighborsClassifier(votes).fit(known.numpy(), labels.numpy())

    def read(self, vectors: Float[Tensor, "b d"]) -> Int[Tensor, " b"]:
        """The class that most of the nearest training images have."""
        return torch.from_numpy(self.classifier.predict(vectors.numpy()))

    def agrees(self, vectors: Float[Tensor, "b d"], labels: Int[Tensor, " b"]) -> Bool[Tensor, " b"]:
        """Whether the nearest training images have the given class, for each image."""
        return self.read(vectors) == labels

    def agreement(self, vectors: Float[Tensor, "b d"], labels: Int[Tensor, " b"]) -> float:
        """Share of images whose nearest training images have the given class."""
        return float(self.agrees(vectors, labels).float().mean())

    def nearest(self, vectors: Float[Tensor, "b d"]) -> tuple[Float[Tensor, " b"], Int[Tensor, " b"]]:
        """Distance to the nearest training image, and its number.

        Which is nearest is found by matrix products; how far it is, by differences: a copy is at distance 0.
        """
        numbers = torch.cat(
            [torch.cdist(rows, self.known).argmin(dim=1) for rows in vectors.double().split(ROWS)]
        )
        return (vectors.double() - self.known[numbers]).norm(dim=1).to(vectors.dtype), numbers

    def near_copies(self, vectors: Float[Tensor, "b d"], held_out: Float[Tensor, "n d"]) -> float:
        """Share of images nearer to a training image than 95 % of held-out images are.

        About 0.05 for images as new as the held-out ones; near 1 for memorised ones.
        """
        limit = torch.quantile(self.nearest(held_out)[0], 0.05)
        return float((self.nearest(vectors)[0] < limit).float().mean())
