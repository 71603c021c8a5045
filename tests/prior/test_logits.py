"""Draws follow the probabilities that were asked for, and depend on their seeds alone."""

import math
from dataclasses import replace

import pytest
import torch
from scipy.stats import chisquare

from genstack.conditions import ClassLabels
from genstack.prior.guidance import Guidance
from genstack.prior.logits import (
    image_seeds,
    keep_min_p,
    keep_top_k,
    keep_top_p,
    probabilities,
    sample_from_logits,
    uniforms,
)
from genstack.prior.options import SamplingOptions

LOGITS = torch.tensor([0.3, -1.0, 2.0, 0.0, 1.1, -4.0, 1.0])


def rows(count: int) -> torch.Tensor:
    return LOGITS.expand(count, -1)


def test_frequencies_are_the_softmax():
    count = 20_000
    codes = sample_from_logits(
        rows(count), SamplingOptions(), uniforms(image_seeds(3, range(count)), 1)[:, 0]
    )
    observed = torch.bincount(codes, minlength=len(LOGITS))
    expected = LOGITS.double().softmax(0) * count
    assert chisquare(observed.numpy(), (expected * observed.sum() / expected.sum()).numpy()).pvalue > 1e-3


def test_evenly_spaced_numbers_give_exact_shares():
    count = 10_000
    codes = sample_from_logits(rows(count), SamplingOptions(), (torch.arange(count) + 0.5) / count)
    shares = torch.bincount(codes, minlength=len(LOGITS)) / count
    torch.testing.assert_close(shares, LOGITS.softmax(0), atol=1.5 / count, rtol=0)


@pytest.mark.parametrize("options", [SamplingOptions(temperature=0.0), SamplingOptions(top_k=1)])
def test_greedy_options_take_the_first_of_the_largest(options):
    logits = torch.tensor([[1.0, 5.0, 5.0, -1.0], [0.0, 0.0, 0.0, 0.0]])
    assert sample_from_logits(logits, options, torch.tensor([0.99, 0.99])).tolist() == [1, 0]
    assert probabilities(logits, options).argmax(1).tolist() == [1, 0]


@pytest.mark.parametrize("temperature", [1e-2, 1e-6, 1e-30])
def test_a_small_temperature_is_argmax(temperature):
    logits = torch.randn(50, 13)
    codes = sample_from_logits(logits, SamplingOptions(temperature=temperature), torch.rand(50) * 0.5)
    if temperature < 1e-5:
        assert torch.equal(codes, logits.argmax(1))
    else:
        torch.testing.assert_close(
            probabilities(logits, SamplingOptions(temperature=temperature)),
            (logits / temperature).softmax(1),
        )


def test_temperature_divides_logits():
    torch.testing.assert_close(
        probabilities(rows(1), SamplingOptions(temperature=2.5))[0], (LOGITS / 2.5).softmax(0)
    )


@pytest.mark.parametrize("top_k", [0, 1, 2, 3, 7, 50])
def test_top_k_keeps_the_k_largest(top_k):
    kept = keep_top_k(rows(1), top_k)[0].isfinite()
    order = sorted(range(len(LOGITS)), key=lambda code: -LOGITS[code])
    assert set(kept.nonzero().flatten().tolist()) == set(order[: top_k or None])


@pytest.mark.parametrize("top_p", [1e-9, 0.3, 0.5, 0.52, 0.9, 0.999, 1.0])
def test_top_p_keeps_the_smallest_set_that_reaches_p(top_p):
    chances = LOGITS.softmax(0).tolist()
    wanted, total = set(), 0.0
    for code in sorted(range(len(chances)), key=lambda code: -chances[code]):
        if total >= top_p:
            break
        wanted.add(code)
        total += chances[code]
    kept = keep_top_p(rows(1), top_p)[0]
    assert set(kept.isfinite().nonzero().flatten().tolist()) == wanted
    assert torch.equal(kept[kept.isfinite()], LOGITS[kept.isfinite()])


@pytest.mark.parametrize("min_p", [0.0, 0.05, 0.3, 0.9, 1.0])
def test_min_p_keeps_codes_near_the_likeliest(min_p):
    chances = LOGITS.double().softmax(0)
    kept = keep_min_p(rows(1), min_p)[0].isfinite()
    assert torch.equal(kept, chances >= min_p * chances.max() * (1 - 1e-6))


def steering(**options) -> Guidance:
    return Guidance(ClassLabels(("a", "b")), torch.tensor([0, 1]), SamplingOptions(**options))


def test_guidance_is_exact_at_its_ends_and_linear():
    conditional, null = torch.randn(2, 2, 5) * 100
    logits = torch.cat([conditional, null])
    assert torch.equal(steering(guidance=1.0).apply(conditional, 0.5), conditional)
    assert torch.equal(steering(guidance=0.0).apply(logits, 0.5), null)
    steered = steering(guidance=2.5).apply(logits, 0.5)
    torch.testing.assert_close(steered, null + 2.5 * (conditional - null))
    assert steering(guidance=2.0).values.tolist() == [0, 1, 2, 2]
    assert steering(guidance=2.0).expand(torch.tensor([5, 6])).tolist() == [5, 6, 5, 6]


