"""Storage of one view of an image in an archive: codes in the smallest type, latents in half precision."""

from abc import ABC, abstractmethod
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from genstack.errors import UserError
from genstack.layout import CodeLayout, LatentLayout, Layout


class Storage(ABC):
    """Conversion between what `Compressor.posterior` returns and the arrays of a shard."""

    #: Name of the array in a shard.
    name: ClassVar[str]
    #: Type of its numbers, and shape of one view.
    dtype: np.dtype
    shape: tuple[int, ...]

    @abstractmethod
    def pack(self, posterior: Tensor) -> np.ndarray:
        """Convert encoded views to an array."""

    @abstractmethod
    def unpack(self, array: np.ndarray) -> Tensor:
        """Convert an array to encoded views."""

    @abstractmethod
    def valid(self, array: np.ndarray) -> bool:
        """Return True if all numbers are in range."""


class CodeStorage(Storage):
    """Codes, in the smallest unsigned type that holds every code."""

    name = "codes"

    def __init__(self, layout: CodeLayout):
        self.codebook_size, self.shape = layout.codebook_size, (layout.length,)
        self.dtype = np.min_scalar_type(layout.codebook_size - 1)

    def pack(self, posterior: Tensor) -> np.ndarray:
        return posterior.cpu().numpy().astype(self.dtype)

    def unpack(self, array: np.ndarray) -> Tensor:
        return torch.from_numpy(array.astype(np.int64))

    def valid(self, array: np.ndarray) -> bool:
        return int(array.max()) < self.codebook_size


class LatentStorage(Storage):
    """Means and standard deviations of latents, in half precision."""

    name = "latents"
    dtype = np.dtype(np.float16)

    def __init__(self, layout: LatentLayout):
        self.shape = (2, *layout.shape)

    def pack(self, posterior: Tensor) -> np.ndarray:
        largest = float(posterior.abs().max())
        if not largest <= (limit := float(np.finfo(self.dtype).max)):
            raise UserError(
                f"latents must be at most {limit:.0f} to be stored in half precision, got {largest:g}; train "
                f"the compressor with more divergence_weight, or the prior on images"
            )
        return posterior.cpu().numpy().astype(self.dtype)

    def unpack(self, array: np.ndarray) -> Tensor:
        return torch.from_numpy(array.astype(np.float32))

    def valid(self, array: np.ndarray) -> bool:
        return bool(np.isfinite(array).all() and (array[:, :, 1] >= 0).all())


def storage(layout: Layout) -> Storage:
    """Choose the storage of codes or of latents."""
    if isinstance(layout, CodeLayout):
        return CodeStorage(layout)
    assert isinstance(layout, LatentLayout)
    return LatentStorage(layout)
