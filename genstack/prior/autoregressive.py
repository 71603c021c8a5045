"""Autoregressive prior (Esser et al. 2021, arXiv:2012.09841; Sun et al. 2024, arXiv:2406.06525)."""

from itertools import pairwise

import torch
from einops import rearrange
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.functional import pad

from genstack.conditions.condition import Condition
from genstack.errors import UserError
from genstack.layout import CodeLayout
from genstack.prior.regions import region_order
from genstack.prior.sequential import CachedTransformer, DecodingState, Sequential
from genstack.prior.symbols import Softmax, Symbols
from genstack.transformer.backbone import Backbone
from genstack.transformer.encoded_condition import EncodedCondition
from genstack.transformer.masks import BlockCausal, Causal, Mask
from genstack.transformer.neighbors import NeighborEmbedding
from genstack.transformer.positions import PositionEmbedding
from genstack.transformer.transformer import Transformer

ASSUMED_PASSES = 2.0  # over the images, in a training that does not say


class Autoregressive(Sequential):
    """Predict the next code from the condition and the codes so far, by a transformer.

    Args:
        layout: layout of the codes; set from the compressor.
        condition: condition of the prior; set from the data.
        backbone: configuration of the transformer.
        code_noise: share of input codes that are replaced at random in training, so that sampling recovers
            from mistakes (1 - pkeep in taming-transformers); 0 for none.
        neighbors: add the three codes above the predicted one to its token; attention takes hundreds of steps
            to find them.
        symbols: how codes are read and predicted: Softmax; Factorized for large codebooks;
            Bits or MaskedBits for codebooks of 2^n values.
        regions: rows and columns of regions of the grid whose codes are sampled in parallel (PAR,
            arXiv:2412.15119): 256 codes take 67 steps with 2,2 and 31 with 4,4. Codes of a step are
            independent given the codes of earlier steps.
    """

    repetitive = True
    #: Order of sampling, and the step of each token; None for one region.
    order: Tensor | None
    steps_of_tokens: Tensor | None

    def __init__(
        self,
        layout: CodeLayout,
        condition: Condition,
        backbone: Backbone = Backbone(),
        code_noise: float = 0.0,
        neighbors: bool = True,
        symbols: Symbols = Softmax(),
        regions: tuple[int, int] = (1, 1),
    ):
        super().__init__()
        if not 0 <= code_noise < 1:
            raise UserError(f"code_noise must be at least 0 and below 1, got {code_noise}")
        self.layout, self.condition = layout, condition
        self.backbone, self.code_noise, self.neighbors = backbone, code_noise, neighbors
        self.symbols, self.likelihood = symbols, symbols.likelihood(self.likelihood)
        self.regions, parallel = regions, regions != (1, 1)
        order = region_order(layout, regions)
        self.prefix = condition.embedding(backbone.width)
        self.codes = symbols.embedding(layout.codebook_size, backbone)
        self.prefix.share_codes(self.codes)
        self.target = PositionEmbedding(layout, backbone.width, absolute=parallel)
        self.neighbor_embedding = NeighborEmbedding(layout, backbone.width, regions[0]) if neighbors else None
        self.prefix_length = backbone.causal_prefix_length(condition.length)
        self.transformer = Transformer(layout, backbone, self.prefix_length)
        self.transformer.set_dropout(ASSUMED_PASSES)
        self.head = symbols.head(self.codes, bias=backbone.head_bias)
        self.distribution = symbols.distribution(layout.codebook_size, backbone)

        no_position = torch.full((self.prefix_length,), layout.length)
        steps = torch.cat([torch.arange(1 - self.prefix_length, 0), order.steps])
        self.register_buffer("positions", torch.cat([no_position, order.inputs]), persistent=False)
        self.register_buffer("targets", torch.cat([no_position[:-1], order.order]), persistent=False)
        self.register_buffer("steps_of_tokens", steps if parallel else None, persistent=False)
        self.register_buffer("order", order.order if parallel else None, persistent=False)
        self.bounds = order.bounds

    @property
    def sampling_order(self) -> Int[Tensor, " n"] | None:
        return self.order

    @property
    def mask(self) -> Mask:
        """Attention mask: a token sees the tokens of earlier steps and of its own step."""
        return Causal() if self.steps_of_tokens is None else BlockCausal(self.steps_of_tokens)

    def encode_condition(self, condition: Tensor) -> EncodedCondition:
        """Encode values of the condition, once for all codes."""
        padding_mask = self.condition.padding_mask(condition)
        return self.transformer.encode_condition(self.prefix(condition), padding_mask)

    def targets_and_inputs(self, codes: Int[Tensor, "b n"]) -> tuple[Int[Tensor, "b n"], Int[Tensor, "b n"]]:
        """Replace a share of the codes that are read by random ones."""
        noisy = torch.rand(codes.shape, device=codes.device) < self.code_noise
        return codes, torch.where(noisy, torch.randint_like(codes, self.layout.codebook_size), codes)

    def logits(self, codes: Int[Tensor, "b n"], condition: Tensor) -> Float[Tensor, "b n K"]:
        """Logits of every code given the codes before it, in float32."""
        encoded = self.encode_condition(condition)
        vectors, targets = self.codes(codes[:, :-1]), self.get_buffer("targets")
        positions = self.get_buffer("positions")
        inputs = vectors if self.order is None else vectors[:, positions[self.prefix_length :]]
        tokens = self.target(torch.cat([encoded.prefix, inputs], dim=1), targets)
        if self.neighbor_embedding is not None:
            tokens = self.neighbor_embedding(tokens, targets, pad(vectors, (0, 0, 1, 0)))
        features = self.transformer(
            tokens,
            positions,
            encoded.mask_padding(self.mask),
            conditioning=encoded.conditioning,
            key_values=encoded.key_values,
        )[:, self.prefix_length - 1 :]
        return self.head(features if self.order is None else features[:, self.order.argsort()]).float()

    def decoding_state(self, condition: Tensor) -> "TransformerState":
        return TransformerState(self, condition)


