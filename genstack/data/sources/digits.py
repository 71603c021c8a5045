"""Handwritten digits, 1,797 of 8 x 8 pixels (scikit-learn's load_digits; Alpaydin and Kaynak 1998)."""

import numpy as np
from jaxtyping import Float
from PIL import Image
from torch import Tensor

from genstack.data.images import Preprocessing
from genstack.data.source import PictureInfo, Source


class DigitsSource(Source):
    """The built-in `digits`: grey, ten classes, part of scikit-learn."""

    class_names = tuple("0123456789")

    def __init__(self, name: str):
        from sklearn.datasets import load_digits  # importing it takes a second

        digits = load_digits()
        self.values = np.round(digits.images / 16 * 255).astype(np.uint8)
        self.labels = digits.target

    @classmethod
    def names(cls) -> tuple[str, ...]:
        return ("digits",)

    @classmethod
    def claims(cls, name: str) -> bool:
        return name == "digits"

    def __len__(self) -> int:
        return len(self.values)

    def key(self, number: int) -> str:
        return f"digits/{number}"

    def label(self, number: int) -> int:
        return int(self.labels[number])

    def info(self, number: int) -> PictureInfo:
        return PictureInfo(8, 8, "L")

    def image(self, number: int, preprocessing: Preprocessing) -> Float[Tensor, "c h w"]:
        return preprocessing.pixels(Image.fromarray(self.values[number]))
