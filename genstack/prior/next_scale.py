"""One grid after the other, all codes of a grid at once (VAR, Tian et al. 2024, arXiv:2404.02905)."""

from collections.abc import Sequence
from dataclasses import replace
from math import prod
from typing import Any

import torch
from einops import rearrange, repeat
from jaxtyping import Float, Int
from torch import Tensor, nn

from genstack.compressor.compressor import Compressor
from genstack.compressor.quantizers.multiscale import MultiScale, resized
from genstack.conditions.condition import Condition
from genstack.errors import UserError
from genstack.layout import CodeLayout
from genstack.prior.exact import Exact
from genstack.prior.guidance import Guidance
from genstack.prior.options import SamplingOptions
from genstack.prior.prior import Known
from genstack.prior.sampling import draw, uniforms
from genstack.transformer.backbone import Backbone
from genstack.transformer.encoded_condition import EncodedCondition
from genstack.transformer.masks import BlockCausal, Full
from genstack.transformer.positions import IndexEmbedding
from genstack.transformer.transformer import Transformer

REMEDY = "train one with --config configs/compressor/multiscale.yaml, or use the prior Autoregressive"


class NextScale(Exact):
    """A transformer that reads what the coarser grids show and predicts all codes of the next grid at once.

    A grid's tokens are the compressor's own sum of the coarser grids, shrunk to its size; those of the first
    grid are the condition. They see all tokens of their own and of coarser grids. Given the coarser grids,
    the codes of a grid are independent, so the likelihood is exact.

    Args:
        layout: where the codes lie; set from the compressor, whose quantizer is MultiScale.
        condition: what steers the prior; set from the data.
        backbone: the plan of the transformer; VAR's has learned positions, layer norms, gelu_tanh, biases,
            qk_norm unit and adaptive norms.
    """

    def __init__(
        self,
        layout: CodeLayout,
        condition: Condition,
        backbone: Backbone = Backbone(adaln="own"),
    ):
        super().__init__()
        if len(layout.grids) == 1 or layout.depth > 1:
            raise UserError(
                f"NextScale needs a compressor whose codes lie on several grids, one symbol a place, not on "
                f"{len(layout.grids)} with {layout.depth}; {REMEDY}"
            )
        self.layout, self.condition, self.backbone = layout, condition, backbone
        #: A condition of one token is the first grid's token; longer ones stand before it.
        before = backbone.prefix_length(condition.length)
        self.prefix_length = before if before > 1 else 0
        self.prefix = condition.embedding(backbone.width)
        # A vector for each place: tokens of the first grid look alike, and so do those of a flat image;
        # rotary angles alone would not tell them apart.
        self.position_embedding = (
            IndexEmbedding(torch.arange(layout.length), layout.length, backbone.width)
            if backbone.positions == "rotary"
            else None
        )
        self.transformer = Transformer(layout, backbone)
        self.head = nn.Linear(backbone.width, layout.codebook_size, bias=backbone.bias)
        nn.init.normal_(self.head.weight, std=0.02 / backbone.width**0.5)  # the loss starts at ln K
        if self.head.bias is not None:
            nn.init.zeros_(self.head.bias)
        #: From latents to tokens; made by `attach`, since the compressor alone knows the latents' channels.
        self.read: nn.Linear | None = None

        sizes = [prod(grid) for grid in layout.grids]
        places = torch.cat([torch.full((self.prefix_length,), layout.length), torch.arange(layout.length)])
        blocks = torch.cat([torch.zeros(self.prefix_length), layout.positions().grid + 1]).long()
        self.register_buffer("positions", places, persistent=False)
        self.register_buffer("blocks", blocks, persistent=False)
        self.sizes = sizes

    def attach(self, compressor: Compressor) -> None:
        quantizer = getattr(compressor, "quantizer", None)
        if not isinstance(quantizer, MultiScale):
            raise UserError(
                f"NextScale reads what the quantizer MultiScale makes of coarser grids, and this compressor "
                f"has {type(quantizer).__name__}; {REMEDY}"
            )
        self.lookup = Lookup(quantizer)
        if self.read is None:
            self.read = nn.Linear(quantizer.dim, self.backbone.width, device=self.head.weight.device)
            nn.init.normal_(self.read.weight, std=quantizer.dim**-0.5 * 0.02)
            nn.init.zeros_(self.read.bias)

    def logits(self, codes: Int[Tensor, "b n"], condition: Tensor) -> Float[Tensor, "b n K"]:
        """Logits of every code, each from the codes of coarser grids, in float32."""
        encoded = self.encode_condition(condition)
        sums = self.lookup.sums(self.layout.split(codes)[:-1], self.layout)
        tokens = torch.cat([self._start(encoded), *map(self._embed, sums)], dim=1)
        places, blocks = self.get_buffer("positions"), self.get_buffer("blocks")
        mask = encoded.mask_padding(BlockCausal(blocks))
        features = self.transformer(
            self._placed(tokens, places),
            places,
            mask,
            conditioning=encoded.conditioning,
            key_values=encoded.key_values,
        )
        return self.head(features[:, self.prefix_length :]).float()

    def draw(
        self, guidance: Guidance, options: SamplingOptions, seeds: Int[Tensor, " b"], known: Known
    ) -> Int[Tensor, "b n"]:
        """One grid after the other; a known code is seen by finer grids alone."""
        device, grids = self.head.weight.device, self.layout.grids
        numbers = uniforms(seeds, self.layout.length).to(device).split(self.sizes, dim=1)
        given, masks = known.codes.split(self.sizes, dim=1), known.mask.split(self.sizes, dim=1)
        encoded = self.encode_condition(guidance.values)
        caches = self.transformer.caches(self.prefix_length + self.layout.length)
        tokens, filled = self._start(encoded), 0
        total: Tensor | None = None
        drawn: list[Tensor] = []
        for index, (height, _) in enumerate(grids):
            places = self.get_buffer("positions")[filled : filled + tokens.shape[1]]
            filled += tokens.shape[1]
            seen = BlockCausal(self.get_buffer("blocks")) if index == 0 else Full()
            mask = encoded.mask_padding(seen)
            features = self.transformer.step(self._placed(tokens, places), places, mask, caches, encoded)
            logits = self.head(features[:, -self.sizes[index] :]).float()
            logits = guidance.steer(logits, index / (len(grids) - 1))
            codes = draw(rearrange(logits, "b n K -> (b n) K"), options, numbers[index].flatten())
            codes = rearrange(codes, "(b n) -> b n", b=len(seeds))
            drawn.append(torch.where(masks[index], given[index], codes))
            if index + 1 < len(grids):
                grid = rearrange(drawn[-1], "b (h w) -> b h w 1", h=height)
                total = self.lookup.add(total, grid, index, self.layout)
                tokens = self._embed(guidance.rows(resized(total, grids[index + 1], "area")))
        return torch.cat(drawn, dim=1)

    def encode_condition(self, condition: Tensor) -> EncodedCondition:
        """Values of the condition, read once for all grids."""
        mask = self.condition.padding_mask(condition)
        encoded = self.transformer.encode_condition(self.prefix(condition), mask)
        padding_mask = None if encoded.padding_mask is None else encoded.padding_mask[:, : self.prefix_length]
        return replace(encoded, prefix=encoded.prefix[:, : self.prefix_length], padding_mask=padding_mask)

    def _start(self, encoded: EncodedCondition) -> Float[Tensor, "b n width"]:
        """The condition, if it has several tokens, and the tokens of the first grid, which are its mean."""
        first = repeat(encoded.conditioning, "b width -> b n width", n=self.sizes[0])
        return torch.cat([encoded.prefix, first], dim=1)

    def _embed(self, latents: Float[Tensor, "b d h w"]) -> Float[Tensor, "b n width"]:
        assert self.read is not None, "a prior is attached to a compressor before it reads codes"
        return self.read(rearrange(latents, "b d h w -> b (h w) d"))

    def _placed(
        self, tokens: Float[Tensor, "b n width"], places: Int[Tensor, " n"]
    ) -> Float[Tensor, "b n width"]:
        return tokens if self.position_embedding is None else tokens + self.position_embedding(places)


class Lookup:
    """A compressor's quantizer, looked at and not owned: it is frozen, in the compressor's part of the file,
    and shared by copies of the prior, such as the one with averaged weights.
    """

    def __init__(self, quantizer: MultiScale):
        self.quantizer = quantizer

    def __deepcopy__(self, memo: Any) -> "Lookup":
        return self

    @torch.no_grad()
    def add(
        self,
        total: Float[Tensor, "b d h w"] | None,
        grid: Int[Tensor, "b _ _ 1"],
        number: int,
        layout: CodeLayout,
    ) -> Float[Tensor, "b d h w"]:
        """What the grids so far show, and one more, in full size."""
        with torch.autocast(grid.device.type, enabled=False):
            added = self.quantizer.enlarged(grid, number, *layout.grids[-1])
            return added if total is None else total + added

    def sums(
        self, grids: Sequence[Int[Tensor, "b _ _ 1"]], layout: CodeLayout
    ) -> list[Float[Tensor, "b d _ _"]]:
        """What the grids up to each of these show, in the size of the next grid."""
        total, sums = None, []
        for number, grid in enumerate(grids):
            total = self.add(total, grid, number, layout)
            sums.append(resized(total, layout.grids[number + 1], "area"))
        return sums
