"""Flow matching against a Gaussian, whose velocity and likelihood are known, and against diffusers' DiT."""

import math
from dataclasses import replace
from itertools import pairwise

import pytest
import torch
from torch import nn
from torch.distributions import MultivariateNormal

from genstack.conditions import ClassLabels, Unconditional
from genstack.errors import UserError
from genstack.layout import LatentLayout
from genstack.prior import Known, SamplingOptions, image_seeds
from genstack.prior.flow_matching import FlowMatching
from genstack.prior.ode import Times, renoise, shift_times, solve_step, training_times
from genstack.prior.velocity_transformer import VelocityTransformer
from genstack.transformer import Backbone
from genstack.transformer.encoded_condition import EncodedCondition

SMALL = LatentLayout((8, 16), 3, ((1, 2),))
MEAN = torch.tensor([1.0, -2.0, 0.5, 0.0, 3.0, -1.0])
NOTHING = torch.zeros(1, dtype=torch.int64)


def covariance() -> torch.Tensor:
    generator = torch.Generator().manual_seed(1)
    root = torch.randn(6, 6, generator=generator) * 0.5
    return root @ root.T + 0.2 * torch.eye(6)


class Exact(nn.Module):
    """The velocity of a path from the standard normal to a Gaussian: E[data - noise | x_t]."""

    def __init__(self):
        super().__init__()
        self.mean, self.covariance = MEAN, covariance()
        self.anything = nn.Parameter(torch.zeros(1))

    def encode_condition(self, condition):
        return EncodedCondition(torch.zeros(len(condition), 1, 1), torch.zeros(len(condition), 1))

    def forward(self, latents, times, encoded):
        t, flat = float(times[0]), latents.flatten(1)
        of_path = t**2 * self.covariance + (1 - t) ** 2 * torch.eye(6)
        gain = torch.linalg.solve(of_path, t * self.covariance - (1 - t) * torch.eye(6)).T
        velocity = self.mean + (flat - t * self.mean) @ gain.T
        return velocity.view_as(latents)


@pytest.fixture
def exact(tiny):
    prior = FlowMatching(SMALL, Unconditional(), replace(tiny, adaln="own")).eval()
    prior.network = Exact()
    return prior


def sample(prior: FlowMatching, count: int, options: SamplingOptions, known: Known | None = None):
    return prior.sample(NOTHING.expand(count), options, image_seeds(0, range(count)), known)


@pytest.mark.parametrize(
    ("solver", "steps", "shift"), [("euler", 300, 1.0), ("heun", 40, 1.0), ("heun", 60, 3.0)]
)
def test_samples_have_the_mean_and_covariance_of_a_gaussian(exact, solver, steps, shift):
    exact.times = Times(shift=shift)
    samples = sample(exact, 4000, SamplingOptions(solver=solver, steps=steps)).flatten(1)
    torch.testing.assert_close(samples.mean(0), MEAN, atol=0.1, rtol=0)
    torch.testing.assert_close(torch.cov(samples.T), covariance(), atol=0.15, rtol=0.05)


def test_heun_is_of_second_order(exact):
    """Twice the steps leave a quarter of the error, and Euler's half."""
    fine = sample(exact, 20, SamplingOptions(solver="heun", steps=2000))
    for solver, lowest, highest in (("euler", 1.7, 2.3), ("heun", 3.0, 5.0)):
        errors = [
            (sample(exact, 20, SamplingOptions(solver=solver, steps=steps)) - fine).square().mean().sqrt()
            for steps in (40, 80)
        ]
        assert lowest < errors[0] / errors[1] < highest, solver


