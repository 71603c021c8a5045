"""Choice of the device, and the check of Apple GPUs."""

import warnings

import pytest
import torch

from genstack.cli.parsing import device
from genstack.cli.parsing.device import TOLERANCE, choose_device, deviation
from genstack.compressor.networks.pyramid import PyramidDecoder
from genstack.errors import UserError


def test_unavailable_device_is_rejected():
    with pytest.raises(UserError, match="device 'gpu9' is not available; use auto, cpu, cuda or mps"):
        choose_device("gpu9")


def test_deviation_is_zero_on_cpu_and_keeps_the_random_state():
    before = torch.get_rng_state()
    assert deviation("cpu") == 0
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize(("wrong", "warned"), [(0.5, True), (1e-4, False)])
def test_apple_gpu_with_wrong_results_raises_a_warning(monkeypatch, wrong, warned):
    right, calls = PyramidDecoder.forward, []

    def forward(self, latents, image_size):
        calls.append(latents)
        images = right(self, latents, image_size)
        return images if len(calls) == 1 else images + wrong * images.abs().max()

    monkeypatch.setattr(PyramidDecoder, "forward", forward)
    monkeypatch.setattr(device, "find_device", lambda word, local: "mps:0")
    monkeypatch.setattr(device, "deviation", lambda chosen: deviation("cpu"))  # there is no such GPU here
    assert (wrong > TOLERANCE) == warned
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        assert choose_device("mps") == "mps:0"
    assert [str(one.message)[:38] for one in told] == ["mps:0 and the CPU decode differently, "] * warned
