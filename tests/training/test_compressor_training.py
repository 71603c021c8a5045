"""The VQGAN objective: one backward pass equals two with separate optimizers."""

import pytest
import torch
from torch import nn

from genstack.compressor import Autoencoder, Convolutional
from genstack.compressor.quantizers import VectorQuantizer
from genstack.data import ImageData
from genstack.losses.adaptive import AdaptiveWeight
from genstack.losses.adversarial import NonSaturating
from genstack.losses.adversary import Adversary
from genstack.losses.diff_augment import DiffAugment
from genstack.losses.gradient_penalty import R1
from genstack.losses.lecam import LeCAM
from genstack.losses.patchgan import PatchGAN
from genstack.losses.perceptual import Perceptual
from genstack.losses.reconstruction import LogitLaplace
from genstack.training.compressor import CompressorTraining
from genstack.training.optimization import Optimization, clip

NETWORK = Convolutional(dim=6, width=4, multipliers=(1, 2), blocks=1, attention=(), middle_attention=False)
DATA = {"source": "shapes", "resolution": (8, 12), "limit": 12, "batch_size": 4}


class Judge(Perceptual):
    """A network that stands in for LPIPS, with weights that could be saved or trained by mistake."""

    weight = 2.0

    def __init__(self):
        self.network = nn.Conv2d(3, 5, 3)

    def check(self, channels, height, width):
        """Every size will do."""

    def to(self, device):
        self.network.to(device)
        return self

    def distances(self, reconstruction, images):
        return (self.network(reconstruction) - self.network(images)).square().mean((1, 2, 3))


class Clock:
    """As much of a trainer as an objective reads: the step, and how many there are."""

    def __init__(self, step, max_steps):
        self.global_step, self.max_steps, self.world_size = step, max_steps, 1


def compressor(channels):
    """A model without weights of zero, behind which there is no gradient."""
    model = Autoencoder(channels, NETWORK, VectorQuantizer(16, 4, dead_after=None))
    for parameter in model.parameters():
        if not parameter.any():
            nn.init.normal_(parameter, std=0.1)
    return model


def adversary(channels):
    return Adversary(channels, PatchGAN(width=4, layers=1), weight=0.7, start=10)


@pytest.fixture
def training(monkeypatch):
    training = CompressorTraining(compressor, ImageData(**DATA), perceptual=Judge(), adversary=adversary)
    monkeypatch.setattr(CompressorTraining, "trainer", Clock(0, 100))
    monkeypatch.setattr(CompressorTraining, "global_step", 10)
    training.objective(batch(training))  # initializes the codebook
    return training


def batch(training, count=4):
    return training.data.examples("training", count)


def gradients(training):
    """Of every parameter by name; they are taken away."""
    found = {name: p.grad for name, p in training.named_parameters() if p.requires_grad}
    training.zero_grad(set_to_none=True)
    return found


def generator_loss(training, images, pushed):
    """Gradients of the paper's generator loss, with a frozen discriminator."""
    training.adversary.requires_grad_(False)
    made = training.model(images)
    loss = (made.images - images).abs().mean() + 2 * training.perceptual(made.images, images)
    loss = loss + sum(made.losses.values())
    if pushed:
        loss = loss - 0.7 * training.adversary.network(made.images).mean()
    loss.backward()
    training.adversary.requires_grad_(True)


def discriminator_loss(training, images):
    """Gradients of the paper's discriminator loss, with detached images."""
    with torch.no_grad():
        made = training.model(images).images
    real, fake = training.adversary.network(images), training.adversary.network(made)
    ((1 - real).relu().mean() / 2 + (1 + fake).relu().mean() / 2).backward()


def close(one, other):
    assert one.keys() == other.keys()
    for name in one:
        if one[name] is None or other[name] is None:
            assert one[name] is other[name], name
        else:
            torch.testing.assert_close(one[name], other[name], atol=1e-6, rtol=1e-4, msg=name)


@pytest.mark.parametrize(("step", "pushed"), [(9, False), (10, True)])
def test_one_backward_equals_two_backwards(training, monkeypatch, step, pushed):
    """Before `start` nothing of the adversary reaches the compressor, and the discriminator learns."""
    monkeypatch.setattr(CompressorTraining, "global_step", step)
    images = batch(training).images
    training.objective(batch(training)).backward()
    once = gradients(training)
    generator_loss(training, images, pushed)
    discriminator_loss(training, images)
    close(once, gradients(training))
    assert all(g is not None and g.abs().sum() > 0 for n, g in once.items() if "conv" in n and g.ndim > 1)
    judge = {name: g for name, g in once.items() if name.startswith("adversary")}
    assert sum(float(g.abs().sum()) for g in judge.values()) > 0


def everything(channels):
    """LeCAM, R1, DiffAugment and the adaptive weight, all at once."""
    return Adversary(
        channels,
        PatchGAN(width=4, layers=1),
        NonSaturating(),
        weight=0.7,
        augmentation=DiffAugment(),
        lecam=LeCAM(weight=0.3),
        penalty=R1(weight=0.2, every=5),
        adaptive=AdaptiveWeight(),
    )


