"""Compiled single-token steps of a transformer, which dominate autoregressive sampling."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from genstack.transformer.cache import Cache
from genstack.transformer.cross_attention import KeyValuePair
from genstack.transformer.masks import Mask
from genstack.transformer.transformer import Transformer

Backend = str | Callable[..., Any]


class CompiledStep:
    """Run a transformer's steps of one token compiled, and all others eagerly.

    Guards on modules are skipped, since checking them takes longer than a step: neither the transformer nor
    its head may change while this is in use.

    Args:
        transformer: the transformer to compile.
        backend: backend of torch.compile.
        options: options of the backend.
    """

    def __init__(self, transformer: Transformer, backend: Backend, options: dict[str, Any]):
        self.transformer = transformer
        options = {**options, "guard_filter_fn": torch.compiler.skip_guard_on_all_nn_modules_unsafe}
        self.compiled = torch.compile(
            self._step, fullgraph=True, dynamic=False, backend=backend, options=options
        )

    def __call__(
        self,
        tokens: Tensor,
        positions: Tensor,
        mask: Mask,
        caches: Sequence[Cache],
        conditioning: Tensor | None,
        key_values: Sequence[KeyValuePair],
        head: nn.Module | None,
    ) -> Tensor:
        length = caches[0].length
        if tokens.shape[1] > 1 or length == 0:
            given = (tokens, positions, mask, caches, conditioning, key_values, head)
            return Transformer.forward(self.transformer, *given)
        # torch.compile would specialise on an int; the size of a tensor can be dynamic, except for 0 and 1.
        size = torch.empty(length + 2)
        torch._dynamo.mark_dynamic(size, 0)
        memory = [(cache.capacity, cache.keys, cache.values) for cache in caches]
        result = self.compiled(tokens, positions, mask, memory, size, conditioning, key_values, head)
        for cache in caches:
            cache.length += 1
        return result

    def _step(
        self,
        tokens: Tensor,
        positions: Tensor,
        mask: Mask,
        memory: Sequence[tuple[int, Tensor | None, Tensor | None]],
        size: Tensor,
        conditioning: Tensor | None,
        key_values: Sequence[KeyValuePair],
        head: nn.Module | None,
    ) -> Tensor:
        length = size.shape[0] - 2
        caches = [Cache(capacity, length, keys, values) for capacity, keys, values in memory]
        given = (tokens, positions, mask, caches, conditioning, key_values, head)
        return Transformer.forward(self.transformer, *given)