@pytest.mark.parametrize(
    ("schedule", "half"), [("constant", 4.0), ("linear", 2.5), ("cosine", 2.5), ("power", 1.75)]
)
def test_guidance_schedules_end_at_the_guidance(schedule, half):
    options = SamplingOptions(guidance=4.0, guidance_schedule=schedule)
    assert options.guidance_at(1.0) == pytest.approx(4.0)
    assert options.guidance_at(0.5) == pytest.approx(half)
    assert options.guidance_at(0.0) == (4.0 if schedule == "constant" else 1.0)


def test_guidance_peaks_at_the_last_codes_or_a_step_after_them():
    """The exponent of the schedule cosine is that of 1d-tokenizer, whose progress is k / K at step k of K."""
    options = SamplingOptions(guidance=4.0, guidance_schedule="cosine", guidance_power=2.75)
    assert [options.progress(step, 5) for step in range(5)] == [0.0, 0.25, 0.5, 0.75, 1.0]
    late = replace(options, guidance_peak="end")
    assert [late.progress(step, 5) for step in (0, 4)] == [0.0, 0.8]
    expected = 3 * (1 - math.cos(math.pi * 0.8**2.75)) / 2 + 1
    assert late.guidance_at(late.progress(4, 5)) == pytest.approx(expected)
    assert options.progress(0, 1) == late.progress(0, 1) == 0.0


def test_guidance_applies_only_in_its_interval():
    options = SamplingOptions(guidance=4.0, guidance_interval=(0.25, 0.75))
    assert [options.guidance_at(way) for way in (0.0, 0.25, 0.5, 0.75, 1.0)] == [1.0, 4.0, 4.0, 4.0, 1.0]


def test_codes_of_zero_probability_are_never_sampled():
    logits = torch.full((4, 6), -torch.inf)
    logits[:, 2:4] = 0.0
    numbers = torch.tensor([0.0, 0.5 - 2**-24, 0.5, 1 - 2**-24])
    assert sample_from_logits(logits, SamplingOptions(), numbers).tolist() == [2, 2, 3, 3]


def test_half_precision_logits_are_summed_in_float32():
    logits = torch.zeros(1, 4096, dtype=torch.bfloat16)
    torch.testing.assert_close(probabilities(logits, SamplingOptions()), torch.full((1, 4096), 1 / 4096))
    assert sample_from_logits(logits, SamplingOptions(), torch.tensor([0.75 + 2**-14])).tolist() == [3072]


def test_uniforms_depend_only_on_their_seed():
    seeds = image_seeds(5, range(7))
    together = uniforms(seeds, 9)
    assert torch.equal(together[2:3], uniforms(seeds[2:3], 9))
    assert torch.equal(together[:, :4], uniforms(seeds, 4))
    assert torch.equal(image_seeds(5, [6, 2]), seeds[[6, 2]])


def test_uniforms_are_uniform_and_independent():
    numbers = uniforms(image_seeds(0, range(400)), 50)
    assert numbers.dtype == torch.float32
    assert numbers.min() >= 0 and numbers.max() < 1
    assert len(numbers.unique()) > 0.99 * numbers.numel()
    assert chisquare(torch.histc(numbers, 20, 0, 1).numpy()).pvalue > 1e-3
    assert chisquare(torch.histc(numbers[:, 0], 20, 0, 1).numpy()).pvalue > 1e-3


def test_seeds_differ_between_runs_and_images():
    seeds = torch.cat([image_seeds(seed, range(100)) for seed in range(20)])
    assert len(seeds.unique()) == 2000
    upper = seeds[0] ^ (1 << 40)  # a generator that reads 32 bits of its seed would not see this
    assert not torch.equal(uniforms(seeds[:1], 5), uniforms(upper[None], 5))


def test_a_negative_seed_is_refused():
    with pytest.raises(ValueError, match="seed must be at least 0, got -3"):
        image_seeds(-3, range(2))


@pytest.mark.parametrize(
    "options",
    [
        {"temperature": -0.1},
        {"top_k": -1},
        {"top_p": 0.0},
        {"top_p": 1.2},
        {"guidance": -1.0},
        {"min_p": 1.5},
        {"steps": -1},
    ],
)
def test_options_out_of_range_are_refused(options):
    (name, value), *_ = options.items()
    with pytest.raises(ValueError, match=f"{name} must be .*, got {value}"):
        SamplingOptions(**options)


def test_unknown_schedule_is_rejected_before_sampling():
    """Set behind its back: the types that tests check would refuse it before."""
    options = SamplingOptions()
    object.__setattr__(options, "guidance_schedule", "cosin")
    with pytest.raises(
        ValueError, match=r"guidance_schedule must be one of constant, linear, cosine, power, got cosin"
    ):
        options.__post_init__()