@pytest.mark.slow
@pytest.mark.parametrize("step", [9, 10])  # R1 is due at the second
def test_one_backward_equals_two_with_every_adversary_option(training, monkeypatch, step):
    """The same chance is drawn in the same order: first by the compressor's side, then by the other."""
    monkeypatch.setattr(CompressorTraining, "global_step", step)
    training.adversary = judge = everything(3)
    training.objective(batch(training))
    judge.after_step(skipped=False)
    anchors, images = judge.anchors, batch(training).images
    real_mean, fake_mean = anchors.real.clone(), anchors.fake.clone()
    training.zero_grad(set_to_none=True)
    torch.manual_seed(4)
    training.objective(batch(training)).backward()
    once = gradients(training)

    torch.manual_seed(4)
    judge.requires_grad_(False)
    made = training.model(images)
    near = (made.images - images).abs().mean() + 2 * training.perceptual(made.images, images)
    pushed = -judge.network(judge.augmentation(made.images)).sigmoid().log().mean()
    last = training.model.last_layer
    norms = [torch.autograd.grad(term, last, retain_graph=True)[0].norm() for term in (near, pushed)]
    (near + sum(made.losses.values()) + 0.7 * norms[0] / (norms[1] + 1e-4) * pushed).backward()

    judge.requires_grad_(True)
    real = judge.network(judge.augmentation(images))
    fake = judge.network(judge.augmentation(made.images.detach()))
    loss = -(real.sigmoid().log().mean() + (1 - fake.sigmoid()).log().mean()) / 2
    loss = loss + 0.3 * ((real - fake_mean).clamp(min=0) ** 2).mean()
    loss = loss + 0.3 * ((real_mean - fake).clamp(min=0) ** 2).mean()
    if step == 10:
        images = images.clone().requires_grad_()
        logits = judge.network(judge.augmentation(images))
        (slope,) = torch.autograd.grad(logits.sum(), images, create_graph=True)
        loss = loss + 5 * 0.2 / 2 * slope.square().sum((1, 2, 3)).mean()
    loss.backward()
    close(once, gradients(training))
    assert (real_mean, fake_mean) == (anchors.real, anchors.fake) and real_mean != 0


def test_adaptive_weight_with_compile_is_rejected():
    with pytest.raises(ValueError, match="use `compile: auto` or `adaptive: null`"):
        CompressorTraining(compressor, ImageData(**DATA), adversary=everything, compile=True)


def test_unsupported_reconstruction_loss_is_rejected():
    with pytest.raises(ValueError, match="set the compressor's output to LocationAndScale"):
        CompressorTraining(compressor, ImageData(**DATA), reconstruction=LogitLaplace())


def test_discriminator_is_trained_without_ema(training):
    optimizer, _ = training.optimization.optimizer(training.networks(), 100)
    before = {name: p.clone() for name, p in training.adversary.named_parameters() if p.ndim > 1}
    training.objective(batch(training)).backward()
    optimizer.step()
    for name, parameter in training.adversary.named_parameters():
        assert name not in before or not torch.equal(before[name], parameter), name
    assert not any("adversary" in name for name, _ in training.ema.named_parameters())
    assert {id(p) for p in training.ema.parameters()}.isdisjoint(id(p) for p in training.model.parameters())


def test_perceptual_network_is_in_no_optimizer_or_checkpoint(training):
    optimizer, _ = training.optimization.optimizer(training.networks(), 100)
    learning = {id(p) for group in optimizer.param_groups for p in group["params"]}
    assert learning == {id(p) for network in training.networks() for p in network.parameters()}
    assert learning.isdisjoint(id(p) for p in training.perceptual.network.parameters())
    assert learning.isdisjoint(id(p) for p in training.ema.parameters())
    assert not any("perceptual" in name for name in training.state_dict())
    training.objective(batch(training)).backward()
    assert {name.split(".")[0] for name, p in training.named_parameters() if p.grad is not None} == {
        "model",
        "adversary",
    }


def test_networks_are_clipped_separately():
    one, other = nn.Linear(3, 2), nn.Linear(2, 5)
    optimizer, _ = Optimization(weight_decay=0.1).optimizer([one, other], 10)
    for parameter in one.parameters():
        parameter.grad = torch.full_like(parameter, 2.0)  # norm 2 sqrt(8)
    for parameter in other.parameters():
        parameter.grad = torch.full_like(parameter, 0.01)  # norm 0.01 sqrt(15), below the limit
    assert clip(optimizer, 0.5) == pytest.approx(2 * 8**0.5)
    for parameter in one.parameters():
        torch.testing.assert_close(
            parameter.grad, torch.full_like(parameter, 0.5 / 8**0.5), rtol=1e-5, atol=0
        )
    for parameter in other.parameters():
        assert (parameter.grad == torch.tensor(0.01)).all()
    assert clip(optimizer, None) == pytest.approx(0.5, rel=1e-5)


def test_accumulated_gradients_match_the_full_batch(training):
    """As `accumulate_grad_batches: 2` computes it: half the loss of either half."""
    training.objective(batch(training, 8)).backward()
    whole = gradients(training)
    for images in batch(training, 8).images.split(4):
        half = batch(training)
        half.images = images
        (training.objective(half) / 2).backward()
    halves = gradients(training)
    for name, gradient in whole.items():
        torch.testing.assert_close(halves[name], gradient, atol=1e-5, rtol=1e-4, msg=name)
