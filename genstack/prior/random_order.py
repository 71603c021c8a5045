"""One code after the other, in random orders that become raster order (RAR, Yu et al., arXiv:2411.00776)."""

import torch
from einops import rearrange, repeat
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from genstack.conditions.condition import Condition
from genstack.errors import UserError
from genstack.layout import CodeLayout
from genstack.prior.guidance import Guidance
from genstack.prior.options import SamplingOptions
from genstack.prior.order import FixedOrder, Raster
from genstack.prior.prior import Known, Prior
from genstack.prior.sampling import draw, uniforms
from genstack.transformer.backbone import Backbone
from genstack.transformer.encoded_condition import EncodedCondition
from genstack.transformer.masks import Causal
from genstack.transformer.positions import PositionEmbedding
from genstack.transformer.transformer import Transformer


class RandomOrder(Prior):
    """A transformer that predicts the next code of any order, told where it lies.

    In training, an image is read in a random order with a probability of 1 at first and 0 in the end, and
    otherwise in raster order, that of the flat sequence. `nats` is that of raster order, and exact.

    Args:
        layout: where the codes lie; set from the compressor.
        condition: what steers the prior; set from the data.
        backbone: the plan of the transformer.
        anneal: shares of the training between which random orders give way to raster order; 1 and 1 keep all
            orders random, for in-filling and for sampling in other orders, which both need them.
        order: how codes are drawn: Raster, Random or Halton; those that are known come first in any of them.
    """

    sees = "all"

    def __init__(
        self,
        layout: CodeLayout,
        condition: Condition,
        backbone: Backbone = Backbone(),
        anneal: tuple[float, float] = (0.5, 0.75),
        order: FixedOrder = Raster(),
    ):
        super().__init__()
        if not 0 <= anneal[0] <= anneal[1] <= 1:
            raise UserError(
                f"anneal {anneal} is out of range; two shares from 0 to 1 are needed, smaller first"
            )
        self.layout, self.condition, self.backbone = layout, condition, backbone
        self.anneal, self.order = anneal, order
        self.prefix_length = backbone.prefix_length(condition.length)
        self.progress = 0.0
        self.prefix = condition.embedding(backbone.width)
        self.codes = nn.Embedding(layout.codebook_size, backbone.width)
        self.target = PositionEmbedding(layout, backbone.width, absolute=True)
        self.transformer = Transformer(layout, backbone)
        self.head = nn.Linear(backbone.width, layout.codebook_size, bias=False)
        nn.init.normal_(self.codes.weight, std=0.02)
        nn.init.normal_(self.head.weight, std=0.02 / backbone.width**0.5)  # the loss starts at ln K

    def before_step(self, progress: float) -> None:
        self.progress = progress

    @property
    def randomness(self) -> float:
        """The probability of a random order at this point of the training."""
        first, last = self.anneal
        if self.progress < first:
            return 1.0
        return max(0.0, (last - self.progress) / (last - first)) if first < last else 0.0

    def encode_condition(self, condition: Tensor) -> EncodedCondition:
        """Values of the condition, read once for all codes."""
        padding_mask = self.condition.padding_mask(condition)
        return self.transformer.encode_condition(self.prefix(condition), padding_mask)

    def loss(self, codes: Int[Tensor, "b n"], condition: Tensor) -> Float[Tensor, ""]:
        """Mean cross entropy in nats per code, in training with random orders and condition dropout."""
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
        """The order of the flat sequence, for each image."""
        return torch.arange(self.layout.length, device=codes.device).expand_as(codes)

    def logits(
        self, codes: Int[Tensor, "b n"], condition: Tensor, orders: Int[Tensor, "b n"]
    ) -> Float[Tensor, "b n K"]:
        """Logits of every code, each from those before it in its image's order; in this order, in float32.

        Args:
            codes: in the order of the flat sequence.
            condition: values of the condition.
            orders: the place in the flat sequence of each image's first code, of its second, and so on.
        """
        read = self.codes(codes.gather(1, orders)[:, :-1])
        places, targets = self._paths(orders)
        encoded = self.encode_condition(condition)
        tokens = self.target(torch.cat([encoded.prefix, read], dim=1), targets)
        mask = encoded.mask_padding(Causal())
        features = self.transformer(
            tokens, places, mask, conditioning=encoded.conditioning, key_values=encoded.key_values
        )
        return self.head(features[:, self.prefix_length - 1 :]).float()

    def draw(
        self, guidance: Guidance, options: SamplingOptions, seeds: Int[Tensor, " b"], known: Known
    ) -> Int[Tensor, "b n"]:
        """One code after the other; known codes come first in the order, so that all others see them."""
        device, length = self.head.weight.device, self.layout.length
        numbers = rearrange(uniforms(seeds, 2 * length).to(device), "b (two n) -> two b n", two=2)
        ranks = self.order.ranks(self.layout, numbers[0])
        orders = (ranks - known.mask * float(length + 1)).argsort(dim=1, stable=True)
        # From here on all is in the order of drawing.
        codes, given = known.codes.gather(1, orders), known.mask.gather(1, orders)
        chances = rearrange(numbers[1], "b n -> n b").contiguous()
        places, targets = (guidance.rows(path) for path in self._paths(orders))
        caches = self.transformer.caches(self.prefix_length + length - 1)
        start = min(int(given.sum(dim=1).amin()), length - 1)  # so many codes are read in one pass
        encoded = self.encode_condition(guidance.values)
        mask = encoded.mask_padding(Causal())
        tokens = torch.cat([encoded.prefix, self.codes(guidance.rows(codes[:, :start]))], dim=1)
        filled = 0
        for index in range(start, length):
            now = slice(filled, filled + tokens.shape[1])
            filled = now.stop
            tokens = self.target(tokens, targets[:, now])
            logits = self.transformer.step(tokens, places[:, now], mask, caches, encoded, self.head)
            logits = guidance.steer(logits, index / max(1, length - 1))
            drawn = draw(logits, options, chances[index])
            codes[:, index] = torch.where(given[:, index], codes[:, index], drawn)
            tokens = self.codes(guidance.rows(codes[:, index : index + 1]))
        return torch.empty_like(codes).scatter(1, orders, codes)

    def _paths(self, orders: Int[Tensor, "b n"]) -> tuple[Int[Tensor, "b tokens"], Int[Tensor, "b tokens"]]:
        """Where the code of each token lies, and the code that it predicts."""
        nowhere = torch.tensor(self.layout.length, device=orders.device)
        nowhere = repeat(nowhere, " -> b n", b=len(orders), n=self.prefix_length)
        return torch.cat([nowhere, orders[:, :-1]], dim=1), torch.cat([nowhere[:, 1:], orders], dim=1)

    def _cross_entropy(
        self, codes: Int[Tensor, "b n"], condition: Tensor, orders: Int[Tensor, "b n"]
    ) -> Float[Tensor, "b n"]:
        logits = self.logits(codes, condition, orders)
        return cross_entropy(rearrange(logits, "b n K -> b K n"), codes.gather(1, orders), reduction="none")
