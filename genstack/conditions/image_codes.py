"""Condition images as codes of their own compressor, before the codes to predict.

Taming transformers read segmentation and depth maps in this way (Esser et al. 2021, arXiv:2012.09841, 3.2).
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
from genstack.conditions.image import ImagePrompts, checked_shape, luma
from genstack.conditions.modality import Modality
from genstack.errors import UserError
from genstack.inputs import ConditionInputs, DataInfo
from genstack.layout import CodeLayout
from genstack.transformer.head import check_table


@dataclass(frozen=True)
class ImageCodes(Condition):
    """A condition image of the same height and width, one token per code of a frozen compressor.

    `data.condition_images` names the images; without it each image is its own condition.

    Args:
        compressor: run or published file of the compressor of condition images; the prior's run keeps a copy.
            A compressor of 1 channel gets their luma. One with more than 4 channels gets a class per pixel,
            one-hot, from their grey value (0 to 255).
        table: embedding of the codes: own, or shared with the codes to predict (as in taming-transformers;
            with the prior Autoregressive).
        dropout: share of training samples without an image; 0 makes guidance impossible.
        size: height and width of the images; set from the data.
        weights_hash: hash of the compressor; set from it.
        network: the compressor; set from `compressor`.
    """

    compressor: str = ""
    table: Literal["own", "shared"] = "own"
    dropout: float = 0.1
    size: tuple[int, int] = (0, 0)
    weights_hash: str = ""
    network: Any = field(default=None, compare=False, repr=False)

    def __post_init__(self) -> None:
        check_dropout(self.dropout)
        if self.network is not None and not isinstance(self.network, Compressor):
            raise UserError("network of condition images is set from `compressor`; leave it out")

    def __deepcopy__(self, memo: Any) -> "ImageCodes":
        """Return itself: copies of a prior share the frozen compressor."""
        return self

    @property
    def layout(self) -> CodeLayout:
        """Layout of the codes."""
        return self.network.code_layout(*self.size)

    @property
    def length(self) -> int:  # type: ignore[override]
        return self.layout.length

    @property
    def modality(self) -> Modality:
        return ImagePrompts(self.dropout)

    def with_compressor(self, network: Compressor, weights_hash: str) -> "ImageCodes":
        return replace(self, network=network, weights_hash=weights_hash)

    def fit(self, data: DataInfo) -> "ImageCodes":
        size = checked_shape(data)[1:]
        if self.network is None:
            raise UserError(
                "the compressor of condition images is missing; set model.condition.compressor to its run"
            )
        if not self.network.has_codes:
            raise UserError(
                f"the compressor of condition images {self.compressor} has no codes; use one with a quantizer"
            )
        self.network.layout(*size)  # raises for sizes that it does not support
        return replace(self, size=size)

    def encode(self, inputs: ConditionInputs) -> Int[Tensor, "b n"]:
        """Codes of the image; `codebook_size` without one."""
        device = inputs.labels.device
        images = inputs.image_of_each
        if images is None:
            return torch.full((len(inputs), self.length), self.layout.codebook_size, device=device)
        with torch.no_grad(), torch.autocast(device.type, enabled=False):
            return self.network.encode(self.convert(images.float()))

    def convert(self, images: Float[Tensor, "b c H W"]) -> Float[Tensor, "b d H W"]:
        """Convert images to the channels of the compressor."""
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


class CodeEmbedding(ConditionEmbedding):
    """Codes to tokens with learned positions: `b n -> b n width`; index `codebook_size` is the null
    condition.

    Unless it has its `own` table, `share_codes` must be called first.
    """

    def __init__(self, codebook_size: int, length: int, width: int, own: bool):
        super().__init__()
        self.codebook_size = codebook_size
        if own:
            check_table(codebook_size)
        self.table = nn.Embedding(codebook_size, width) if own else None
        self.position_embedding = nn.Embedding(length, width)
        self.null = nn.Parameter(0.02 * torch.randn(width))
        nn.init.normal_(self.position_embedding.weight, std=0.02)
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
        given = rearrange(values < self.codebook_size, "b n -> b n 1")
        codes = self.table(values.clamp(max=self.codebook_size - 1))
        return torch.where(given, codes, self.null) + self.position_embedding.weight
