"""A series of samples, each determined by the seed and its index."""

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from typing import Any, Literal

import torch
from einops import repeat
from jaxtyping import Float
from torch import Tensor

from genstack.data.images import Preprocessing
from genstack.inputs import ConditionInputs
from genstack.model import Model
from genstack.prior import SamplingOptions
from genstack.prior.editing import encode_known, ignores_known
from genstack.sampling.canvas import Canvas
from genstack.sampling.compiled import compiled


def pad_batch(indices: Sequence[int], size: int) -> list[int]:
    """Pad indices to a batch size by repeating the last: each batch size is compiled separately."""
    return [*indices, *[indices[-1]] * (size - len(indices))]


@dataclass(frozen=True)
class Series:
    """Samples by index; an image does not depend on its batch.

    Args:
        model: a model with a prior, or a compressor without codes.
        inputs: inputs of the condition for every image, from `model.inputs`.
        options: sampling options.
        seed: seed of the series.
        canvas: picture to edit; None for new images.
        size: height and width; None for the training size.
        overlap: overlap of neighbouring windows, if the size needs several.
        precision: precision of the networks.
    """

    model: Model
    inputs: ConditionInputs
    options: SamplingOptions = field(default_factory=SamplingOptions)
    seed: int = 0
    canvas: Canvas | None = None
    size: tuple[int, int] | None = None
    overlap: float = 0.5
    precision: Literal["fp32", "bf16"] = "fp32"

    def __post_init__(self) -> None:
        self.model.check_options(self.options)

    def __len__(self) -> int:
        return len(self.inputs)

    def images(
        self, indices: Sequence[int], report: Callable[[float], None] = lambda progress: None
    ) -> Float[Tensor, "b c H W"]:
        """Sample the images with these indices, in [-1, 1].

        Args:
            indices: indices of the images.
            report: called with the progress from 0 to 1; an error that it raises ends sampling.
        """
        with self._autocast():
            inputs, canvas = self.inputs[indices], self.canvas
            if canvas is None:
                return self.model.sample(
                    inputs, self.options, self.seed, indices, self.size, self.overlap, report
                )
            images = repeat(canvas.image, "c h w -> b c h w", b=len(indices))
            return self.model.edit(
                images,
                canvas.mask,
                inputs,
                self.options,
                self.seed,
                indices,
                canvas.grow,
                self.overlap,
                report,
            ).float()

    @contextmanager
    def compiled(self) -> Iterator[None]:
        """Sample with compiled networks within this context: `genstack.sampling.compiled`."""
        _ = self.model.fingerprint  # hash the weights before they are cast
        with ExitStack() as stack:
            with self._autocast():
                stack.enter_context(compiled(self.model))
            yield

    def _autocast(self) -> torch.autocast:
        return torch.autocast(self.model.device.type, torch.bfloat16, self.precision == "bf16")

    @cached_property
    def descriptions(self) -> Sequence[Mapping[str, str]]:
        """Condition of every image, in words."""
        return self.model.condition.modality.describe(self.inputs)

    @cached_property
    def image_hashes(self) -> Sequence[Mapping[str, str]]:
        """Hash of every condition image, since a file may change under its name."""
        if self.inputs.images is None:
            return [{}] * len(self)
        values = (image.cpu().contiguous().numpy().tobytes() for image in self.inputs.images)
        hashes = [{"condition_image_hash": hashlib.sha256(each).hexdigest()[:16]} for each in values]
        indices = self.inputs.image_indices
        return hashes if indices is None else [hashes[index] for index in indices.tolist()]

    def settings(self, index: int) -> dict[str, Any]:
        """Everything that determines an image, as plain values."""
        settings: dict[str, Any] = {
            "seed": self.seed,
            "index": index,
            **self.descriptions[index],
            **self.image_hashes[index],
            **asdict(self.options),
        }
        if self.precision != "fp32":
            settings["precision"] = self.precision
        if self.size is not None:
            settings |= {"size": list(self.size), "overlap": self.overlap}
        if self.canvas is not None:
            grow = list(self.model.receptive_field) if self.canvas.grow is None else self.canvas.grow
            settings |= {**self.canvas.metadata, "grow": grow}
        return settings | {"model": self.model.fingerprint}

    @property
    def preprocessing(self) -> Preprocessing:
        """Conversion between files and these images."""
        preprocessing = self.model.preprocessing
        height, width = self.size or (preprocessing.height, preprocessing.width)
        return replace(preprocessing, height=height, width=width)

    @property
    def ignores_known(self) -> bool:
        """True if the prior cannot see all of the canvas outside the mask."""
        if self.canvas is None or self.model.prior is None:
            return False
        images = repeat(self.canvas.image, "c h w -> 1 c h w").to(self.model.device)
        grids = self.model.compressor.layout(*self.canvas.mask.shape).grids
        steps = self.model.receptive_field if self.canvas.grow is None else (self.canvas.grow,) * len(grids)
        return ignores_known(
            self.model.prior, encode_known(self.model.compressor, images, self.canvas.mask, steps)
        )
