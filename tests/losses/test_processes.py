"""Losses and usage of two processes against one."""

import pytest
import torch

from genstack.compressor import Autoencoder, Convolutional, Gaussian, Reconstruction
from genstack.dist import gloo_group
from genstack.losses.adaptive import AdaptiveWeight
from genstack.losses.adversary import Adversary
from genstack.losses.gradient_penalty import R1
from genstack.losses.lecam import Anchors, LeCAM
from genstack.losses.patchgan import PatchGAN
from genstack.training.codebook_usage import LatentUsage, latent_metrics
from genstack.training.step_metrics import MeanMetrics, StepMetrics

CPU = torch.device("cpu")


def halves(rank):
    """A process's share of each batch; the whole batch without a rank."""
    generator = torch.Generator().manual_seed(5)
    whole = torch.randn(4, 3, 12, 12, generator=generator), torch.randn(4, 3, 12, 12, generator=generator)
    return whole if rank is None else tuple(images[2 * rank : 2 * rank + 2] for images in whole)


def found(rank=None):
    """Everything that is summed over processes."""
    real, fake = halves(rank)
    anchors = Anchors(LeCAM(decay=0.5))
    for skipped in (False, True, False):
        anchors(real.mean(1, keepdim=True), fake.mean(1, keepdim=True) * 2)
        anchors.after_step(skipped)

    layer = torch.nn.Parameter(torch.linspace(-1, 2, 3))
    mixed = (fake * layer[:, None, None]).sum(1)
    balance = AdaptiveWeight()((mixed - real.sum(1)).square().mean(), mixed.tanh().mean(), layer)

    torch.manual_seed(0)
    adversary = Adversary(3, PatchGAN(width=4, layers=1), penalty=R1(weight=1.0, every=2))
    adversary.discriminator_loss(real, fake, step=0)
    adversary.after_step(skipped=False)

    network = Convolutional(dim=3, width=4, multipliers=(1,), blocks=1, attention=(), middle_attention=False)
    usage = LatentUsage(Autoencoder(3, network, Gaussian(dim=3)), 12, 12)
    nats = real.square() * torch.tensor([1.0, 1e-3, 1e-9])[:, None, None]
    for skipped in (False, True):
        usage.update(Reconstruction(real, None, {}, nats=nats * (1 + skipped)))
        usage.after_step(skipped)
    usage.update_validation(Reconstruction(real, None, {}, nats=nats))

    step, means = StepMetrics(), MeanMetrics()
    for part in (real, fake):
        step.update({"mean": part.mean()})
    parts = [nats[:1], nats[1:]] if rank == 0 else [nats]  # batches of other sizes and another number of them
    for part in parts:
        means.update({"mean": part.mean()}, len(part))
    numbers = {
        "real": float(anchors.real),
        "fake": float(anchors.fake),
        "balance": float(balance),
        "penalty": float(adversary.latest_penalty),
        "logged": step.means(CPU)["mean"],
        "means": means.compute(CPU)["mean"],
    }
    return (
        numbers
        | usage.training_metrics()
        | {f"held {name}": value for name, value in usage.validation_metrics().items()}
    )


def found_by(rank):
    with gloo_group(rank, 2):
        return found(rank)


@pytest.mark.distributed
def test_two_processes_match_one(in_processes):
    one, other = in_processes(found_by)
    assert one == other, "to the last bit"
    assert one == pytest.approx(found(), rel=1e-5)


def test_latent_metrics_by_hand():
    nats = torch.tensor([[0.5, 0.0], [1.5, 0.04]])[:, :, None, None] * torch.ones(1, 1, 2, 3)
    assert latent_metrics([nats[:1], nats[1:]]) == pytest.approx({"rate": 6 * (1.0 + 0.02), "active": 1.0})
