"""Laws of quantizers."""

import copy
import re
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from genstack.compressor import Quantizer, Strided
from genstack.layout import CodeLayout
from genstack.testing.autoencoders import compare_decoded, train_one_step
from genstack.testing.expect import arguments, build

SIZES = [(2, 5, 7), (1, 4, 1), (3, 1, 6)]  # batch, height, width


def make(part: type[Quantizer], **given: Any) -> Quantizer:
    """Build the quantizer."""
    return build(part, **given)


def _latents(
    quantizer: Quantizer, batch: int = 2, height: int = 5, width: int = 7
) -> Float[Tensor, "b d h w"]:
    return torch.randn(batch, quantizer.dim_in, height, width)


def _layout(quantizer: Quantizer, height: int = 5, width: int = 7) -> CodeLayout:
    return quantizer.layout((8 * height, 8 * width), height, width)


def lookup_inverts_quantization(quantizer: Quantizer) -> None:
    """Looking up the codes gives the quantized latents."""
    for batch, height, width in SIZES:
        quantized = quantizer.eval()(10 * _latents(quantizer, batch, height, width))
        found = quantizer.lookup(quantized.codes, _layout(quantizer, height, width))
        torch.testing.assert_close(found, quantized.latents, atol=1e-6, rtol=0)


def codes_are_symbols_of_the_layout(quantizer: Quantizer) -> None:
    """Codes are int64, as many as the layout has, and below its codebook size."""
    for training in (True, False):
        for batch, height, width in SIZES:
            codes = quantizer.train(training)(_latents(quantizer, batch, height, width)).codes
            layout = _layout(quantizer, height, width)
            assert codes.dtype == torch.int64
            assert codes.shape == (batch, layout.length)
            assert codes.min() >= 0
            assert codes.max() < layout.codebook_size


def codes_of_an_image_do_not_depend_on_its_batch(quantizer: Quantizer) -> None:
    """An image has the same codes alone and in a batch."""
    latents = _latents(quantizer, batch=3)
    together = quantizer.eval()(latents).codes
    alone = torch.cat([quantizer(one[None]).codes for one in latents])
    assert torch.equal(together, alone)


def gradients_reach_the_latents(quantizer: Quantizer) -> None:
    """The encoder learns: gradients of the latents are finite and not zero."""
    latents = _latents(quantizer).requires_grad_()
    quantized = quantizer.train()(latents).latents
    (quantized * torch.randn_like(quantized)).sum().backward()
    assert latents.grad is not None and latents.grad.isfinite().all()
    assert latents.grad.abs().sum() > 0


def losses_are_named_finite_scalars(quantizer: Quantizer) -> None:
    """Loss terms are float32 scalars with names of lower-case letters and _."""
    for name, loss in quantizer.train()(_latents(quantizer)).losses.items():
        assert re.fullmatch("[a-z_]+", name), name
        assert loss.shape == (), name
        assert loss.dtype == torch.float32, name
        assert loss.isfinite(), name


def evaluation_is_deterministic_and_changes_nothing(quantizer: Quantizer) -> None:
    """In eval mode, two calls give the same result and leave the state as it is."""
    latents = _latents(quantizer)
    quantizer.train()(latents)
    quantizer.after_step(skipped=False)
    before = copy.deepcopy(quantizer.eval().state_dict())
    first, second = quantizer(latents), quantizer(latents)
    assert torch.equal(first.codes, second.codes)
    assert torch.equal(first.latents, second.latents)
    for name, value in quantizer.state_dict().items():
        assert torch.equal(value, before[name]), name


def state_makes_an_equal_quantizer(quantizer: Quantizer) -> None:
    """The arguments and the state_dict are all that a checkpoint needs."""
    latents = _latents(quantizer)
    quantizer.train()(latents)
    quantizer.after_step(skipped=False)
    other = type(quantizer)(**arguments(quantizer))
    other.load_state_dict(copy.deepcopy(quantizer.state_dict()))
    assert torch.equal(other.eval()(latents).latents, quantizer.eval()(latents).latents)


def arithmetic_is_float32_under_autocast(quantizer: Quantizer) -> None:
    """Autocast to bfloat16 changes neither codes nor latents."""
    latents = _latents(quantizer, batch=4, height=9, width=11)
    quantizer.train()(latents)
    exact = quantizer.eval()(latents)
    with torch.autocast("cpu", torch.bfloat16):
        inside = quantizer(latents)
        found = quantizer.lookup(inside.codes, _layout(quantizer, 9, 11))
    assert torch.equal(inside.codes, exact.codes)
    assert torch.equal(inside.latents, exact.latents)
    assert found.dtype == torch.float32


def half_precision_latents_become_float32(quantizer: Quantizer) -> None:
    """Latents in bfloat16 are quantized in float32."""
    assert quantizer(_latents(quantizer).bfloat16()).latents.dtype == torch.float32


def any_network_trains_with_it(quantizer: Quantizer) -> None:
    """It fits a network of any width: projections lie between, and gradients reach every parameter."""
    train_one_step(Strided(8, 4, 1, 6), quantizer, (32, 48), 3)
    compare_decoded(Strided(8, 4, 1, 6), quantizer, (64, 32))
