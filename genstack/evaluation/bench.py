"""What an evaluation is done with: networks to look through, processes that look, a folder for pictures."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from genstack.atomic import replacing
from genstack.data.sheet import sheet
from genstack.evaluation.card import Card, machine
from genstack.evaluation.extractor import Extractor
from genstack.evaluation.process_group import Columns, ProcessGroup
from genstack.evaluation.reference import Reference
from genstack.losses.perceptual import LPIPS


@dataclass(frozen=True)
class Bench:
    """The same for all that one evaluation measures.

    Args:
        extractors: networks that sets of images are compared in.
        perceptual: networks of LPIPS, by name.
        refused: names of numbers that there cannot be here, and why.
        together: the processes that share the looking.
        batch_size: images looked at, and drawn, at a time.
        device: where the networks are.
        folder: for the pictures.
        command: what was asked for, in plain values.
    """

    extractors: Sequence[Extractor]
    perceptual: Mapping[str, LPIPS]
    refused: Mapping[str, str]
    together: ProcessGroup
    batch_size: int
    device: str
    folder: Path
    command: Mapping[str, Any] = field(default_factory=dict)

    def look(self, count: int, look: Callable[[Sequence[int]], Columns]) -> Columns:
        """What `look` finds of each of `count` images, in their order."""
        return self.together.columns(count, self.batch_size, look)

    def card(self, kind: str, real: Reference, fake: Mapping[str, Any]) -> Card:
        """A card without numbers yet, but with everything that changes one."""
        protocol = {
            "command": dict(self.command),
            "real": real.told(),
            "fake": dict(fake),
            "extractors": {extractor.kernel: extractor.told for extractor in self.extractors},
            "networks": "float32",
            "device": self.device,
            "processes": self.together.count,
            **machine(),
        }
        return Card(kind, protocol, refused=dict(self.refused))

    def save_pairs(
        self, name: str, left: Float[Tensor, "b c H W"], right: Float[Tensor, "b c H W"], title: str
    ) -> None:
        """Pairs of images as one picture."""
        pairs = torch.stack(list(chain(*zip(left, right, strict=True))))
        with replacing(self.folder / f"{name}.png") as path:
            sheet(pairs, 8, title=title).save(path, format="PNG")
