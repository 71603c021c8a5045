"""Gated PixelCNN: masked convolutions in two stacks (van den Oord et al. 2016, arXiv:1606.05328)."""

from typing import cast

from einops import rearrange
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn.functional import dropout, pad

from genstack.conditions.condition import Condition
from genstack.errors import UserError
from genstack.layout import CodeLayout
from genstack.prior.sequential import DecodingState, Sequential
from genstack.prior.symbols import Categorical
from genstack.transformer.head import check_table
from genstack.transformer.transformer import mean_pool


class GatedPixelCNN(Sequential):
    """Predict each code from the codes above and to the left, by gated convolutions.

    The prior of VQ-VAE. Training is cheap, but the receptive field is `layers` x (`kernel` // 2) rows and
    columns. Sampling reads the rows above once per row, and the row itself once per code; a transformer with
    a cache reads one token per code.

    Args:
        layout: layout of the codes; set from the compressor.
        condition: condition of the prior; set from the data. It modulates every gate as one vector.
        width: channels of each of the two stacks.
        layers: number of gated layers.
        kernel: size of the convolutions, odd.
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
                f"GatedPixelCNN needs a compressor with one grid and one symbol per position, got "
                f"{len(layout.grids)} and {layout.depth}; use VectorQuantizer, or the prior "
                f"Autoregressive"
            )
        if layout.grids[0][0] == 1:
            raise UserError(
                "GatedPixelCNN needs a compressor with several rows of codes, this one has a single row; use "
                "VectorQuantizer with a grid of codes, or the prior Autoregressive"
            )
        if min(width, layers) < 1 or kernel < 3 or kernel % 2 == 0 or not 0 <= dropout < 1:
            raise UserError(
                f"width and layers must be at least 1, kernel odd and at least 3, dropout at least 0 and "
                f"below 1; got width {width}, layers {layers}, kernel {kernel}, dropout {dropout}"
            )
        self.layout, self.condition = layout, condition
        self.width, self.layers, self.kernel, self.dropout = width, layers, kernel, dropout
        self.prefix = condition.embedding(width)
        # Codes have unit variance; the condition's embedding starts small, and gates would learn it late.
        self.condition_norm = nn.RMSNorm(width, eps=1e-6)
        check_table(layout.codebook_size)
        self.codes = nn.Embedding(layout.codebook_size, width)
        self.blocks = nn.ModuleList(
            GatedBlock(width, kernel, dropout, first=number == 0, last=number == layers - 1)
            for number in range(layers)
        )
        self.hidden = nn.Linear(width, width)
        self.distribution = Categorical()
        self.head = nn.Linear(width, layout.codebook_size)
        nn.init.normal_(self.codes.weight, std=1.0)
        nn.init.normal_(self.head.weight, std=0.02 / width**0.5)  # the loss starts at ln K
        nn.init.zeros_(self.head.bias)

    def logits(self, codes: Int[Tensor, "b n"], condition: Tensor) -> Float[Tensor, "b n K"]:
        """Logits of every code given the codes before it, in float32."""
        conditioning = self.conditioning(condition)
        embedded = self.embed(codes, self.layout.grids[0][0])
        vertical = self.vertical(embedded, conditioning)
        return rearrange(self.horizontal(embedded, vertical, conditioning), "b h w K -> b (h w) K")

    def decoding_state(self, condition: Tensor) -> "PixelCNNState":
        return PixelCNNState(self, condition)

    def conditioning(self, condition: Tensor) -> Float[Tensor, "b width"]:
        """The condition as one vector."""
        return self.condition_norm(mean_pool(self.prefix(condition)))

    def embed(self, codes: Int[Tensor, "b n"], rows: int) -> Float[Tensor, "b width h w"]:
        """Embed rows of codes."""
        return rearrange(self.codes(codes), "b (h w) width -> b width h w", h=rows)

    def vertical(
        self, embedded: Float[Tensor, "b width h w"], conditioning: Float[Tensor, "b width"]
    ) -> list[Float[Tensor, "b two_width h w"]]:
        """Outputs of the vertical stack for the horizontal one, per layer; each row sees the rows above."""
        outputs, features = [], embedded
        for block in self.blocks:
            features, output = cast(GatedBlock, block).vertical(features, conditioning)
            outputs.append(output)
        return outputs

    def horizontal(
        self,
        embedded: Float[Tensor, "b width h w"],
        vertical: list[Float[Tensor, "b two_width h w"]],
        conditioning: Float[Tensor, "b width"],
    ) -> Float[Tensor, "b h w K"]:
        """Logits by the horizontal stack, in which rows do not see each other."""
        features = embedded
        for block, output in zip(self.blocks, vertical, strict=True):
            features = cast(GatedBlock, block).horizontal(features, output, conditioning)
        hidden = self.hidden(rearrange(features, "b width h w -> b h w width").relu())
        return self.head(hidden.relu()).float()


class PixelCNNState(DecodingState):
    """Decode row by row; the vertical stack runs once per row, over the rows in its receptive field."""

    def __init__(self, prior: GatedPixelCNN, condition: Tensor):
        self.prior, self.conditioning = prior, prior.conditioning(condition)
        self.distribution = prior.distribution
        self.receptive_field = prior.layers * (prior.kernel // 2) + 1
        self.vertical: list[Tensor] = []

    def next_logits(self, codes: Int[Tensor, "n b"], index: int) -> Float[Tensor, "b K"]:
        row, column = divmod(index, self.prior.layout.grids[0][1])
        if column == 0:
            top = max(0, row - self.receptive_field)
            vertical = self.prior.vertical(self._embed(codes, top, row), self.conditioning)
            self.vertical = [each[:, :, -1:] for each in vertical]
        embedded = self._embed(codes, row, row)
        return self.prior.horizontal(embedded, self.vertical, self.conditioning)[:, 0, column]

    def _embed(self, codes: Int[Tensor, "n b"], first: int, last: int) -> Float[Tensor, "b width h w"]:
        width = self.prior.layout.grids[0][1]
        rows = rearrange(codes[first * width : (last + 1) * width], "n b -> b n")
        return self.prior.embed(rows, last - first + 1)


class GatedBlock(nn.Module):
    """One layer of both stacks (figure 2 of the paper).

    Args:
        width: channels of each stack.
        kernel: size of the convolutions.
        dropout: share of channels dropped after each gate, in training.
        first: the horizontal stack reads codes here, and must not see the one at its own position.
        last: the vertical stack ends here.
    """

    def __init__(self, width: int, kernel: int, dropout: float, first: bool, last: bool):
        super().__init__()
        self.padding, self.dropout, self.first = kernel // 2, dropout, first
        columns = self.padding + (not first)
        self.vertical_conv = nn.Conv2d(width, 2 * width, (self.padding + 1, kernel))
        self.horizontal_conv = nn.Conv2d(width, 2 * width, (1, columns))
        self.vertical_to_horizontal = nn.Conv2d(2 * width, 2 * width, 1)
        self.vertical_condition = None if last else nn.Linear(width, 2 * width)
        self.horizontal_condition = nn.Linear(width, 2 * width)
        self.out = nn.Conv2d(width, width, 1)

    def vertical(
        self, features: Float[Tensor, "b width h w"], conditioning: Float[Tensor, "b width"]
    ) -> tuple[Float[Tensor, "b width h w"], Float[Tensor, "b two_width h w"]]:
        """Features of the vertical stack, which sees its own row and the rows above, and its output."""
        hidden = self.vertical_conv(pad(features, (self.padding, self.padding, self.padding, 0)))
        # The horizontal stack sees the rows above only, so the output moves down by one row.
        output = self.vertical_to_horizontal(pad(hidden, (0, 0, 1, 0))[:, :, :-1])
        if self.vertical_condition is None:
            return features, output
        features = gate(hidden, self.vertical_condition(conditioning))
        return dropout(features, self.dropout, self.training), output

    def horizontal(
        self,
        features: Float[Tensor, "b width h w"],
        vertical: Float[Tensor, "b two_width h w"],
        conditioning: Float[Tensor, "b width"],
    ) -> Float[Tensor, "b width h w"]:
        """Features of the horizontal stack, which sees the codes to the left."""
        hidden = self.horizontal_conv(pad(features, (self.padding, 0, 0, 0)))
        if self.first:
            hidden = hidden[..., :-1]
        gated = gate(hidden + vertical, self.horizontal_condition(conditioning))
        out = self.out(dropout(gated, self.dropout, self.training))
        return out if self.first else features + out


def gate(hidden: Float[Tensor, "b two_width h w"], conditioning: Float[Tensor, "b two_width"]) -> Tensor:
    """Multiply tanh of one half by the sigmoid of the other (equation 4)."""
    value, logits = (hidden + rearrange(conditioning, "b c -> b c 1 1")).chunk(2, dim=1)
    return value.tanh() * logits.sigmoid()
