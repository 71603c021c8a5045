"""A transformer that predicts masked codes, and its bound on the likelihood (arXiv:2107.03006, 2110.02037).

Masked priors and absorbing diffusion share this network. If each code is masked by time t with probability t,
the bound of absorbing diffusion in continuous time (MDLM, arXiv:2406.07524) is the integral over t of 1 / t
times the cross entropy of the masked codes. The number k of masked codes, of n, is then uniform, and the mean
of 1 / t given k > 0 is (n + 1) / k. What remains is n times the mean over k = 1 ... n of the mean cross
entropy of k masked codes. It is also the bound of a model that samples codes one by one in a random order
(arXiv:2110.02037, equation 3).
"""

from dataclasses import replace

import numpy as np
import torch
from einops import rearrange
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from genstack.conditions.condition import Condition
from genstack.layout import CodeLayout
from genstack.prior.logits import uniforms
from genstack.prior.masked_network import MaskedNetwork
from genstack.prior.symbols import Symbols
from genstack.transformer.backbone import Backbone
from genstack.transformer.encoded_condition import EncodedCondition
from genstack.transformer.head import JointHead


class MaskedTransformer(MaskedNetwork):
    """Predict masked codes from the condition and the other codes, by a transformer.

    Args:
        layout: layout of the codes.
        condition: condition of the prior.
        backbone: configuration of the transformer.
        symbols: how codes are read and predicted.
        predict_mask: make the mask one more code, which is predicted, too.
        joint: read and predict all symbols of a position by one token.
    """

    def __init__(
        self,
        layout: CodeLayout,
        condition: Condition,
        backbone: Backbone,
        symbols: Symbols,
        predict_mask: bool = False,
        joint: bool = False,
    ):
        depth = layout.depth if joint else 1
        super().__init__(replace(layout, depth=layout.depth // depth), condition, backbone)
        #: Layout of the codes, and symbols of a token.
        self.layout, self.depth = layout, depth
        shape = (depth, backbone.width) if joint else (backbone.width,)
        self.codes = symbols.embedding(layout.codebook_size + predict_mask, backbone, tables=depth)
        self.mask_token = None if predict_mask else nn.Parameter(0.02 * torch.randn(shape))
        heads = [symbols.head(self.codes, place, depth, backbone.head_bias) for place in range(depth)]
        self.head = JointHead(heads, backbone.width) if joint else heads[0]
        self.distribution = symbols.distribution(layout.codebook_size + predict_mask, backbone)

    def forward(
        self,
        codes: Int[Tensor, "b n"],
        masked: Bool[Tensor, "b n"],
        selected: Bool[Tensor, "b n"],
        encoded: EncodedCondition,
    ) -> Float[Tensor, "selected K"]:
        """Logits of the selected codes, image by image, in float32.

        Args:
            codes: codes of each image; arbitrary where masked.
            masked: True for codes that are not read.
            selected: True for codes whose logits are returned.
            encoded: the condition.
        """
        features = self.features(self.embed(codes, masked), encoded)
        if isinstance(self.head, JointHead):
            return self.head(features)[selected].float()
        return self.head(features[selected]).float()

    def embed(
        self, codes: Int[Tensor, "b n"], masked: Bool[Tensor, "b n"]
    ) -> Float[Tensor, "b tokens width"]:
        """Tokens: sums of the vectors of a position's codes, or of the mask where it is True."""
        if self.mask_token is None:
            codes = codes.masked_fill(masked, self.layout.codebook_size)
        rows = torch.arange(self.depth, device=codes.device) * (self.codes.num_embeddings // self.depth)
        vectors = self.codes(rearrange(codes, "b (p depth) -> b p depth", depth=self.depth) + rows)
        if self.mask_token is not None:
            masked = rearrange(masked, "b (p depth) -> b p depth 1", depth=self.depth)
            vectors = torch.where(masked, self.mask_token, vectors)
        return vectors.sum(dim=2)

    def masked_nats(
        self, codes: Int[Tensor, "b n"], masked: Bool[Tensor, "b n"], encoded: EncodedCondition
    ) -> Float[Tensor, " b"]:
        """Mean cross entropy of each image's masked codes, in nats."""
        losses = self.distribution.nats(self(codes, masked, masked, encoded), codes[masked])
        losses = torch.zeros(masked.shape, device=losses.device).masked_scatter(masked, losses)
        return losses.sum(dim=1) / masked.sum(dim=1)

    def nats_bound(self, codes: Int[Tensor, "b n"], condition: Tensor, masks: int) -> Float[Tensor, " b"]:
        """Estimate the upper bound on each image's negative log-likelihood, in nats.

        The expectation is the bound in this module's docstring. Masks are seeded by the codes, so an image
        always gets the same estimate, and errors of different images average out.

        Args:
            codes: codes of each image.
            condition: values of the condition.
            masks: number of random masks, stratified by the number of masked codes.
        """
        length = self.layout.length
        noise = uniforms(hash_codes(codes), masks * (length + 1))
        encoded, total = self.encode_condition(condition), torch.zeros(len(codes), device=codes.device)
        for index, part in enumerate(rearrange(noise, "b (masks n) -> masks b n", masks=masks)):
            share, scores = part.split([1, length], dim=1)
            counts = ((index + share[:, 0]) / masks * length).long().clamp(max=length - 1) + 1
            total = total + self.masked_nats(codes, lowest_k(scores, counts), encoded)
        return total * (length / masks)


def lowest_k(scores: Float[Tensor, "b n"], counts: Int[Tensor, " b"]) -> Bool[Tensor, "b n"]:
    """Mark the `counts` lowest scores of each row."""
    ranks = scores.argsort(dim=1, stable=True).argsort(dim=1, stable=True)
    return ranks < rearrange(counts, "b -> b 1")


def stratified_uniforms(batch: int, device: torch.device) -> Float[Tensor, " b"]:
    """Random numbers in [0, 1), spread evenly over the batch (arXiv:2107.00630)."""
    strata = torch.randperm(batch, device=device)
    return ((strata + torch.rand((), device=device)) / batch).clamp(max=1 - 2**-24)


def hash_codes(codes: Int[Tensor, "b n"]) -> Int[Tensor, " b"]:
    """Hash each row of codes to a seed: the sum modulo 2^64 of codes times odd multipliers."""
    multipliers = np.random.Philox(key=0).random_raw(codes.shape[1]).view(np.int64) | 1
    return ((codes + 1) * torch.from_numpy(multipliers).to(codes.device)).sum(dim=1)
