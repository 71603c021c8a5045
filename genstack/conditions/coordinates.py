"""Coordinates of an image in a larger picture, as in taming transformers' models of scenes.

Esser et al. 2021 (arXiv:2012.09841, section 3.3) train on crops with a map of coordinates. Here the four
edges of the crop become one token, by Fourier features (Tancik et al. 2020, arXiv:2006.10739).
"""

from dataclasses import dataclass, replace
from math import pi

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn

from genstack.conditions.condition import Condition, check_dropout
from genstack.conditions.embedding import ConditionEmbedding
from genstack.conditions.modality import Modality, cycle
from genstack.errors import UserError
from genstack.inputs import ConditionInputs, DataInfo, Prompts

EDGES = 4


@dataclass(frozen=True)
class Coordinates(Condition):
    """Edges of the crop in the whole picture, as one token.

    Args:
        frequencies: sines of each edge, each twice as fast as the one before; 6 resolve a 64th of it.
        dropout: share of training samples without coordinates; 0 makes guidance impossible.
    """

    frequencies: int = 6
    dropout: float = 0.1

    length = 1

    def __post_init__(self) -> None:
        check_dropout(self.dropout)
        if not 1 <= self.frequencies <= 16:
            raise UserError(f"frequencies must be from 1 to 16, got {self.frequencies}")

    @property
    def modality(self) -> Modality:
        return Crops(self.dropout)

    def fit(self, data: DataInfo) -> "Coordinates":
        if not data.crops_vary:
            raise UserError(
                "all training images are cropped at the same place, so there is nothing to learn from "
                "coordinates; set data.augmentation to crop: random and zoom: [1.0, 2.0]"
            )
        return self

    def encode(self, inputs: ConditionInputs) -> Float[Tensor, "b five=5"]:
        """Edges from -1 to 1, after a flag that is 1 if there are coordinates."""
        if inputs.crops is None:
            return torch.zeros(len(inputs), 1 + EDGES, device=inputs.labels.device)
        return torch.cat([torch.ones_like(inputs.crops[:, :1]), inputs.crops * 2 - 1], dim=1)

    def null(self, values: Float[Tensor, "b five=5"]) -> Float[Tensor, "b five=5"]:
        return torch.zeros_like(values)

    def embedding(self, width: int) -> ConditionEmbedding:
        return EdgeEncoder(self.frequencies, width)


class Crops(Modality):
    """Crops of a larger picture; without prompts, from anywhere."""

    kind = "coordinates"

    def __init__(self, dropout: float):
        self.dropout = dropout

    def read_prompts(self, prompts: Prompts, count: int) -> ConditionInputs:
        for top, left, bottom, right in prompts.crops:
            if not (0 <= top < bottom <= 1 and 0 <= left < right <= 1):
                raise UserError(
                    f"invalid coordinates {top:g},{left:g},{bottom:g},{right:g}; expected "
                    f"top,left,bottom,right from 0 to 1, with top < bottom and left < right"
                )
        if not prompts.crops:
            return self.unprompted(count, self.dropout)
        return replace(ConditionInputs.nothing(count), crops=torch.tensor(list(cycle(prompts.crops, count))))

    def preview(self, held_out: ConditionInputs) -> ConditionInputs:
        return ConditionInputs(torch.zeros_like(held_out.labels), crops=held_out.crops)

    def describe(self, inputs: ConditionInputs) -> list[dict[str, str]]:
        if inputs.crops is None:
            return [{}] * len(inputs)
        return [{"coordinates": ",".join(f"{edge:.4g}" for edge in crop)} for crop in inputs.crops.tolist()]


class EdgeEncoder(ConditionEmbedding):
    """Edges of crops to one token each: `b 5 -> b 1 width`."""

    def __init__(self, frequencies: int, width: int):
        super().__init__()
        rates = pi / 2 * 2.0 ** torch.arange(frequencies)  # the slowest tells one end from the other
        self.register_buffer("rates", rates, persistent=False)
        self.fc1 = nn.Linear(1 + 2 * EDGES * frequencies, width)
        self.fc2 = nn.Linear(width, width)

    def forward(self, values: Float[Tensor, "b five=5"]) -> Float[Tensor, "b 1 width"]:
        given = values[:, :1]
        angles = rearrange(values[:, 1:, None] * self.get_buffer("rates"), "b edge rate -> b (edge rate)")
        waves = torch.cat([given, angles.sin() * given, angles.cos() * given], dim=1)
        return rearrange(self.fc2(nn.functional.silu(self.fc1(waves))), "b width -> b 1 width")
