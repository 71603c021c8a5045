"""Autoregressive prior in random orders, annealed to raster order (RAR, Yu et al., arXiv:2411.00776)."""

import torch
from einops import rearrange, repeat
from jaxtyping import Float, Int
from torch import Tensor

from genstack.conditions.condition import Condition
from genstack.errors import UserError
from genstack.layout import CodeLayout
from genstack.prior.code_prior import CodePrior
from genstack.prior.guidance import Guidance
from genstack.prior.known import Known
from genstack.prior.logits import uniforms
from genstack.prior.options import SamplingOptions
from genstack.prior.order import FixedOrder, Raster
from genstack.prior.sequential import CachedTransformer, DecodingState, sample_sequence
from genstack.prior.symbols import Softmax, Symbols
from genstack.transformer.backbone import Backbone
from genstack.transformer.encoded_condition import EncodedCondition
from genstack.transformer.masks import Causal
from genstack.transformer.positions import PositionEmbedding
from genstack.transformer.transformer import Transformer


class RandomOrder(CodePrior):
    """Predict the next code in any order, by a transformer that also reads the position of that code.

    In training, an image is read in a random order with a probability that falls from 1 to 0, and otherwise
    in raster order, the order of the flat sequence. `nats` is exact, and measured in raster order.

    Args:
        layout: layout of the codes; set from the compressor.
        condition: condition of the prior; set from the data.
        backbone: configuration of the transformer.
        anneal: start and end of the transition from random orders to raster order, as shares of training;
            1,1 keeps random orders, which inpainting and sampling in other orders need.
        order: order of sampling: Raster, Random or Halton; known codes come first in each of them.
        symbols: how codes are read and predicted: Softmax; Factorized for large codebooks;
            Bits or MaskedBits for codebooks of 2^n values.
    """

    context = "all"

    def __init__(
        self,
        layout: CodeLayout,
        condition: Condition,
        backbone: Backbone = Backbone(),
        anneal: tuple[float, float] = (0.5, 0.75),
        order: FixedOrder = Raster(),
        symbols: Symbols = Softmax(),
    ):
        super().__init__()
        if not 0 <= anneal[0] <= anneal[1] <= 1:
            raise UserError(f"anneal must be two shares from 0 to 1, the smaller first; got {anneal}")
        self.layout, self.condition, self.backbone = layout, condition, backbone
        self.anneal, self.order = anneal, order
        self.symbols, self.likelihood = symbols, symbols.likelihood(self.likelihood)
        self.prefix_length = backbone.causal_prefix_length(condition.length)
        self.progress = 0.0
        self.prefix = condition.embedding(backbone.width)
        self.codes = symbols.embedding(layout.codebook_size, backbone)
        self.target = PositionEmbedding(layout, backbone.width, absolute=True)
        self.transformer = Transformer(layout, backbone, self.prefix_length)
        self.head = symbols.head(self.codes, bias=backbone.head_bias)
        self.distribution = symbols.distribution(layout.codebook_size, backbone)

    def before_step(self, progress: float) -> None:
        self.progress = progress

    @property
    def randomness(self) -> float:
        """Probability of a random order at this point of training."""
        first, last = self.anneal
        if self.progress < first:
            return 1.0
        return max(0.0, (last - self.progress) / (last - first)) if first < last else 0.0

    def encode_condition(self, condition: Tensor) -> EncodedCondition:
        """Encode values of the condition, once for all codes."""
        padding_mask = self.condition.padding_mask(condition)
        return self.transformer.encode_condition(self.prefix(condition), padding_mask)

    def loss(self, codes: Int[Tensor, "b n"], condition: Tensor) -> Float[Tensor, ""]:
        """Mean cross entropy in nats per code; in training with random orders and condition dropout."""
        orders = self.raster(codes)
        if self.training:
            condition = self.condition.drop(condition)
            shuffled = torch.rand(codes.shape, device=codes.device).argsort(dim=1)
            random = torch.rand(len(codes), 1, device=codes.device) < self.randomness
            orders = torch.where(random, shuffled, orders)
        return self._cross_entropy(codes, condition, orders).mean()

    def nats(self, codes: Int[Tensor, "b n"], condition: Tensor) -> Float[Tensor, " b"]:
        return self._cross_entropy(codes, condition, self.raster(codes)).sum(dim=1)

    def raster(self, codes: Int[Tensor, "b n"]) -> Int[Tensor, "b n"]:
        """Raster order for each image."""
        return torch.arange(self.layout.length, device=codes.device).expand_as(codes)

    def logits(
        self, codes: Int[Tensor, "b n"], condition: Tensor, orders: Int[Tensor, "b n"]
    ) -> Float[Tensor, "b n K"]:
        """Logits of every code given those before it in the image's order; in that order, in float32.

        Args:
            codes: codes in raster order.
            condition: values of the condition.
            orders: index in the flat sequence of each image's first code, its second, and so on.
        """
        inputs = self.codes(codes.gather(1, orders)[:, :-1])
        positions, targets = self._paths(orders)
        encoded = self.encode_condition(condition)
        tokens = self.target(torch.cat([encoded.prefix, inputs], dim=1), targets)
        mask = encoded.mask_padding(Causal())
        features = self.transformer(
            tokens, positions, mask, conditioning=encoded.conditioning, key_values=encoded.key_values
        )
        return self.head(features[:, self.prefix_length - 1 :]).float()

    def sample_codes(
        self, guidance: Guidance, options: SamplingOptions, seeds: Int[Tensor, " b"], known: Known
    ) -> Int[Tensor, "b n"]:
        """Sample one code after the other; known codes come first in the order, so all others see them."""
        length = self.layout.length
        noise = uniforms(seeds, (1 + self.distribution.numbers) * length).to(known.values.device)
        order_noise, code_noise = noise[:, :length], noise[:, length:]
        ranks = self.order.ranks(self.layout, order_noise)
        orders = (ranks - known.mask * float(length + 1)).argsort(dim=1, stable=True)
        ordered = Known(known.values.gather(1, orders), known.mask.gather(1, orders))
        start = min(int(known.mask.sum(dim=1).amin()), length - 1)  # these take one pass
        state = OrderState(self, guidance.values, *self._paths(guidance.expand(orders)))
        codes = sample_sequence(state, guidance, options, code_noise, ordered, start)
        return torch.empty_like(codes).scatter(1, orders, codes)

    def _paths(self, orders: Int[Tensor, "b n"]) -> tuple[Int[Tensor, "b tokens"], Int[Tensor, "b tokens"]]:
        """Position of each token's own code, and of the code that it predicts."""
        no_position = torch.tensor(self.layout.length, device=orders.device)
        no_position = repeat(no_position, " -> b n", b=len(orders), n=self.prefix_length)
        positions = torch.cat([no_position, orders[:, :-1]], dim=1)
        return positions, torch.cat([no_position[:, 1:], orders], dim=1)

    def _cross_entropy(
        self, codes: Int[Tensor, "b n"], condition: Tensor, orders: Int[Tensor, "b n"]
    ) -> Float[Tensor, "b n"]:
        return self.distribution.nats(self.logits(codes, condition, orders), codes.gather(1, orders))


class OrderState(DecodingState):
    """Decode a batch of sequences, each in its own order, with a key-value cache.

    Args:
        prior: the prior.
        condition: values of its condition, one row per sequence.
        positions: position of each token's own code.
        targets: position of the code that each token predicts.
    """

    def __init__(
        self,
        prior: RandomOrder,
        condition: Tensor,
        positions: Int[Tensor, "b tokens"],
        targets: Int[Tensor, "b tokens"],
    ):
        self.prior, self.encoded = prior, prior.encode_condition(condition)
        self.distribution = prior.distribution
        self.transformer = CachedTransformer(
            prior.transformer, self.encoded, prior.target, positions, targets
        )

    def next_logits(self, codes: Int[Tensor, "n b"], index: int) -> Float[Tensor, "b K"]:
        first = self.transformer.tokens == 0
        read = codes[:index] if first else codes[index - 1 : index]
        tokens = self.prior.codes(rearrange(read, "n b -> b n"))
        if first:
            tokens = torch.cat([self.encoded.prefix, tokens], dim=1)
        return self.transformer(tokens, self.prior.head)
