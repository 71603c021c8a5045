"""Samples held against the images they were learned from: do they show their class, and are they copies?"""

import warnings

import torch
from einops import rearrange
from jaxtyping import Bool, Float, Int
from sklearn.neighbors import KNeighborsClassifier
from torch import Tensor
from torch.nn.functional import adaptive_avg_pool2d

ROWS = 256  # images whose distances are in memory at a time


class Neighbours:
    """Training images by nearest neighbours, in pixels at a small size.

    Args:
        images: training images, in [-1, 1].
        labels: their classes.
        side: side of the square that images are averaged down to before they are compared.
        neighbours: how many vote on a class.
    """

    def __init__(
        self, images: Float[Tensor, "n c H W"], labels: Int[Tensor, " n"], side: int = 8, neighbours: int = 3
    ):
        self.side = side
        self.known = self.features(images)
        with warnings.catch_warnings():  # many classes are no regression
            warnings.filterwarnings("ignore", message="The number of unique classes is greater than 50%")
            self.classifier = KNeighborsClassifier(neighbours).fit(self.known.numpy(), labels.numpy())

    def features(self, images: Float[Tensor, "b c H W"]) -> Float[Tensor, "b d"]:
        """What is compared: the pixels of the small image."""
        return rearrange(adaptive_avg_pool2d(images, self.side), "b c h w -> b (c h w)")

    def agrees(self, images: Float[Tensor, "b c H W"], labels: Int[Tensor, " b"]) -> Bool[Tensor, " b"]:
        """Whether a k-nearest-neighbour vote reads the given class in each image."""
        return torch.from_numpy(self.classifier.predict(self.features(images).numpy())) == labels

    def agreement(self, images: Float[Tensor, "b c H W"], labels: Int[Tensor, " b"]) -> float:
        """Share of images in which a k-nearest-neighbour vote reads the given class."""
        return float(self.agrees(images, labels).float().mean())

    def nearest(self, images: Float[Tensor, "b c H W"]) -> tuple[Float[Tensor, " b"], Int[Tensor, " b"]]:
        """Distance to the nearest training image, and its number."""
        exact = "donot_use_mm_for_euclid_dist"  # by matrix products a copy would not be at distance 0
        found = [
            torch.cdist(rows, self.known, compute_mode=exact).min(dim=1)
            for rows in self.features(images).split(ROWS)
        ]
        return torch.cat([each.values for each in found]), torch.cat([each.indices for each in found])

    def near_copies(self, images: Float[Tensor, "b c H W"], held_out: Float[Tensor, "n c H W"]) -> float:
        """Share of images nearer to a training image than 95 % of held-out images are.

        About 0.05 for images as new as the held-out ones; near 1 for memorised ones.
        """
        limit = torch.quantile(self.nearest(held_out)[0], 0.05)
        return float((self.nearest(images)[0] < limit).float().mean())
