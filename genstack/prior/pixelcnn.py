"""Masked convolutions in two stacks, gated: Gated PixelCNN (van den Oord et al. 2016, arXiv:1606.05328)."""

from typing import cast

import torch
from einops import rearrange
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn.functional import dropout, pad

from genstack.conditions.condition import Condition
from genstack.errors import UserError
from genstack.layout import CodeLayout
from genstack.prior.exact import Exact
from genstack.prior.guidance import Guidance
from genstack.prior.options import SamplingOptions
from genstack.prior.prior import Known
from genstack.prior.sampling import draw, uniforms
from genstack.transformer.transformer import mean_pool


class GatedPixelCNN(Exact):
    """Convolutions that see the codes above and those to the left, and so predict every code in one pass.

    The prior of VQ-VAE. Training is cheap; a code sees only `layers` x (`kernel` // 2) rows and columns far.
    Drawing reads the rows above once for each row, and the row itself once for each of its codes: all of the
    grid for each row, where a transformer with a cache reads one token for each code.

    Args:
        layout: where the codes lie; set from the compressor.
        condition: what steers the prior; set from the data. It enters every gate as one vector.
        width: channels of each of the two stacks.
        layers: number of gated layers.
        kernel: side of the convolutions, odd.
        dropout: share of channels dropped after each gate, in training.
    """

    def __init__(
        self,
        layout: CodeLayout,
        condition: Condition,
        width: int = 192,
        layers: int = 12,
        kernel: int = 5,
        dropout: float = 0.1,
    ):
        super().__init__()
        if len(layout.grids) > 1 or layout.depth > 1:
            raise UserError(
                f"GatedPixelCNN needs a compressor with one grid of codes, one symbol a position, not "
                f"{len(layout.grids)} with {layout.depth}; train one with --config "
                f"configs/compressor/vqgan.yaml, or use the prior Autoregressive"
            )
        if layout.grids[0][0] == 1:
            raise UserError(
                "GatedPixelCNN needs rows of codes above one another; this compressor makes a single row; "
                "train one with --config configs/compressor/vqgan.yaml, or use the prior Autoregressive"
            )
        if min(width, layers) < 1 or kernel < 3 or kernel % 2 == 0 or not 0 <= dropout < 1:
            raise UserError(
                f"width {width} and layers {layers} are at least 1, kernel {kernel} is odd and at least 3, "
                f"dropout {dropout} is at least 0 and below 1; change what is not so"
            )
        self.layout, self.condition = layout, condition
        self.width, self.layers, self.kernel, self.dropout = width, layers, kernel, dropout
        self.prefix = condition.embedding(width)
        # Codes are vectors of unit size; a condition's are small at first, and gates would learn it late.
        self.steered = nn.RMSNorm(width, eps=1e-6)
        self.codes = nn.Embedding(layout.codebook_size, width)
        self.blocks = nn.ModuleList(
            GatedBlock(width, kernel, dropout, first=number == 0, last=number == layers - 1)
            for number in range(layers)
        )
        self.hidden = nn.Linear(width, width)
        self.head = nn.Linear(width, layout.codebook_size)
        nn.init.normal_(self.codes.weight, std=1.0)
        nn.init.normal_(self.head.weight, std=0.02 / width**0.5)  # the loss starts at ln K
        nn.init.zeros_(self.head.bias)

    def logits(self, codes: Int[Tensor, "b n"], condition: Tensor) -> Float[Tensor, "b n K"]:
        """Logits of every code, each from the codes before it, in float32."""
        steered = self.steered(mean_pool(self.prefix(condition)))
        read = self.read(codes, self.layout.grids[0][0])
        return rearrange(self.along(read, self.above(read, steered), steered), "b h w K -> b (h w) K")

    def draw(
        self, guidance: Guidance, options: SamplingOptions, seeds: Int[Tensor, " b"], known: Known
    ) -> Int[Tensor, "b n"]:
        """One code after the other; a known code is seen by those after it in the flat sequence alone."""
        (height, width), length = self.layout.grids[0], self.layout.length
        numbers = uniforms(seeds, length).to(self.head.weight.device)
        steered = self.steered(mean_pool(self.prefix(guidance.values)))
        codes = torch.zeros_like(known.codes)
        reach = self.layers * (self.kernel // 2) + 1
        for row in range(height):
            # The vertical stack of a row follows from the rows above as far as it reaches: once for each row.
            top = max(0, row - reach)
            seen = guidance.rows(codes[:, top * width : (row + 1) * width])
            above = [each[:, :, -1:] for each in self.above(self.read(seen, row - top + 1), steered)]
            for column in range(width):
                index = row * width + column
                read = self.read(guidance.rows(codes[:, row * width : (row + 1) * width]), 1)
                logits = guidance.steer(
                    self.along(read, above, steered)[:, 0, column], index / max(1, length - 1)
                )
                drawn = draw(logits, options, numbers[:, index].contiguous())
                codes[:, index] = torch.where(known.mask[:, index], known.codes[:, index], drawn)
        return codes

    def read(self, codes: Int[Tensor, "b n"], rows: int) -> Float[Tensor, "b width h w"]:
        """The vectors of rows of codes."""
        return rearrange(self.codes(codes), "b (h w) width -> b width h w", h=rows)

    def above(
        self, read: Float[Tensor, "b width h w"], steered: Float[Tensor, "b width"]
    ) -> list[Float[Tensor, "b two_width h w"]]:
        """What each layer's vertical stack tells the row beside it, of the rows above that one."""
        told, features = [], read
        for block in self.blocks:
            features, tells = cast(GatedBlock, block).vertical(features, steered)
            told.append(tells)
        return told

    def along(
        self,
        read: Float[Tensor, "b width h w"],
        above: list[Float[Tensor, "b two_width h w"]],
        steered: Float[Tensor, "b width"],
    ) -> Float[Tensor, "b h w K"]:
        """Logits, by the horizontal stack, whose rows do not see each other."""
        features = read
        for block, tells in zip(self.blocks, above, strict=True):
            features = cast(GatedBlock, block).horizontal(features, tells, steered)
        hidden = self.hidden(rearrange(features, "b width h w -> b h w width").relu())
        return self.head(hidden.relu()).float()


class GatedBlock(nn.Module):
    """One layer of both stacks (figure 2 of the paper).

    Args:
        width: channels of each stack.
        kernel: side of the convolutions.
        dropout: share of channels dropped after each gate, in training.
        first: the horizontal stack reads codes, and so must not see the one at its own place.
        last: what the vertical stack would write is not read any more.
    """

    def __init__(self, width: int, kernel: int, dropout: float, first: bool, last: bool):
        super().__init__()
        self.reach, self.dropout, self.first = kernel // 2, dropout, first
        columns = self.reach + (not first)
        self.down = nn.Conv2d(width, 2 * width, (self.reach + 1, kernel))
        self.across = nn.Conv2d(width, 2 * width, (1, columns))
        self.tell = nn.Conv2d(2 * width, 2 * width, 1)
        self.steer_down = None if last else nn.Linear(width, 2 * width)
        self.steer_across = nn.Linear(width, 2 * width)
        self.join = nn.Conv2d(width, width, 1)

    def vertical(
        self, features: Float[Tensor, "b width h w"], steered: Float[Tensor, "b width"]
    ) -> tuple[Float[Tensor, "b width h w"], Float[Tensor, "b two_width h w"]]:
        """The vertical stack, which sees its own row and those above, and what it tells the row below."""
        seen = self.down(pad(features, (self.reach, self.reach, self.reach, 0)))
        # A row is told of the rows above it alone: all moves down by one.
        tells = self.tell(pad(seen, (0, 0, 1, 0))[:, :, :-1])
        if self.steer_down is None:
            return features, tells
        return dropout(gated(seen, self.steer_down(steered)), self.dropout, self.training), tells

    def horizontal(
        self,
        features: Float[Tensor, "b width h w"],
        tells: Float[Tensor, "b two_width h w"],
        steered: Float[Tensor, "b width"],
    ) -> Float[Tensor, "b width h w"]:
        """The horizontal stack, which sees the codes to the left."""
        seen = self.across(pad(features, (self.reach, 0, 0, 0)))
        if self.first:
            seen = seen[..., :-1]
        written = gated(seen + tells, self.steer_across(steered))
        joined = self.join(dropout(written, self.dropout, self.training))
        return joined if self.first else features + joined


def gated(seen: Float[Tensor, "b two_width h w"], steered: Float[Tensor, "b two_width"]) -> Tensor:
    """tanh of one half times the sigmoid of the other (equation 4)."""
    value, gate = (seen + rearrange(steered, "b c -> b c 1 1")).chunk(2, dim=1)
    return value.tanh() * gate.sigmoid()