class TransformerState(DecodingState):
    """Decode a batch of sequences with a key-value cache: a step costs one token per row."""

    def __init__(self, prior: Autoregressive, condition: Tensor):
        self.prior, self.encoded = prior, prior.encode_condition(condition)
        self.distribution = prior.distribution
        positions, targets = (prior.get_buffer(name) for name in ("positions", "targets"))
        self.transformer = CachedTransformer(
            prior.transformer, self.encoded, prior.target, positions, targets
        )
        batch, _, width = self.encoded.prefix.shape
        #: A vector of zeros, then the vectors of the codes so far.
        self.vectors = self.encoded.prefix.new_zeros(batch, prior.layout.length, width)
        self.inputs, self.read = positions[prior.prefix_length :], 0
        self.written = self.inputs + 1
        if prior.order is not None:
            self.steps = [prior.order[start:end] for start, end in pairwise(prior.bounds)]

    def next_logits(self, codes: Int[Tensor, "n b"], index: int) -> Float[Tensor, "rows K"]:
        if index == 0:
            return self.start()
        start, end = (bound - 1 for bound in self.prior.bounds[index : index + 2])
        return self._next(self._embed(rearrange(codes[self.inputs[start:end]], "n b -> b n")))

    def start(self, known: Int[Tensor, "b known"] | None = None) -> Float[Tensor, "b K"]:
        """Logits of the first code, or of the one after known codes, which take one pass."""
        prefix = self.encoded.prefix
        tokens = prefix if known is None else torch.cat([prefix, self._embed(known)], dim=1)
        return self.transformer(self._add_neighbors(tokens), self.prior.head)

    def step(self, codes: Int[Tensor, " b"]) -> Float[Tensor, "b K"]:
        """Logits of the code after these, the latest of each row."""
        return self._next(self._embed(rearrange(codes, "b -> b 1")))

    def _embed(self, codes: Int[Tensor, "b n"]) -> Float[Tensor, "b n width"]:
        vectors = self.prior.codes(codes)
        now = slice(self.read, self.read + codes.shape[1])
        self.read = now.stop
        self.vectors = self.vectors.to(vectors.dtype).index_copy_(1, self.written[now], vectors)
        return vectors

    def _next(self, tokens: Float[Tensor, "b n width"]) -> Float[Tensor, "rows K"]:
        """Logits of the code that each token predicts."""
        tokens = self._add_neighbors(tokens)
        if tokens.shape[1] == 1:
            return self.transformer(tokens, self.prior.head)
        return self.prior.head(rearrange(self.transformer(tokens), "b n width -> (b n) width")).float()

    def _add_neighbors(self, tokens: Float[Tensor, "b n width"]) -> Float[Tensor, "b n width"]:
        if self.prior.neighbor_embedding is None:
            return tokens
        targets = self.transformer.targets[self.transformer.tokens :][: tokens.shape[1]]
        return self.prior.neighbor_embedding(tokens, targets, self.vectors)
