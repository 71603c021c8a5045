"""Another image as the codes of a compressor of its own, before those to predict.

So taming transformers read segmentation and depth maps (Esser et al. 2021, arXiv:2012.09841, section 3.2).
"""

from dataclasses import dataclass, field, replace
from typing import Any, Literal

import torch
from einops import rearrange, repeat
from jaxtyping import Float, Int
from torch import Tensor, nn

from genstack.compressor.compressor import Compressor
from genstack.conditions.condition import Condition, check_dropout
from genstack.conditions.embedding import ConditionEmbedding
from genstack.conditions.image import chosen, luma, told
from genstack.errors import UserError
from genstack.inputs import ConditionInputs, DataInfo, Prompts
from genstack.layout import CodeLayout


@dataclass(frozen=True)
class ImageCodes(Condition):
    """Another image of the same height and width, as one token for each code of a frozen compressor.

    Which image that is, `data.condition_images` says; without it, each picture steers itself.

    Args:
        compressor: run, or published file, of the compressor that reads the condition images; the prior's run
            keeps a copy of it. One of 1 channel sees their brightness; one of more channels than a colour
            picture has sees a class for each pixel, by its grey from 0 to 255.
        table: where the vectors of its codes come from: own, or shared with the codes that are predicted
            (as in taming-transformers; with the prior Autoregressive).
        dropout: share of training samples that see no image; 0 makes guidance impossible.
        size: height and width of the images; set from the data.
        weights: hash of the compressor; set from it.
        network: the compressor itself; set from the run that `compressor` names.
    """

    compressor: str = ""
    table: Literal["own", "shared"] = "own"
    dropout: float = 0.1
    size: tuple[int, int] = (0, 0)
    weights: str = ""
    network: Any = field(default=None, compare=False, repr=False)

    def __post_init__(self) -> None:
        check_dropout(self.dropout)
        if self.network is not None and not isinstance(self.network, Compressor):
            raise UserError("network of condition images is set from their `compressor`; leave it out")

    def __deepcopy__(self, memo: Any) -> "ImageCodes":
        """Itself: copies of a prior share the frozen compressor."""
        return self

    @property
    def layout(self) -> CodeLayout:
        """Where the codes lie."""
        return self.network.layout(*self.size)

    @property
    def length(self) -> int:  # type: ignore[override]
        return self.layout.length

    def reading(self, network: Compressor, weights: str) -> "ImageCodes":
        return replace(self, network=network, weights=weights)

    def of(self, offer: DataInfo) -> "ImageCodes":
        """For images of the data's size."""
        if not all(offer.image_shape):
            raise UserError(
                "the data has no condition images: these codes were made without; encode again with "
                "--data.condition_images, or use another condition"
            )
        if self.network is None:
            raise UserError(
                "name the run of the compressor that reads the condition images: "
                "--model.condition.compressor RUN"
            )
        if not self.network.coded:
            raise UserError(
                f"the compressor of the condition images, {self.compressor}, makes no codes; name one "
                f"that does"
            )
        self.network.layout(*offer.image_shape[1:])  # which refuses sizes that it cannot read
        return replace(self, size=offer.image_shape[1:])

    def values(self, facts: ConditionInputs) -> Int[Tensor, "b n"]:
        """The codes; of no image, the number behind them."""
        device = facts.labels.device
        images = facts.image_of_each
        if images is None:
            return torch.full((len(facts), self.length), self.layout.codebook_size, device=device)
        with torch.no_grad(), torch.autocast(device.type, enabled=False):
            return self.network.encode(self.seen(images.float()))

    def seen(self, images: Float[Tensor, "b c H W"]) -> Float[Tensor, "b d H W"]:
        """Images with the channels that the compressor reads."""
        channels = self.network.channels
        if channels == images.shape[1]:
            return images
        grey = luma(images)
        if channels > 4:
            classes = ((grey[:, 0] + 1) * 127.5).round().long().clamp(max=channels - 1)
            return rearrange(nn.functional.one_hot(classes, channels), "b h w d -> b d h w").to(images)
        if channels == 1:
            return grey
        colour = images[:, :3] if images.shape[1] > 1 else repeat(grey, "b 1 h w -> b 3 h w")
        return colour if channels == 3 else torch.cat([colour, torch.ones_like(grey)], dim=1)

    def null(self, values: Int[Tensor, "b n"]) -> Int[Tensor, "b n"]:
        return torch.full_like(values, self.layout.codebook_size)

    def embedding(self, width: int) -> ConditionEmbedding:
        return CodeEmbedding(self.layout.codebook_size, self.length, width, self.table == "own")

    def choose(self, wishes: Prompts, count: int) -> ConditionInputs:
        """The images asked for in turn; without any, images of all kinds."""
        return chosen(wishes, count, self.dropout)

    def shown(self, held_out: ConditionInputs) -> ConditionInputs:
        return ConditionInputs(torch.zeros_like(held_out.labels), images=held_out.images)

    def tell(self, facts: ConditionInputs) -> list[dict[str, str]]:
        return told(facts)


class CodeEmbedding(ConditionEmbedding):
    """Codes to tokens, each with a vector of its place: `b n -> b n width`.

    Args:
        codebook_size: of the codes; the number behind them stands for none.
        length: how many codes there are.
        width: channels of a token.
        own: create a table; otherwise `share_codes` must be called first.
    """

    def __init__(self, codebook_size: int, length: int, width: int, own: bool):
        super().__init__()
        self.codebook_size = codebook_size
        self.table = nn.Embedding(codebook_size, width) if own else None
        self.places = nn.Embedding(length, width)
        self.nothing = nn.Parameter(0.02 * torch.randn(width))
        nn.init.normal_(self.places.weight, std=0.02)
        if self.table is not None:
            nn.init.normal_(self.table.weight, std=0.02)

    def share_codes(self, codes: nn.Embedding) -> None:
        if self.table is not None:
            return
        if codes.num_embeddings < self.codebook_size:
            raise UserError(
                f"the prior's {codes.num_embeddings} codes are fewer than the {self.codebook_size} codes of "
                f"condition images, so they cannot share a table; use the condition's `table: own`"
            )
        self.table = codes

    def forward(self, values: Int[Tensor, "b n"]) -> Float[Tensor, "b n width"]:
        if self.table is None:
            raise UserError(
                "only the prior Autoregressive can share its embedding of codes with the condition; use the "
                "condition's `table: own`"
            )
        there = rearrange(values < self.codebook_size, "b n -> b n 1")
        codes = self.table(values.clamp(max=self.codebook_size - 1))
        return torch.where(there, codes, self.nothing) + self.places.weight
