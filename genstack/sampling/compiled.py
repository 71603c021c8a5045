"""A model compiled for drawing by torch.compile: half a minute or more at the start, then faster passes."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from genstack.compressor.network import Decoder
from genstack.errors import UserError
from genstack.model import Model
from genstack.transformer.compiled_step import Backend, Steps
from genstack.transformer.held import held
from genstack.transformer.transformer import Transformer

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
#: How many variants torch.compile makes of one function: a transformer and a size of batch are one each.
VARIANTS = 64


@contextmanager
def compiled(model: Model, backend: Backend = "inductor") -> Iterator[None]:
    """Compile what draws, for as long as this lasts: the prior's transformers and the compressor's decoder.

    Weights are compiled in, in the precision of the autocast in which this is entered: neither may change
    meanwhile. Each size of batch is compiled for itself. In the end all that this process has compiled is
    forgotten, what others compiled too.

    Args:
        model: whose networks these are.
        backend: of torch.compile.

    Raises:
        UserError: nothing here is made for the model's device.
    """
    from torch._dynamo import config as dynamo  # these take a second to import
    from torch._inductor import config as inductor

    device = model.device
    if device.type not in OPTIONS:
        raise UserError(
            f"networks are compiled for {' and '.join(OPTIONS)}, not for {device.type}; leave out --compile"
        )
    known = torch._inductor.list_options()  # they differ by version
    ours = {name: value for name, value in OPTIONS[device.type].items() if name in known}
    given = ours if backend == "inductor" else {}
    parts = list(model.modules().modules())
    transformers = [part for part in parts if isinstance(part, Transformer)]
    whole: list[nn.Module] = [*transformers, *(part for part in parts if isinstance(part, Decoder))]
    with (
        held(model.prior or nn.Module(), device),
        inductor.patch(freezing=True),
        dynamo.patch(recompile_limit=VARIANTS),
    ):
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
