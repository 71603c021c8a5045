"""Crops of the photographs that come with scikit-image and scikit-learn: real pictures without a download."""

import numpy as np
import torch
from jaxtyping import UInt8
from PIL import Image
from skimage import data as skimage
from sklearn.datasets import load_sample_images
from torch import Tensor

LARGEST = 3.0  # pixels of a photograph that become one of a crop, along each side; 1 is the least
TRAINED = 0.72  # share of each photograph's width, from the left, that training crops are cut from
MEASURED = 0.74  # where the part of held-out crops begins


def photographs() -> list[Image.Image]:
    """An astronaut, a cat, coffee, a motorcycle, a rocket; a temple and a flower."""
    motorcycle, _, _ = skimage.stereo_motorcycle()
    ours = [skimage.astronaut(), skimage.chelsea(), skimage.coffee(), motorcycle, skimage.rocket()]
    return [Image.fromarray(np.asarray(each)) for each in [*ours, *load_sample_images().images]]


def crops(
    count: int, side: int, seed: int, held_out: bool = False
) -> UInt8[Tensor, "{count} {side} {side} 3"]:
    """Squares of many sizes, scaled to one; held-out ones are of the right of each photograph."""
    generator, pictures = np.random.default_rng([seed, held_out]), photographs()
    made = []
    for number in range(count):
        picture = pictures[number % len(pictures)]
        begin = round(MEASURED * picture.width) if held_out else 0
        end = picture.width if held_out else round(TRAINED * picture.width)
        cut = round(side * generator.uniform(1.0, min(LARGEST, (end - begin) / side, picture.height / side)))
        left, top = generator.integers(begin, end - cut + 1), generator.integers(picture.height - cut + 1)
        box = (left, top, left + cut, top + cut)
        made.append(np.asarray(picture.resize((side, side), Image.Resampling.LANCZOS, box)))
    return torch.from_numpy(np.stack(made))
