"""One code after the other (Esser et al. 2021, arXiv:2012.09841; Sun et al. 2024, arXiv:2406.06525)."""

import torch
from einops import rearrange
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from genstack.conditions.condition import Condition
from genstack.conditions.image_codes import CodeEmbedding
from genstack.errors import UserError
from genstack.layout import CodeLayout
from genstack.prior.guidance import Guidance
from genstack.prior.options import SamplingOptions
from genstack.prior.prior import Known, Prior
from genstack.prior.sampling import draw, uniforms
from genstack.transformer.backbone import Backbone
from genstack.transformer.encoded_condition import EncodedCondition
from genstack.transformer.masks import Causal
from genstack.transformer.positions import PositionEmbedding
from genstack.transformer.transformer import Transformer


class Autoregressive(Prior):
    """A transformer that reads the condition and the codes so far, and predicts the next code.

    Args:
        layout: where the codes lie; set from the compressor.
        condition: what steers the prior; set from the data.
        backbone: the plan of the transformer.
        code_noise: share of the codes it reads in training that are replaced at random, so that it learns to
            go on from mistakes, as it must in sampling (1 - pkeep in taming-transformers); 0 for none.
    """

    def __init__(
        self,
        layout: CodeLayout,
        condition: Condition,
        backbone: Backbone = Backbone(),
        code_noise: float = 0.0,
    ):
        super().__init__()
        if not 0 <= code_noise < 1:
            raise UserError(f"code_noise {code_noise} is out of range; it must be at least 0 and below 1")
        self.layout, self.condition = layout, condition
        self.backbone, self.code_noise = backbone, code_noise
        self.prefix = condition.embedding(backbone.width)
        self.codes = nn.Embedding(layout.codebook_size, backbone.width)
        if isinstance(self.prefix, CodeEmbedding):
            self.prefix.share(self.codes)
        self.target = PositionEmbedding(layout, backbone.width)
        self.transformer = Transformer(layout, backbone)
        self.head = nn.Linear(backbone.width, layout.codebook_size, bias=False)
        nn.init.normal_(self.codes.weight, std=0.02)
        nn.init.normal_(self.head.weight, std=0.02 / backbone.width**0.5)  # the loss starts at ln K

        self.prefix_length = backbone.prefix_length(condition.length)
        nowhere = torch.full((self.prefix_length,), layout.length)
        order = torch.arange(layout.length)
        self.register_buffer("positions", torch.cat([nowhere, order[:-1]]), persistent=False)
        self.register_buffer("targets", torch.cat([nowhere[:-1], order]), persistent=False)

    def encode_condition(self, condition: Tensor) -> EncodedCondition:
        """Values of the condition, read once for all codes."""
        padding_mask = self.condition.padding_mask(condition)
        return self.transformer.encode_condition(self.prefix(condition), padding_mask)

    def loss(self, codes: Int[Tensor, "b n"], condition: Tensor) -> Float[Tensor, ""]:
        """Mean cross entropy in nats per code; in training with condition dropout and code noise."""
        read = codes
        if self.training:
            condition = self.condition.drop(condition)
            noisy = torch.rand(codes.shape, device=codes.device) < self.code_noise
            read = torch.where(noisy, torch.randint_like(codes, self.layout.codebook_size), codes)
        return self._cross_entropy(codes, self.logits(read, condition)).mean()

    def nats(self, codes: Int[Tensor, "b n"], condition: Tensor) -> Float[Tensor, " b"]:
        return self._cross_entropy(codes, self.logits(codes, condition)).sum(dim=1)

    def logits(self, codes: Int[Tensor, "b n"], condition: Tensor) -> Float[Tensor, "b n K"]:
        """Logits of every code, each from the codes before it, in float32."""
        encoded = self.encode_condition(condition)
        tokens = torch.cat([encoded.prefix, self.codes(codes[:, :-1])], dim=1)
        tokens = self.target(tokens, self.get_buffer("targets"))
        mask = encoded.mask_padding(Causal())
        features = self.transformer(
            tokens,
            self.get_buffer("positions"),
            mask,
            conditioning=encoded.conditioning,
            key_values=encoded.key_values,
        )
        return self.head(features[:, self.prefix_length - 1 :]).float()

    def draw(
        self, guidance: Guidance, options: SamplingOptions, seeds: Int[Tensor, " b"], known: Known
    ) -> Int[Tensor, "b n"]:
        """One code after the other; a known code is seen by those after it in the flat sequence alone."""
        device, length = self.head.weight.device, self.layout.length
        numbers = rearrange(uniforms(seeds, length), "b n -> n b").to(device).contiguous()
        codes = torch.empty(length, len(seeds), dtype=torch.int64, device=device)
        decoding = Decoding(self, guidance.values)
        for index in range(length):
            logits = decoding.step(guidance.rows(codes[index - 1])) if index else decoding.start()
            logits = guidance.steer(logits, index / max(1, length - 1))
            drawn = draw(logits, options, numbers[index])
            codes[index] = torch.where(known.mask[:, index], known.codes[:, index], drawn)
        return rearrange(codes, "n b -> b n").contiguous()

    def _cross_entropy(
        self, codes: Int[Tensor, "b n"], logits: Float[Tensor, "b n K"]
    ) -> Float[Tensor, "b n"]:
        return cross_entropy(rearrange(logits, "b n K -> b K n"), codes, reduction="none")


class Decoding:
    """The way through one sequence for each row of a condition: `start`, then a `step` for each code.

    Keys and values of earlier tokens are kept, so that a step costs one token.
    """

    def __init__(self, prior: Autoregressive, condition: Tensor):
        self.prior, self.encoded = prior, prior.encode_condition(condition)
        self.mask = self.encoded.mask_padding(Causal())
        self.caches = prior.transformer.caches(prior.prefix_length + prior.layout.length - 1)
        self.tokens = 0

    def start(self, known: Int[Tensor, "b known"] | None = None) -> Float[Tensor, "b K"]:
        """Logits of the first code, or of the one after those that are known, which are read in one pass."""
        if known is None:
            return self._read(self.encoded.prefix)
        return self._read(torch.cat([self.encoded.prefix, self.prior.codes(known)], dim=1))

    def step(self, codes: Int[Tensor, " b"]) -> Float[Tensor, "b K"]:
        """Logits of the code after these, the latest of each row."""
        return self._read(self.prior.codes(rearrange(codes, "b -> b 1")))

    def _read(self, tokens: Float[Tensor, "b n width"]) -> Float[Tensor, "b K"]:
        now = slice(self.tokens, self.tokens + tokens.shape[1])
        self.tokens = now.stop
        tokens = self.prior.target(tokens, self.prior.get_buffer("targets")[now])
        places = self.prior.get_buffer("positions")[now]
        step, head = self.prior.transformer.step, self.prior.head
        return step(tokens, places, self.mask, self.caches, self.encoded, head)
