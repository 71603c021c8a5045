"""Steps of a transformer, compiled: what a prior that draws one code after the other does most."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from genstack.prior.cache import Cache
from genstack.prior.crossing import Pair
from genstack.prior.masks import Mask
from genstack.prior.transformer import Transformer

Backend = str | Callable[..., Any]


class Steps:
    """A transformer's steps of one token, compiled; others are taken as they are.

    Args:
        transformer: whose steps.
        backend: of torch.compile.
        options: of it.
    """

    def __init__(self, transformer: Transformer, backend: Backend, options: dict[str, Any] | None):
        self.transformer = transformer
        self.compiled = torch.compile(
            self._one, fullgraph=True, dynamic=False, backend=backend, options=options
        )

    def __call__(
        self,
        tokens: Tensor,
        positions: Tensor,
        mask: Mask,
        caches: Sequence[Cache],
        steering: Tensor | None,
        pairs: Sequence[Pair],
    ) -> Tensor:
        filled = caches[0].filled
        if tokens.shape[1] > 1 or filled == 0:
            return self.transformer.forward(tokens, positions, mask, caches, steering, pairs)
        # A number would be compiled in; a side of a tensor can be any, but for 0 and 1.
        ruler = torch.empty(filled + 2)
        torch._dynamo.mark_dynamic(ruler, 0)
        memory = [(cache.length, cache.keys, cache.values) for cache in caches]
        features = self.compiled(tokens, positions, mask, memory, ruler, steering, pairs)
        for cache in caches:
            cache.filled += 1
        return features

    def _one(
        self,
        tokens: Tensor,
        positions: Tensor,
        mask: Mask,
        memory: Sequence[tuple[int, Tensor | None, Tensor | None]],
        ruler: Tensor,
        steering: Tensor | None,
        pairs: Sequence[Pair],
    ) -> Tensor:
        filled = ruler.shape[0] - 2
        caches = [Cache(length, filled, keys, values) for length, keys, values in memory]
        return self.transformer.forward(tokens, positions, mask, caches, steering, pairs)
