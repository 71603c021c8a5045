"""Where an image lies in a larger picture, as in taming transformers' models of scenes.

Esser et al. 2021 (arXiv:2012.09841, section 3.3) train on crops and steer by a map of coordinates; here the
four edges of the crop become one token, by sines of growing frequency (Tancik et al. 2020, arXiv:2006.10739).
"""

from dataclasses import dataclass, replace
from math import pi

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn

from genstack.conditions.condition import Condition, check_dropout, in_turn, only
from genstack.conditions.embedding import ConditionEmbedding
from genstack.errors import UserError
from genstack.inputs import ConditionInputs, DataInfo, Prompts

EDGES = 4


@dataclass(frozen=True)
class Coordinates(Condition):
    """The edges of the crop that an image is, as shares of the whole picture; one token.

    Args:
        frequencies: sines of each edge, each twice as fast as the one before; 6 tell a 64th of the picture.
        dropout: share of training samples without coordinates; 0 makes guidance impossible.
    """

    frequencies: int = 6
    dropout: float = 0.1

    length = 1

    def __post_init__(self) -> None:
        check_dropout(self.dropout)
        if not 1 <= self.frequencies <= 16:
            raise UserError(f"frequencies {self.frequencies} are out of range; use from 1 to 16")

    def of(self, offer: DataInfo) -> "Coordinates":
        if not offer.crops_vary:
            raise UserError(
                "all training images are cut from the same place, so coordinates would tell nothing; let "
                "crops differ by data.augmentation with crop: random and zoom: [1.0, 2.0]"
            )
        return self

    def values(self, facts: ConditionInputs) -> Float[Tensor, "b five=5"]:
        """The edges, from -1 to 1, behind a one: there are coordinates."""
        if facts.crops is None:
            return torch.zeros(len(facts), 1 + EDGES, device=facts.labels.device)
        return torch.cat([torch.ones_like(facts.crops[:, :1]), facts.crops * 2 - 1], dim=1)

    def null(self, values: Float[Tensor, "b five=5"]) -> Float[Tensor, "b five=5"]:
        return torch.zeros_like(values)

    def embedding(self, width: int) -> ConditionEmbedding:
        return EdgeEncoder(self.frequencies, width)

    def choose(self, wishes: Prompts, count: int) -> ConditionInputs:
        """The crops asked for in turn; without any, crops from anywhere."""
        only(wishes, "coordinates", "on coordinates")
        for top, left, bottom, right in wishes.crops:
            if not (0 <= top < bottom <= 1 and 0 <= left < right <= 1):
                raise UserError(
                    f"coordinates {top:g},{left:g},{bottom:g},{right:g} are no crop; give "
                    f"top,left,bottom,right from 0 to 1, top above bottom and left before right"
                )
        if not wishes.crops:
            if self.dropout == 0:
                raise UserError(
                    "this prior was trained with coordinates for every image; say them: --coordinates 0,0,1,1"
                )
            return ConditionInputs.nothing(count)
        return replace(ConditionInputs.nothing(count), crops=torch.tensor(list(in_turn(wishes.crops, count))))

    def shown(self, held_out: ConditionInputs) -> ConditionInputs:
        return ConditionInputs(torch.zeros_like(held_out.labels), crops=held_out.crops)

    def tell(self, facts: ConditionInputs) -> list[dict[str, str]]:
        if facts.crops is None:
            return [{}] * len(facts)
        return [{"coordinates": ",".join(f"{edge:.4g}" for edge in crop)} for crop in facts.crops.tolist()]


class EdgeEncoder(ConditionEmbedding):
    """The edges of crops to one token each: `b 5 -> b 1 width`.

    Args:
        frequencies: sines and cosines of each edge.
        width: channels of a token.
    """

    def __init__(self, frequencies: int, width: int):
        super().__init__()
        rates = pi / 2 * 2.0 ** torch.arange(frequencies)  # the slowest knows one end from the other
        self.register_buffer("rates", rates, persistent=False)
        self.read = nn.Linear(1 + 2 * EDGES * frequencies, width)
        self.write = nn.Linear(width, width)

    def forward(self, values: Float[Tensor, "b five=5"]) -> Float[Tensor, "b 1 width"]:
        there = values[:, :1]
        angles = rearrange(values[:, 1:, None] * self.get_buffer("rates"), "b edge rate -> b (edge rate)")
        waves = torch.cat([there, angles.sin() * there, angles.cos() * there], dim=1)
        return rearrange(self.write(nn.functional.silu(self.read(waves))), "b width -> b 1 width")
