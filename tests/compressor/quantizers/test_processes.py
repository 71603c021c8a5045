"""Two processes with one batch: equal codebooks, and gradients of the whole batch."""

import copy

import pytest
import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel

import genstack.compressor.quantizers
from genstack.compressor import Quantizer
from genstack.compressor.quantizers import Residual, VectorQuantizer
from genstack.compressor.quantizers.update import EMAUpdate
from genstack.discovery import discover
from genstack.dist import gloo_group

MADE = {
    **discover(genstack.compressor.quantizers, Quantizer),
    "EMAUpdate": lambda **known: VectorQuantizer(update=EMAUpdate(), **known),
    "ResidualEMAUpdate": lambda **known: Residual(update=EMAUpdate(), **known),
    "Entropy": lambda **known: VectorQuantizer(entropy_weight=0.1, temperature=0.5, **known),
}
STEPS = 3


class Model(nn.Module):
    """A layer before a quantizer, and the loss of both."""

    def __init__(self, quantizer):
        super().__init__()
        self.layer, self.quantizer = nn.Conv2d(5, quantizer.dim, 1), quantizer

    def forward(self, images):
        quantized = self.quantizer(self.layer(images))
        target = torch.linspace(-1, 1, quantized.latents[0].numel()).reshape(quantized.latents[0].shape)
        return (quantized.latents - target).square().mean() + sum(quantized.losses.values())


def made(name, restarts):
    """A model with or without its restarts, which draw from one process's latents."""
    torch.manual_seed(0)
    quantizer = MADE[name]() if restarts else MADE[name](**without_restarts(name))
    return Model(quantizer)


def without_restarts(name):
    """The arguments that leave out all that looks at the latents of a single process."""
    known = {"BSQ": {}, "LFQ": {}, "FSQ": {}, "MultiScaleResidual": {}, "Gumbel": {"dead_after": None}}
    return known.get(name, {"codebook_init": None, "dead_after": None})


def learned(model):
    """Everything of a quantizer that training changes."""
    return copy.deepcopy(model.quantizer.state_dict())


def trained(model, wrapped, batches):
    """The gradients of the first step, and the state of the quantizer after each."""
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    gradients, states = None, []
    for images in batches:
        optimizer.zero_grad()
        wrapped(images).backward()
        if gradients is None:
            gradients = {name: values.grad.clone() for name, values in model.named_parameters()}
        optimizer.step()
        model.quantizer.after_step(skipped=False)
        states.append(learned(model))
    return gradients, states


def batches():
    generator = torch.Generator().manual_seed(3)
    return [torch.randn(4, 5, 4, 6, generator=generator) for _ in range(STEPS)]


def one_process(rank):
    """Train every quantizer on half of each batch, with restarts and without."""
    found = {}
    with gloo_group(rank, 2):
        for name in MADE:
            for restarts in (False, True):
                model = made(name, restarts)
                if restarts:  # often enough to happen
                    for part in model.modules():
                        if getattr(part, "dead_after", None) is not None:
                            part.dead_after = 0.01
                wrapped = DistributedDataParallel(model, broadcast_buffers=False)
                torch.manual_seed(rank)  # noise of their own
                halves = [images[2 * rank : 2 * rank + 2] for images in batches()]
                found[name, restarts] = trained(model, wrapped, halves)
    return found


@pytest.fixture(scope="module")
def both(in_processes):
    """Results of two processes."""
    return in_processes(one_process)


@pytest.mark.distributed
@pytest.mark.parametrize("restarts", [False, True])
@pytest.mark.parametrize("name", MADE)
def test_codebooks_agree_across_processes(both, name, restarts):
    (_, states), (_, others) = (found[name, restarts] for found in both)
    torch.testing.assert_close(states, others, atol=0, rtol=0)


@pytest.mark.distributed
@pytest.mark.parametrize("name", [name for name in MADE if name != "Gumbel"])  # whose noise differs
def test_two_processes_match_one_batch(both, name):
    """Gradients within 1e-5 of the largest, codebooks within 1e-6; without initialization and restarts."""
    gradients, states = both[0][name, False]
    alone = made(name, restarts=False)
    expected, whole = trained(alone, alone, batches())
    for key, gradient in expected.items():
        scale = float(gradient.abs().max())
        torch.testing.assert_close(gradients[key], gradient, atol=1e-5 * scale, rtol=1e-5, msg=key)
    torch.testing.assert_close(states, whole, atol=1e-6, rtol=1e-5)
