"""Data: sources of images, and their batches for training and validation."""

from genstack.data.batch import Batch
from genstack.data.image_data import ImageData

__all__ = ["Batch", "ImageData"]