def test_nats_agree_with_a_gaussian(exact):
    exact.likelihood_steps = 64
    distribution = MultivariateNormal(MEAN, covariance())
    torch.manual_seed(0)
    data = distribution.sample((400,))
    nats = exact.nats(data.view(-1, *SMALL.shape), NOTHING.expand(400))
    expected = -distribution.log_prob(data)
    assert abs(float(nats.mean() - expected.mean())) < 0.15, "the mean over random signs"
    diagonal = covariance().diagonal()
    exact.network.covariance = torch.diag(diagonal)  # one sign per number is exact here
    nats = exact.nats(data.view(-1, *SMALL.shape), NOTHING.expand(400))
    expected = -MultivariateNormal(MEAN, torch.diag(diagonal)).log_prob(data)
    torch.testing.assert_close(nats, expected, atol=0.02, rtol=2e-3)


@pytest.mark.slow
def test_unknown_latents_have_the_conditional_distribution(exact):
    """Resampling approaches it: mean and variance of one position of a Gaussian given the other."""
    matrix = covariance()
    known = torch.tensor([0.0, 1, 0, 1, 0, 1], dtype=torch.bool)
    value = MEAN + torch.tensor([0.9, -0.5, 0.3, 0.6, -0.8, 0.4])
    gain = matrix[~known][:, known] @ torch.linalg.inv(matrix[known][:, known])
    expected = MEAN[~known] + gain @ (value - MEAN)[known]
    mask = known.view(SMALL.shape)[:1].expand(2000, 1, 1, 2)
    given = Known(value.view(SMALL.shape).expand(2000, *SMALL.shape), mask)

    def error(resamplings: int) -> float:
        exact.resamplings = resamplings
        samples = sample(exact, 2000, SamplingOptions(steps=40), given).flatten(1)[:, ~known]
        return float((samples.mean(0) - expected).abs().max())

    once, often = error(1), error(8)
    assert often < 0.2 and often < once


class OfCondition(nn.Module):
    """The velocity 1 everywhere for a class, and 0 without one."""

    def __init__(self):
        super().__init__()
        self.anything = nn.Parameter(torch.zeros(1))

    def encode_condition(self, condition):
        given = (condition == 0).float()[:, None]
        return EncodedCondition(torch.zeros(len(condition), 1, 1), given)

    def forward(self, latents, times, encoded):
        return encoded.conditioning[..., None, None].expand_as(latents)


@pytest.mark.parametrize(
    "schedule",
    [
        {"guidance_schedule": "constant"},
        {"guidance_schedule": "linear", "guidance_peak": "end"},
        {"guidance_schedule": "cosine", "guidance_power": 2.0},
        {"guidance_schedule": "power", "guidance_interval": (0.3, 0.8)},
    ],
    ids=str,
)
def test_guidance_follows_its_schedule(schedule, tiny):
    """Each of four steps of Euler adds a quarter of the guidance at its progress."""
    prior = FlowMatching(SMALL, ClassLabels(("a",), dropout=0.5), replace(tiny, adaln="own"))
    prior.network = OfCondition()
    noise = sample(prior, 2, SamplingOptions(guidance=0.0))  # nothing moves it
    options = SamplingOptions(guidance=3.0, solver="euler", steps=4, **schedule)
    added = sample(prior, 2, options) - noise
    expected = sum(options.guidance_at(options.progress(step, 4)) / 4 for step in range(4))
    torch.testing.assert_close(added, torch.full_like(added, expected))


@pytest.mark.parametrize(
    ("distribution", "quartiles"), [("uniform", (0.25, 0.5, 0.75)), ("logit_normal", (0.3375, 0.5, 0.6625))]
)
@pytest.mark.parametrize("shift", [1.0, 3.0])
def test_training_times_have_their_distribution(distribution, quartiles, shift):
    """Quartiles of the uniform distribution, and of a normal one under the sigmoid; shifts move them."""
    times = training_times(4000, distribution, shift, torch.device("cpu"))
    expected = shift_times(torch.tensor(quartiles), shift)
    torch.testing.assert_close(times.quantile(torch.tensor([0.25, 0.5, 0.75])), expected, atol=2e-3, rtol=0)


