"""A transformer that fills in hidden codes, and its bound on the likelihood (arXiv:2107.03006, 2110.02037).

Masked priors and absorbing diffusion are this one network. Where each code is hidden by time t with
probability t, the bound of absorbing diffusion in continuous time (MDLM, arXiv:2406.07524) is the integral
over t of 1 / t times the cross entropy of the hidden codes. How many of n codes are hidden, k, is then
uniform, and given k > 0 the mean of 1 / t is (n + 1) / k; what remains is n times the mean over k = 1 ... n
of the mean cross entropy of k hidden codes. That is also the bound of a model that draws the codes one by one
in a random order (arXiv:2110.02037, equation 3).
"""

import numpy as np
import torch
from einops import rearrange
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from genstack.conditions.condition import Condition
from genstack.layout import CodeLayout
from genstack.prior.sampling import uniforms
from genstack.transformer.backbone import Backbone
from genstack.transformer.encoded_condition import EncodedCondition
from genstack.transformer.masks import Full
from genstack.transformer.positions import IndexEmbedding
from genstack.transformer.transformer import Transformer


class MaskedTransformer(nn.Module):
    """A transformer that reads the condition and the codes that are not hidden, and predicts the hidden ones.

    Args:
        layout: where the codes lie.
        condition: what steers the prior.
        backbone: the plan of the transformer.
    """

    def __init__(self, layout: CodeLayout, condition: Condition, backbone: Backbone):
        super().__init__()
        self.layout, self.condition, self.backbone = layout, condition, backbone
        self.prefix = condition.embedding(backbone.width)
        self.codes = nn.Embedding(
            layout.codebook_size + 1, backbone.width
        )  # the last stands for a hidden one
        # A vector for each place: hidden codes look alike, and rotary angles alone would not tell them apart.
        self.position_embedding = IndexEmbedding(torch.arange(layout.length), layout.length, backbone.width)
        self.transformer = Transformer(layout, backbone)
        self.head = nn.Linear(backbone.width, layout.codebook_size, bias=False)
        nn.init.normal_(self.codes.weight, std=0.02)
        nn.init.normal_(self.head.weight, std=0.02 / backbone.width**0.5)  # the loss starts at ln K

        self.prefix_length = backbone.prefix_length(condition.length)
        nowhere = torch.full((self.prefix_length,), layout.length)
        self.register_buffer("positions", torch.cat([nowhere, torch.arange(layout.length)]), persistent=False)

    def encode_condition(self, condition: Tensor) -> EncodedCondition:
        """Values of the condition, read once for all passes over the same images."""
        padding_mask = self.condition.padding_mask(condition)
        return self.transformer.encode_condition(self.prefix(condition), padding_mask)

    def forward(
        self,
        codes: Int[Tensor, "b n"],
        hidden: Bool[Tensor, "b n"],
        encoded: EncodedCondition,
        asked: Bool[Tensor, "b n"],
    ) -> Float[Tensor, "asked K"]:
        """Logits of the codes that are asked for, image by image, in float32.

        Args:
            codes: of each image; those that are hidden may be any.
            hidden: True where a code is not to be seen.
            reading: of the condition.
            asked: True where logits are wanted.
        """
        read = codes.masked_fill(hidden, self.layout.codebook_size)
        places = self.get_buffer("positions")
        tokens = torch.cat([encoded.prefix, self.codes(read)], dim=1) + self.position_embedding(places)
        mask = encoded.mask_padding(Full())
        features = self.transformer(
            tokens, places, mask, conditioning=encoded.conditioning, key_values=encoded.key_values
        )
        return self.head(features[:, self.prefix_length :][asked]).float()

    def surprise(
        self, codes: Int[Tensor, "b n"], hidden: Bool[Tensor, "b n"], encoded: EncodedCondition
    ) -> Float[Tensor, " b"]:
        """Mean cross entropy of the hidden codes of each image, in nats."""
        losses = cross_entropy(self(codes, hidden, encoded, hidden), codes[hidden], reduction="none")
        places = torch.zeros(hidden.shape, device=losses.device).masked_scatter(hidden, losses)
        return places.sum(dim=1) / hidden.sum(dim=1)

    def bound(self, codes: Int[Tensor, "b n"], condition: Tensor, masks: int) -> Float[Tensor, " b"]:
        """An estimate of the upper bound on each image's negative log-likelihood, in nats.

        Its expectation is the bound of this module's docstring. Chance follows from the codes alone, so that
        the number of an image is always the same, and errors of different images even out.

        Args:
            codes: of each image.
            condition: values of the condition.
            masks: how many ways to hide codes are tried, each from an equal part of the possible numbers of
                hidden codes.
        """
        length = self.layout.length
        numbers = uniforms(fingerprints(codes), masks * (length + 1))
        encoded, total = self.encode_condition(condition), torch.zeros(len(codes), device=codes.device)
        for index, part in enumerate(rearrange(numbers, "b (masks n) -> masks b n", masks=masks)):
            share, scores = part.split([1, length], dim=1)
            counts = ((index + share[:, 0]) / masks * length).long().clamp(max=length - 1) + 1
            total = total + self.surprise(codes, lowest(scores, counts), encoded)
        return total * (length / masks)


def lowest(scores: Float[Tensor, "b n"], counts: Int[Tensor, " b"]) -> Bool[Tensor, "b n"]:
    """True for so many of the lowest scores of each row."""
    ranks = scores.argsort(dim=1, stable=True).argsort(dim=1, stable=True)
    return ranks < rearrange(counts, "b -> b 1")


def spread(batch: int, device: torch.device) -> Float[Tensor, " b"]:
    """A random number in [0, 1) for each image, spread evenly over the batch (arXiv:2107.00630)."""
    places = torch.randperm(batch, device=device)
    return ((places + torch.rand((), device=device)) / batch).clamp(max=1 - 2**-24)


def fingerprints(codes: Int[Tensor, "b n"]) -> Int[Tensor, " b"]:
    """A seed for each row of codes, from the codes alone; sums modulo 2^64 of codes by odd multipliers."""
    multipliers = np.random.Philox(key=0).random_raw(codes.shape[1]).view(np.int64) | 1
    return ((codes + 1) * torch.from_numpy(multipliers).to(codes.device)).sum(dim=1)
