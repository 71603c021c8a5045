"""Nearest training images of samples: votes on their classes, and copies of training images."""

import warnings

import torch
from einops import rearrange
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.functional import adaptive_avg_pool2d

SIDE = 8  # pixels of a downsampled image
ROWS = 256  # images whose distances are in memory at a time
COPY_QUANTILE = 0.05  # share of held-out images that count as near-copies by definition


def downsample(images: Float[Tensor, "b c H W"], side: int = SIDE) -> Float[Tensor, "b d"]:
    """Average images down to a square, where copies of small images are neighbours."""
    return rearrange(adaptive_avg_pool2d(images, side), "b c h w -> b (c h w)")


def vote(
    vectors: Float[Tensor, "b d"],
    training: Float[Tensor, "n d"],
    labels: Int[Tensor, " n"],
    neighbours: int = 3,
) -> Int[Tensor, " b"]:
    """Return the majority class among the nearest training images of each vector."""
    from sklearn.neighbors import KNeighborsClassifier  # takes two seconds and imports pandas

    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="The number of unique classes is greater than 50%")
        classifier = KNeighborsClassifier(neighbours).fit(training.double().numpy(), labels.numpy())
    return torch.from_numpy(classifier.predict(vectors.numpy()))


def nearest(
    vectors: Float[Tensor, "b d"], training: Float[Tensor, "n d"]
) -> tuple[Float[Tensor, " b"], Int[Tensor, " b"]]:
    """Return the distance to the nearest training image, and its index.

    Matrix products find the nearest image. Its distance comes from differences: a copy is at distance 0.
    """
    exact, training = vectors.double(), training.double()
    indices = torch.cat([torch.cdist(rows, training).argmin(dim=1) for rows in exact.split(ROWS)])
    return (exact - training[indices]).norm(dim=1).to(vectors.dtype), indices


def near_copies(
    vectors: Float[Tensor, "b d"], training: Float[Tensor, "n d"], held_out: Float[Tensor, "m d"]
) -> float:
    """Return the share of vectors that are closer to a training image than 95 % of held-out images are.

    It is about 0.05 for images as new as the held-out ones, and near 1 for memorised images.
    """
    threshold = torch.quantile(nearest(held_out, training)[0], COPY_QUANTILE)
    return float((nearest(vectors, training)[0] < threshold).float().mean())
