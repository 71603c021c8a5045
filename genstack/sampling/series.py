"""A series of images drawn from a model: what each one is follows from its number and the seed."""

import hashlib
from collections.abc import Iterator, Mapping, Sequence
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
from genstack.prior.editing import ignores_known, known_codes
from genstack.sampling.canvas import Canvas
from genstack.sampling.compiled import compiled


def filled(indices: Sequence[int], size: int) -> list[int]:
    """Numbers of images, with copies of the last: compiled networks are made for one size of batch."""
    return [*indices, *[indices[-1]] * (size - len(indices))]


@dataclass(frozen=True)
class Series:
    """Images by number; image i is the same whatever is drawn beside it.

    Args:
        model: with a prior, or a compressor without codes.
        inputs: what steers every image, from `model.condition.choose`; there are as many images.
        options: how codes are drawn.
        seed: of the series.
        canvas: the picture of which a part is drawn; None for images that are new altogether.
        size: height and width; None for those of the training.
        overlap: share of a window that lies over the one beside it, where the size needs several.
        precision: of the networks.
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
        self.model.check(self.options)

    def __len__(self) -> int:
        return len(self.inputs)

    def images(self, indices: Sequence[int]) -> Float[Tensor, "b c H W"]:
        """The images with these numbers, in [-1, 1]."""
        with self._rounding():
            inputs, canvas = self.inputs[indices], self.canvas
            if canvas is None:
                return self.model.sample(inputs, self.options, self.seed, indices, self.size, self.overlap)
            images = repeat(canvas.image, "c h w -> b c h w", b=len(indices))
            return self.model.edit(
                images, canvas.hole, inputs, self.options, self.seed, indices, canvas.grow, self.overlap
            ).float()

    @contextmanager
    def compiled(self) -> Iterator[None]:
        """Images are drawn by compiled networks for as long as this lasts: `genstack.sampling.compiled`."""
        _ = self.model.fingerprint  # of the weights as they are, before they are rounded
        with ExitStack() as stack:
            with self._rounding():
                stack.enter_context(compiled(self.model))
            yield

    def _rounding(self) -> torch.autocast:
        return torch.autocast(self.model.device.type, torch.bfloat16, self.precision == "bf16")

    @cached_property
    def told(self) -> Sequence[Mapping[str, str]]:
        """What steers every image, in words."""
        return self.model.condition.modality.describe(self.inputs)

    @cached_property
    def pictured(self) -> Sequence[Mapping[str, str]]:
        """A hash of every condition image, since a file of the same name may come to show something else."""
        if self.inputs.images is None:
            return [{}] * len(self)
        values = (image.cpu().contiguous().numpy().tobytes() for image in self.inputs.images)
        found = [{"condition_image_hash": hashlib.sha256(each).hexdigest()[:16]} for each in values]
        turns = self.inputs.image_indices
        return found if turns is None else [found[turn] for turn in turns.tolist()]

    def settings(self, index: int) -> dict[str, Any]:
        """All that an image follows from, in plain values."""
        found: dict[str, Any] = {
            "seed": self.seed,
            "index": index,
            **self.told[index],
            **self.pictured[index],
            **asdict(self.options),
        }
        if self.precision != "fp32":
            found["precision"] = self.precision
        if self.size is not None:
            found |= {"size": list(self.size), "overlap": self.overlap}
        if self.canvas is not None:
            grow = list(self.model.reach) if self.canvas.grow is None else self.canvas.grow
            found |= {**self.canvas.told, "grow": grow}
        return found | {"model": self.model.fingerprint}

    @property
    def preprocessing(self) -> Preprocessing:
        """How files of these images are read and written."""
        seen = self.model.preprocessing
        height, width = self.size or (seen.height, seen.width)
        return replace(seen, height=height, width=width)

    @property
    def blind(self) -> bool:
        """Whether the prior cannot see all that is kept of the canvas."""
        if self.canvas is None or self.model.prior is None:
            return False
        images = repeat(self.canvas.image, "c h w -> 1 c h w").to(self.model.device)
        grids = self.model.compressor.layout(*self.canvas.hole.shape).grids
        steps = self.model.reach if self.canvas.grow is None else (self.canvas.grow,) * len(grids)
        return ignores_known(
            self.model.prior, known_codes(self.model.compressor, images, self.canvas.hole, steps)
        )
