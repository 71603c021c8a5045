"""Files, archives and built-in sets to batches of images and labels."""

from genstack.data.batch import Batch
from genstack.data.image_data import ImageData

__all__ = ["Batch", "ImageData"]
