"""Steps of a transformer, compiled: what a prior that draws one code after the other does most."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from genstack.transformer.cache import Cache
from genstack.transformer.cross_attention import KeyValuePair
from genstack.transformer.masks import Mask
from genstack.transformer.transformer import Transformer

Backend = str | Callable[..., Any]


class Steps:
    """A transformer's steps of one token, compiled; others are taken as they are.

    The transformer and its head are compiled in as they are at the first step: whether they changed is not
    looked at again, which would take longer than what is looked at.

    Args:
        transformer: whose steps.
        backend: of torch.compile.
        options: of it.
    """

    def __init__(self, transformer: Transformer, backend: Backend, options: dict[str, Any]):
        self.transformer = transformer
        given = {**options, "guard_filter_fn": torch.compiler.skip_guard_on_all_nn_modules_unsafe}
        self.compiled = torch.compile(
            self._one, fullgraph=True, dynamic=False, backend=backend, options=given
        )

    def __call__(
        self,
        tokens: Tensor,
        positions: Tensor,
        mask: Mask,
        caches: Sequence[Cache],
        steering: Tensor | None,
        pairs: Sequence[KeyValuePair],
        head: nn.Module | None,
    ) -> Tensor:
        filled = caches[0].filled
        if tokens.shape[1] > 1 or filled == 0:
            return self.transformer.forward(tokens, positions, mask, caches, steering, pairs, head)
        # A number would be compiled in; a side of a tensor can be any, but for 0 and 1.
        ruler = torch.empty(filled + 2)
        torch._dynamo.mark_dynamic(ruler, 0)
        memory = [(cache.length, cache.keys, cache.values) for cache in caches]
        made = self.compiled(tokens, positions, mask, memory, ruler, steering, pairs, head)
        for cache in caches:
            cache.filled += 1
        return made

    def _one(
        self,
        tokens: Tensor,
        positions: Tensor,
        mask: Mask,
        memory: Sequence[tuple[int, Tensor | None, Tensor | None]],
        ruler: Tensor,
        steering: Tensor | None,
        pairs: Sequence[KeyValuePair],
        head: nn.Module | None,
    ) -> Tensor:
        filled = ruler.shape[0] - 2
        caches = [Cache(length, filled, keys, values) for length, keys, values in memory]
        return self.transformer.forward(tokens, positions, mask, caches, steering, pairs, head)