def test_even_steps_are_better_than_uneven_ones():
    """Eight steps of Heun for 32 narrow normals, whose velocity is known, against many steps."""
    means = torch.randn(32, 8, dtype=torch.float64)
    noise = torch.randn(200, 8, dtype=torch.float64)

    def velocity(x, time):
        variance = (time * 0.1) ** 2 + (1 - time) ** 2
        gain = (time * 0.1**2 - (1 - time)) / variance
        rest = x[:, None] - time * means
        shares = (-rest.square().sum(-1) / (2 * variance)).softmax(dim=1)
        return (shares[..., None] * (means + gain * rest)).sum(1)

    def solve(points):
        x = noise
        for start, end in pairwise(points.tolist()):
            x = solve_step(velocity, x, start, end, "heun")
        return x

    even, fine = torch.linspace(0, 1, 9), solve(torch.linspace(0, 1, 301))
    ways = {
        "even": even,
        "quadratic": even**2,
        "cosine": 1 - (even * math.pi / 2).cos(),
        "small steps first": torch.cat([torch.arange(4) / 100, 0.04 + 0.96 * torch.linspace(0, 1, 5) ** 2]),
    }
    errors = {name: float((solve(points) - fine).square().mean().sqrt()) for name, points in ways.items()}
    assert min(errors, key=lambda name: errors[name]) == "even", errors


def test_the_fast_preset_comes_close_to_a_gaussian(exact):
    """Its eight even steps of Heun; spread unevenly, as many are worse."""
    options = SamplingOptions(**FlowMatching.presets["fast"])
    fine, fast = (sample(exact, 500, each) for each in (SamplingOptions(steps=400), options))
    assert options.steps == 8 and float((fast - fine).square().mean().sqrt()) < 0.1


def test_resampling_keeps_the_distribution_of_the_path():
    data, noise = torch.full((50_000, 1, 1, 1), 2.0), torch.randn(50_000, 1, 1, 1)
    there = torch.lerp(noise, data, 0.7)
    back = renoise(there, 0.7, 0.2, torch.randn_like(there))
    assert float(back.mean()) == pytest.approx(0.4, abs=0.02) and float(back.std()) == pytest.approx(
        0.8, abs=0.02
    )


def test_shifted_times_agree_with_stable_diffusion_3():
    """Equation 23 of arXiv:2403.03206, whose times run from data to noise."""
    times = torch.linspace(0, 1, 7)
    noise = 1 - times
    torch.testing.assert_close(shift_times(times, 3.0), 1 - 3 * noise / (1 + 2 * noise))
    assert torch.equal(shift_times(times, 1.0), times)


def test_times_are_shifted_by_the_number_of_latents(tiny):
    backbone = replace(tiny, adaln="own")
    assert FlowMatching(SMALL, Unconditional(), backbone).time_shift == 1
    large = LatentLayout((512, 512), 16, ((64, 64),))
    assert FlowMatching(large, Unconditional(), backbone, patch=2).time_shift == 4
    assert FlowMatching(large, Unconditional(), backbone, patch=2, times=Times(shift=1.5)).time_shift == 1.5


@torch.no_grad()
def test_the_loss_starts_at_that_of_no_velocity(tiny):
    """Standardized data and noise are two units of variance apart."""
    prior = FlowMatching(LatentLayout((8, 8), 4, ((8, 8),)), Unconditional(), replace(tiny, adaln="own"))
    loss = prior.loss(torch.randn(64, 4, 8, 8), torch.zeros(64, dtype=torch.int64))
    assert float(loss) == pytest.approx(2, rel=0.1)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"backbone": Backbone(24, 1, 3)}, "set backbone.adaln to own or shared"),
        ({"patch": 2}, "patches of 2x2 do not divide latents of 1x2"),
        ({"steps": 0}, "must be at least 1"),
    ],
)
def test_invalid_settings_are_rejected(arguments, message):
    with pytest.raises(UserError, match=message):
        FlowMatching(SMALL, Unconditional(), **arguments)


def test_shift_of_zero_is_rejected():
    with pytest.raises(UserError, match="shift must be above 0"):
        Times(shift=0.0)


