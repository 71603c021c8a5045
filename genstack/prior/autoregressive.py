"""One code after the other (Esser et al. 2021, arXiv:2012.09841; Sun et al. 2024, arXiv:2406.06525)."""

import torch
from einops import rearrange
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from genstack.errors import UserError
from genstack.layout import CodeLayout
from genstack.prior.condition import Condition
from genstack.prior.masks import Causal
from genstack.prior.positions import PlaceEmbedding
from genstack.prior.prior import Prior, SamplingOptions
from genstack.prior.sampling import draw, guide, uniforms
from genstack.prior.transformer import Backbone, Transformer


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
        self.target = PlaceEmbedding(layout, backbone.width)
        self.transformer = Transformer(layout, backbone)
        self.head = nn.Linear(backbone.width, layout.codebook_size, bias=False)
        nn.init.normal_(self.codes.weight, std=0.02)
        nn.init.normal_(self.head.weight, std=0.02 / backbone.width**0.5)  # the loss starts at ln K

        nowhere = torch.full((condition.length,), layout.length)
        order = torch.arange(layout.length)
        self.register_buffer("places", torch.cat([nowhere, order[:-1]]), persistent=False)
        self.register_buffer("targets", torch.cat([nowhere[:-1], order]), persistent=False)

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
        tokens = torch.cat([self.prefix(condition), self.codes(codes[:, :-1])], dim=1)
        tokens = self.target(tokens, self.get_buffer("targets"))
        features = self.transformer(tokens, self.get_buffer("places"), Causal())
        return self.head(features[:, self.condition.length - 1 :]).float()

    def sample(
        self, condition: Tensor, options: SamplingOptions, seeds: Int[Tensor, " b"]
    ) -> Int[Tensor, "b n"]:
        if options.guidance != 1 and self.condition.dropout == 0:
            raise UserError(
                f"guidance {options.guidance} needs a prior trained with condition dropout, unlike this one; "
                f"use guidance 1, or train one with the condition's `dropout` above 0"
            )
        training = self.training
        self.eval()
        try:
            with torch.inference_mode():
                codes = self._sample(condition, options, seeds)
            return codes.clone()  # outside of inference mode, so that the codes may also train something
        finally:
            self.train(training)

    def _sample(
        self, condition: Tensor, options: SamplingOptions, seeds: Int[Tensor, " b"]
    ) -> Int[Tensor, "b n"]:
        device = self.head.weight.device
        condition = condition.to(device)
        steered = options.guidance not in (0, 1)
        if steered:
            condition = torch.cat([condition, self.condition.null(condition)])
        elif options.guidance == 0:
            condition = self.condition.null(condition)
        numbers = rearrange(uniforms(seeds, self.layout.length), "b n -> n b").to(device).contiguous()
        codes = torch.empty(self.layout.length, len(seeds), dtype=torch.int64, device=device)
        decoding = Decoding(self, condition)
        for index in range(self.layout.length):
            logits = decoding.step(codes[index - 1].repeat(1 + steered)) if index else decoding.start()
            if steered:
                conditional, null = logits.chunk(2)
                logits = guide(conditional, null, options.guidance)
            codes[index] = draw(logits, options, numbers[index])
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
        self.prior, self.condition = prior, condition
        self.caches = prior.transformer.caches(prior.condition.length + prior.layout.length - 1)
        self.tokens = 0

    def start(self) -> Float[Tensor, "b K"]:
        """Logits of the first code."""
        return self._read(self.prior.prefix(self.condition))

    def step(self, codes: Int[Tensor, " b"]) -> Float[Tensor, "b K"]:
        """Logits of the code after these, the latest of each row."""
        return self._read(self.prior.codes(rearrange(codes, "b -> b 1")))

    def _read(self, tokens: Float[Tensor, "b n width"]) -> Float[Tensor, "b K"]:
        now = slice(self.tokens, self.tokens + tokens.shape[1])
        self.tokens = now.stop
        tokens = self.prior.target(tokens, self.prior.get_buffer("targets")[now])
        places = self.prior.get_buffer("places")[now]
        # Not by __call__: a compiled transformer would be compiled again for every length of the cache.
        features = self.prior.transformer.forward(tokens, places, Causal(), self.caches)
        return self.prior.head(features[:, -1]).float()
