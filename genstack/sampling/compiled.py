"""A model compiled for drawing by torch.compile: minutes at the start, then faster passes of its networks."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from genstack.compressor.network import Decoder
from genstack.errors import UserError
from genstack.model import Model
from genstack.prior.cache import Cache
from genstack.prior.crossing import Pair
from genstack.prior.held import held
from genstack.prior.masks import Mask
from genstack.prior.transformer import Transformer

#: On a CPU, kernels that are called without Python between them, and products chosen by trying, in silence.
OPTIONS: dict[str, dict[str, Any]] = {
    "cpu": {
        "cpp_wrapper": True,
        "max_autotune": True,
        "autotune_num_choices_displayed": 0,
        "max_autotune_report_choices_stats": False,
    },
    "cuda": {},
}


@contextmanager
def compiled(model: Model, backend: str = "inductor") -> Iterator[None]:
    """Compile what draws, for as long as this lasts: the prior's transformers and the compressor's decoder.

    Weights are compiled in, in the precision of the autocast in which this is entered: neither may change
    meanwhile. Each size of batch is compiled for itself.

    Args:
        model: whose networks these are.
        backend: of torch.compile.

    Raises:
        UserError: nothing here is made for the model's device.
    """
    from torch._inductor import config  # takes a second to import

    device = model.device
    if device.type not in OPTIONS:
        raise UserError(
            f"networks are compiled for {' and '.join(OPTIONS)}, not for {device.type}; leave out --compile"
        )
    known = torch._inductor.list_options()  # they differ by version
    ours = {name: value for name, value in OPTIONS[device.type].items() if name in known}
    given = ours if backend == "inductor" else None
    parts = list(model.modules().modules())
    transformers = [part for part in parts if isinstance(part, Transformer)]
    whole: list[nn.Module] = [*transformers, *(part for part in parts if isinstance(part, Decoder))]
    with held(model.prior or nn.Module(), device), config.patch(freezing=True):
        try:
            for transformer in transformers:
                transformer.quick = Steps(transformer, backend, given)
            for part in whole:
                part.compile(backend=backend, dynamic=False, options=given)
            yield
        finally:
            for transformer in transformers:
                transformer.quick = None
            for part in whole:
                part._compiled_call_impl = None
            torch.compiler.reset()  # else another model, or later weights, might be drawn with these


class Steps:
    """A transformer's steps of one token, compiled; others are taken as they are.

    Args:
        transformer: whose steps.
        backend: of torch.compile.
        options: of it.
    """

    def __init__(self, transformer: Transformer, backend: str, options: dict[str, Any] | None):
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