@torch.no_grad()
def test_network_agrees_with_dit_of_diffusers():
    from diffusers import DiTTransformer2DModel

    theirs = DiTTransformer2DModel(
        num_attention_heads=2,
        attention_head_dim=8,
        in_channels=3,
        out_channels=3,
        num_layers=2,
        sample_size=8,
        patch_size=2,
        num_embeds_ada_norm=5,
    ).eval()
    for parameter in theirs.parameters():
        parameter.add_(0.1 * torch.randn_like(parameter))
    first = theirs.transformer_blocks[0].norm1.emb
    for block in theirs.transformer_blocks:  # published weights are the same in all blocks
        block.norm1.emb.load_state_dict(first.state_dict())
        block.norm1.emb.timestep_embedder.cond_proj = None
        block.norm1.emb.time_proj.downscale_freq_shift = 0
    backbone = Backbone(
        width=16,
        depth=2,
        heads=2,
        norm="layer",
        feedforward="gelu_tanh",
        positions="learned",
        qk_norm=False,
        bias=True,
        adaln="own",
    )
    layout = LatentLayout((64, 64), 3, ((8, 8),))
    ours = VelocityTransformer(layout, ClassLabels(tuple("abcde"), dropout=0.1), backbone, 2).eval()
    state, source = ours.state_dict(), theirs.state_dict()
    found = {
        "prefix.table.weight": first.class_embedder.embedding_table.weight,
        "time.fc1.weight": first.timestep_embedder.linear_1.weight,
        "time.fc1.bias": first.timestep_embedder.linear_1.bias,
        "time.fc2.weight": first.timestep_embedder.linear_2.weight,
        "time.fc2.bias": first.timestep_embedder.linear_2.bias,
        "embed.weight": source["pos_embed.proj.weight"].flatten(1),
        "embed.bias": source["pos_embed.proj.bias"],
    }
    table = state["transformer.position_embedding.parts.0.table.weight"].clone()
    table[:-1] = theirs.pos_embed.pos_embed[0]
    found["transformer.position_embedding.parts.0.table.weight"] = table
    for number in range(2):
        here, there = f"transformer.layers.{number}", f"transformer_blocks.{number}"
        for kind in ("weight", "bias"):
            parts = [source[f"{there}.attn1.to_{name}.{kind}"] for name in "qkv"]
            found[f"{here}.attention.qkv.{kind}"] = torch.cat(parts)
            found[f"{here}.attention.out.{kind}"] = source[f"{there}.attn1.to_out.0.{kind}"]
            found[f"{here}.feedforward.fc1.{kind}"] = source[f"{there}.ff.net.0.proj.{kind}"]
            found[f"{here}.feedforward.fc2.{kind}"] = source[f"{there}.ff.net.2.{kind}"]
            shift, scale, gate, shift2, scale2, gate2 = source[f"{there}.norm1.linear.{kind}"].chunk(6)
            joined = torch.cat([gate, gate2, scale, scale2, shift, shift2])
            found[f"{here}.modulation.linear.{kind}"] = joined
    for kind in ("weight", "bias"):
        shift, scale = source[f"proj_out_1.{kind}"].chunk(2)
        found[f"transformer.norm.modulation.linear.{kind}"] = torch.cat([scale, shift])
        head = source[f"proj_out_2.{kind}"]
        found[f"head.{kind}"] = head.view(2, 2, 3, *head.shape[1:]).movedim(2, 0).flatten(0, 2)
    assert set(found) == set(state)
    ours.load_state_dict(found)
    latents, times, labels = torch.randn(3, 3, 8, 8), torch.tensor([0.1, 0.5, 0.9]), torch.tensor([0, 5, 2])
    expected = theirs(latents, timestep=1000 * times, class_labels=labels).sample
    torch.testing.assert_close(
        ours(latents, times, ours.encode_condition(labels)), expected, atol=1e-4, rtol=1e-4
    )
    assert math.isfinite(float(expected.sum()))
