"""Next-scale prediction: all codes of a grid at once (VAR, Tian et al. 2024, arXiv:2404.02905)."""

from collections.abc import Sequence
from dataclasses import replace
from math import prod
from typing import Any

import torch
from einops import rearrange, repeat
from jaxtyping import Float, Int
from torch import Tensor, nn

from genstack.compressor.compressor import Compressor
from genstack.compressor.quantizers.multiscale import MultiScaleResidual, Scales, resize
from genstack.conditions.condition import Condition
from genstack.errors import UserError
from genstack.layout import CodeLayout
from genstack.prior.exact import Exact
from genstack.prior.guidance import Guidance
from genstack.prior.known import Known
from genstack.prior.logits import uniforms
from genstack.prior.options import SamplingOptions
from genstack.prior.symbols import Softmax, Symbols
from genstack.transformer.backbone import Backbone
from genstack.transformer.encoded_condition import EncodedCondition
from genstack.transformer.head import JointHead, linear_head
from genstack.transformer.masks import BlockCausal, Full
from genstack.transformer.positions import IndexEmbedding
from genstack.transformer.transformer import Transformer

REMEDY = "use the quantizer MultiScale, or the prior Autoregressive"


class NextScale(Exact):
    """Predict all codes of a grid from the coarser grids, by a transformer.

    The tokens of a grid are the compressor's sum of the coarser grids, resized to that grid; the tokens of
    the first grid are the condition. Tokens attend to their own and to coarser grids. The codes of a grid are
    independent given the coarser grids, so the likelihood is exact. A token predicts all symbols of its
    position.

    Args:
        layout: layout of the codes; set from the compressor, whose quantizer has grids of several scales.
        condition: condition of the prior; set from the data.
        backbone: configuration of the transformer; VAR has learned positions, layer norms, gelu_tanh, biases,
            qk_norm unit and adaLN.
        symbols: how codes are read and predicted: Softmax; Factorized for large codebooks;
            Bits or MaskedBits for codebooks of 2^n values.
        bit_flips: largest share of bits of each grid that are flipped in training, so that finer grids learn
            to correct mistakes of coarser ones (bitwise self-correction of Infinity, arXiv:2412.04431, which
            has 0.3); 0 for none. It needs images, not an archive of codes.
    """

    def __init__(
        self,
        layout: CodeLayout,
        condition: Condition,
        backbone: Backbone = Backbone(adaln="own"),
        symbols: Symbols = Softmax(),
        bit_flips: float = 0.0,
    ):
        super().__init__()
        if not 0 <= bit_flips <= 1:
            raise UserError(f"bit_flips must be from 0 to 1, got {bit_flips}")
        if len(layout.grids) == 1:
            raise UserError(f"NextScale needs a compressor with several grids of codes, got one; {REMEDY}")
        self.layout, self.condition, self.backbone = layout, condition, backbone
        self.symbols, self.likelihood = symbols, symbols.likelihood(self.likelihood)
        self.bit_flips, self.needs_images = bit_flips, "bit_flips" if bit_flips else ""
        #: A token is a position, which may have several symbols.
        tokens = replace(layout, depth=1)
        #: A condition of one token is the first grid's token; longer ones precede it.
        length = backbone.prefix_length(condition.length)
        self.prefix_length = length if length > 1 else 0
        self.prefix = condition.embedding(backbone.width)
        # The tokens of the first grid are equal to each other, as are the tokens of a flat image. Rotary
        # embeddings alone would not tell them apart.
        self.position_embedding = (
            IndexEmbedding(torch.arange(tokens.length), tokens.length, backbone.width)
            if backbone.positions == "rotary"
            else None
        )
        self.transformer = Transformer(tokens, backbone, self.prefix_length)
        outputs = symbols.outputs(layout.codebook_size, backbone.width)
        bias = backbone.bias or backbone.head_bias
        heads = [linear_head(backbone.width, outputs, bias) for _ in range(layout.depth)]
        self.head = heads[0] if layout.depth == 1 else JointHead(heads, backbone.width)
        self.distribution = symbols.distribution(layout.codebook_size, backbone)
        #: Latents to tokens; built by `attach`, which knows the channels of the compressor's latents.
        self.latent_embedding: nn.Linear | None = None

        no_position = torch.full((self.prefix_length,), tokens.length)
        positions = torch.cat([no_position, torch.arange(tokens.length)])
        blocks = torch.cat([torch.zeros(self.prefix_length), tokens.positions().grid + 1]).long()
        self.register_buffer("positions", positions, persistent=False)
        self.register_buffer("blocks", blocks, persistent=False)
        #: Tokens of each grid.
        self.sizes = [prod(grid) for grid in layout.grids]

    def attach(self, compressor: Compressor) -> None:
        quantizer = getattr(compressor, "quantizer", None)
        if not isinstance(quantizer, Scales):
            raise UserError(
                f"NextScale needs a compressor with the quantizer MultiScale or MultiScaleResidual, got "
                f"{type(quantizer).__name__}; {REMEDY}"
            )
        if self.bit_flips and not (isinstance(quantizer, MultiScaleResidual) and quantizer.has_bits):
            raise UserError(
                f"bit_flips {self.bit_flips} needs codes of bits; use the quantizer MultiScaleResidual with "
                f"BSQ or LFQ, or bit_flips 0"
            )
        self.lookup = Lookup(quantizer)
        if self.latent_embedding is None:
            device = next(self.head.parameters()).device
            self.latent_embedding = nn.Linear(quantizer.dim, self.backbone.width, device=device)
            nn.init.normal_(self.latent_embedding.weight, std=quantizer.dim**-0.5 * 0.02)
            nn.init.zeros_(self.latent_embedding.bias)

    def encode(self, compressor: Compressor, images: Float[Tensor, "b c H W"]) -> Int[Tensor, "b *pair n"]:
        """Codes; in training with `bit_flips`, pairs of codes to predict and codes to read, `b 2 n`."""
        if not self.training or not self.bit_flips:
            return super().encode(compressor, images)
        quantizer = self.lookup.quantizer
        assert isinstance(quantizer, MultiScaleResidual)
        (latents,) = compressor.features(images)
        return quantizer.encode_flipped(latents, self.bit_flips)

    def targets_and_inputs(
        self, codes: Int[Tensor, "b *pair n"]
    ) -> tuple[Int[Tensor, "b n"], Int[Tensor, "b n"]]:
        """Split the pairs of `encode`."""
        if not self.bit_flips:
            return codes, codes
        if codes.ndim == 2:
            raise UserError("bit_flips needs pairs of codes in training, as `encode` returns them; got codes")
        return codes[:, 0], codes[:, 1]

    def logits(self, codes: Int[Tensor, "b n"], condition: Tensor) -> Float[Tensor, "b n K"]:
        """Logits of every code given the codes of coarser grids, in float32."""
        encoded = self.encode_condition(condition)
        sums = self.lookup.sums(self.layout.split(codes)[:-1], self.layout)
        tokens = torch.cat([self._first_tokens(encoded), *map(self._embed, sums)], dim=1)
        positions, blocks = self.get_buffer("positions"), self.get_buffer("blocks")
        features = self.transformer(
            self._add_positions(tokens, positions),
            positions,
            encoded.mask_padding(BlockCausal(blocks)),
            conditioning=encoded.conditioning,
            key_values=encoded.key_values,
        )
        return self.head(features[:, self.prefix_length :]).float()

    def sample_codes(
        self, guidance: Guidance, options: SamplingOptions, seeds: Int[Tensor, " b"], known: Known
    ) -> Int[Tensor, "b n"]:
        """Sample one grid after the other; known codes affect finer grids only."""
        grids = self.layout.grids
        noise = uniforms(seeds, self.layout.length * self.distribution.numbers).to(known.values.device)
        noise = rearrange(noise, "b (n number) -> b n number", n=self.layout.length)
        sizes = [size * self.layout.depth for size in self.sizes]
        noises = noise.split(sizes, dim=1)
        known_codes, known_masks = (each.split(sizes, dim=1) for each in (known.values, known.mask))
        encoded = self.encode_condition(guidance.values)
        caches = self.transformer.caches(self.prefix_length + sum(self.sizes))
        tokens, start = self._first_tokens(encoded), 0
        total: Tensor | None = None
        result: list[Tensor] = []
        for index, (height, _) in enumerate(grids):
            positions = self.get_buffer("positions")[start : start + tokens.shape[1]]
            start += tokens.shape[1]
            mask = encoded.mask_padding(BlockCausal(self.get_buffer("blocks")) if index == 0 else Full())
            tokens = self._add_positions(tokens, positions)
            features = self.transformer.step(tokens, positions, mask, caches, encoded)
            logits = self.head(features[:, -self.sizes[index] :]).float()
            logits, guide = (
                rearrange(logits, "b n K -> (b n) K"),
                guidance.at(options.progress(index, len(grids))),
            )
            codes = self.distribution.sample(logits, guide, options, noises[index].flatten(0, 1))
            codes = rearrange(codes, "(b n) -> b n", b=len(seeds))
            result.append(torch.where(known_masks[index], known_codes[index], codes))
            if index + 1 < len(grids):
                grid = rearrange(
                    result[-1], "b (h w depth) -> b h w depth", h=height, depth=self.layout.depth
                )
                total = self.lookup.add(total, grid, index, self.layout)
                tokens = self._embed(guidance.expand(resize(total, grids[index + 1], "area")))
        return torch.cat(result, dim=1)

    def encode_condition(self, condition: Tensor) -> EncodedCondition:
        """Encode values of the condition, once for all grids."""
        mask = self.condition.padding_mask(condition)
        encoded = self.transformer.encode_condition(self.prefix(condition), mask)
        mask = None if encoded.padding_mask is None else encoded.padding_mask[:, : self.prefix_length]
        return replace(encoded, prefix=encoded.prefix[:, : self.prefix_length], padding_mask=mask)

    def _first_tokens(self, encoded: EncodedCondition) -> Float[Tensor, "b n width"]:
        """Prefix of the condition, if it has several tokens, and the tokens of the first grid, its mean."""
        first = repeat(encoded.conditioning, "b width -> b n width", n=self.sizes[0])
        return torch.cat([encoded.prefix, first], dim=1)

    def _embed(self, latents: Float[Tensor, "b d h w"]) -> Float[Tensor, "b n width"]:
        assert self.latent_embedding is not None, "attach the prior to a compressor first"
        return self.latent_embedding(rearrange(latents, "b d h w -> b (h w) d"))

    def _add_positions(
        self, tokens: Float[Tensor, "b n width"], positions: Int[Tensor, " n"]
    ) -> Float[Tensor, "b n width"]:
        return tokens if self.position_embedding is None else tokens + self.position_embedding(positions)


class Lookup:
    """A reference to the frozen quantizer of the compressor.

    It is not a submodule, because its weights are saved with the compressor. Copies of the prior, such as the
    EMA model, share it.
    """

    def __init__(self, quantizer: Scales):
        self.quantizer = quantizer

    def __deepcopy__(self, memo: Any) -> "Lookup":
        return self

    @torch.no_grad()
    def add(
        self,
        total: Float[Tensor, "b d h w"] | None,
        grid: Int[Tensor, "b _ _ depth"],
        number: int,
        layout: CodeLayout,
    ) -> Float[Tensor, "b d h w"]:
        """Add a grid's latents to the sum of coarser grids, in full size."""
        with torch.autocast(grid.device.type, enabled=False):
            added = self.quantizer.upsample(grid, number, *layout.grids[-1])
            return added if total is None else total + added

    def sums(
        self, grids: Sequence[Int[Tensor, "b _ _ depth"]], layout: CodeLayout
    ) -> list[Float[Tensor, "b d _ _"]]:
        """Sum of latents up to each grid, resized to the next grid."""
        total, sums = None, []
        for number, grid in enumerate(grids):
            total = self.add(total, grid, number, layout)
            sums.append(resize(total, layout.grids[number + 1], "area"))
        return sums
