"""A model compiled for sampling by torch.compile: about half a minute of compilation, then faster passes."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from genstack.compressor.network import Decoder
from genstack.errors import UserError
from genstack.model import Model
from genstack.transformer.compiled_step import Backend, CompiledStep
from genstack.transformer.transformer import Transformer
from genstack.transformer.weight_cast import cast_weights

#: Options of inductor. On a CPU: calls without Python in between, and autotuned matrix products.
OPTIONS: dict[str, dict[str, Any]] = {
    "cpu": {
        "cpp_wrapper": True,
        "max_autotune": True,
        "autotune_num_choices_displayed": 0,
        "max_autotune_report_choices_stats": False,
    },
    "cuda": {},
}
#: Most variants that torch.compile may make of one function: one per transformer and batch size.
VARIANTS = 64


@contextmanager
def compiled(model: Model, backend: Backend = "inductor") -> Iterator[None]:
    """Compile the prior's transformers and the compressor's decoder within this context.

    Weights become constants of the compiled code, in the precision of the surrounding autocast: change
    neither inside. Each batch size is compiled separately. On exit torch.compile forgets all that this
    process has compiled, elsewhere too.

    Args:
        model: model whose networks are compiled.
        backend: backend of torch.compile.
    """
    from torch._dynamo import config as dynamo  # these take a second to import
    from torch._inductor import config as inductor

    device = model.device
    if device.type not in OPTIONS:
        raise UserError(
            f"compilation is not supported on {device.type}, only on {' and '.join(OPTIONS)}; leave it out"
        )
    supported = torch._inductor.list_options()  # they differ by version
    options = {name: value for name, value in OPTIONS[device.type].items() if name in supported}
    options = options if backend == "inductor" else {}
    parts = list(model.modules().modules())
    transformers = [part for part in parts if isinstance(part, Transformer)]
    networks: list[nn.Module] = [*transformers, *(part for part in parts if isinstance(part, Decoder))]
    with (
        cast_weights(model.prior or nn.Module(), device),
        inductor.patch(freezing=True),
        dynamo.patch(recompile_limit=VARIANTS),
    ):
        try:
            for transformer in transformers:
                transformer.compiled_step = CompiledStep(transformer, backend, options)
            for network in networks:
                vars(network)["forward"] = torch.compile(
                    network.forward, backend=backend, dynamic=False, options=options
                )
            yield
        finally:
            for transformer in transformers:
                transformer.compiled_step = None
            for network in networks:
                vars(network).pop("forward", None)
            torch.compiler.reset()  # otherwise later weights might run in this compiled code
