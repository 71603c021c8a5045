"""Laws of every quantizer in the folder."""

import copy
import importlib
import inspect
import re

import pytest
import torch

SIZES = [(2, 5, 7), (1, 4, 1), (3, 1, 6)]  # batch, height, width


def latents_like(quantizer, batch=2, height=5, width=7):
    return torch.randn(batch, quantizer.dim, height, width)


def layout_of(quantizer, height=5, width=7):
    return quantizer.layout((8 * height, 8 * width), height, width)


@pytest.mark.parametrize(("batch", "height", "width"), SIZES)
def test_lookup_inverts_quantization(quantizer, batch, height, width):
    quantized = quantizer.eval()(10 * latents_like(quantizer, batch, height, width))
    found = quantizer.lookup(quantized.codes, layout_of(quantizer, height, width))
    torch.testing.assert_close(found, quantized.latents, atol=1e-6, rtol=0)


@pytest.mark.parametrize(("batch", "height", "width"), SIZES)
@pytest.mark.parametrize("training", [True, False])
def test_codes_are_symbols_of_the_layout(quantizer, batch, height, width, training):
    codes = quantizer.train(training)(latents_like(quantizer, batch, height, width)).codes
    layout = layout_of(quantizer, height, width)
    assert codes.dtype == torch.int64
    assert codes.shape == (batch, layout.length)
    assert codes.min() >= 0
    assert codes.max() < layout.codebook_size


def test_images_are_quantized_independently(quantizer):
    latents = latents_like(quantizer, batch=3)
    together = quantizer.eval()(latents).codes
    alone = torch.cat([quantizer(one[None]).codes for one in latents])
    assert torch.equal(together, alone)


def test_gradients_reach_the_latents(quantizer):
    latents = latents_like(quantizer).requires_grad_()
    quantized = quantizer.train()(latents).latents
    (quantized * torch.randn_like(quantized)).sum().backward()
    assert latents.grad.isfinite().all()
    assert latents.grad.abs().sum() > 0


def test_losses_are_named_finite_scalars(quantizer):
    for name, loss in quantizer.train()(latents_like(quantizer)).losses.items():
        assert re.fullmatch("[a-z_]+", name)
        assert loss.shape == ()
        assert loss.dtype == torch.float32
        assert loss.isfinite()


def test_evaluation_is_deterministic_and_stateless(quantizer):
    latents = latents_like(quantizer)
    quantizer.train()(latents)
    quantizer.after_step(skipped=False)
    before = copy.deepcopy(quantizer.eval().state_dict())
    first, second = quantizer(latents), quantizer(latents)
    assert torch.equal(first.codes, second.codes)
    assert torch.equal(first.latents, second.latents)
    for name, value in quantizer.state_dict().items():
        assert torch.equal(value, before[name]), name


def test_state_dict_restores_the_quantizer(quantizer):
    latents = latents_like(quantizer)
    quantizer.train()(latents)
    quantizer.after_step(skipped=False)
    other = type(quantizer)()
    other.load_state_dict(copy.deepcopy(quantizer.state_dict()))
    assert torch.equal(other.eval()(latents).latents, quantizer.eval()(latents).latents)


def test_quantizers_are_float32_under_autocast(quantizer):
    latents = latents_like(quantizer, batch=4, height=9, width=11)
    quantizer.train()(latents)
    exact = quantizer.eval()(latents)
    with torch.autocast("cpu", torch.bfloat16):
        inside = quantizer(latents)
        found = quantizer.lookup(inside.codes, layout_of(quantizer, 9, 11))
    assert torch.equal(inside.codes, exact.codes)
    assert torch.equal(inside.latents, exact.latents)
    assert found.dtype == torch.float32


def test_half_precision_latents_become_float32(quantizer):
    assert quantizer(latents_like(quantizer).bfloat16()).latents.dtype == torch.float32


def test_arguments_are_stored_as_attributes(quantizer):
    for name, argument in inspect.signature(type(quantizer)).parameters.items():
        assert getattr(quantizer, name) == argument.default, name


def test_module_names_its_paper(quantizer):
    assert re.search(r"arXiv:\d{4}\.\d{5}", importlib.import_module(type(quantizer).__module__).__doc__)
