"""The autoregressive prior, beyond the laws of every prior."""

from dataclasses import replace

import pytest
import torch
from torch import nn

from genstack.conditions import ClassLabels, Unconditional
from genstack.layout import CodeLayout
from genstack.prior import Autoregressive, SamplingOptions, image_seeds
from genstack.prior.autoregressive import TransformerState
from genstack.transformer import Backbone
from genstack.transformer.head import ScaledEmbedding

CLASSES = ClassLabels(("a", "b", "c"), dropout=0.25)
CHANGES = {
    "default": {},
    "layer norm": {"norm": "layer", "feedforward": "gelu", "bias": True},
    "learned": {"positions": "learned", "qk_norm": False},
    "shared keys": {"kv_heads": 1},
    "shared keys of length one": {"kv_heads": 1, "qk_norm": "unit"},
}


@pytest.fixture(params=CHANGES.values(), ids=CHANGES.keys())
def prior(request, layout, tiny) -> Autoregressive:
    prior = Autoregressive(layout, CLASSES, replace(tiny, **request.param)).eval()
    for parameter in prior.parameters():  # away from the small weights of the start, so that differences show
        nn.init.normal_(parameter, std=0.3)
    assert isinstance(prior.codes, ScaledEmbedding)
    prior.codes.weight.data /= prior.codes.scale
    return prior


def codes_and_labels(prior: Autoregressive, batch: int) -> tuple[torch.Tensor, torch.Tensor]:
    codes = torch.randint(prior.layout.codebook_size, (batch, prior.layout.length))
    return codes, torch.arange(batch) % 4


def decoded(prior: Autoregressive, codes: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    state = TransformerState(prior, labels)
    logits = [state.start()] + [state.step(column) for column in codes[:, :-1].T]
    return torch.stack(logits, dim=1)


@pytest.mark.parametrize("batch", [1, 5])
@torch.no_grad()
def test_cached_logits_agree_with_full_forward(prior, batch):
    codes, labels = codes_and_labels(prior, batch)
    full = prior.logits(codes, labels)
    assert full.std() > 0.1
    torch.testing.assert_close(decoded(prior, codes, labels), full, atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_codes_affect_only_later_logits(prior):
    codes, labels = codes_and_labels(prior, 2)
    before = prior.logits(codes, labels)
    for changed in range(0, prior.layout.length, 4):
        other = codes.clone()
        other[:, changed] = (other[:, changed] + 1) % prior.layout.codebook_size
        differs = (prior.logits(other, labels) - before).abs().amax((0, 2)) > 1e-6
        assert differs.nonzero().flatten().tolist() == list(range(changed + 1, prior.layout.length))


@pytest.mark.slow
@torch.no_grad()
def test_guidance_mixes_the_two_distributions(prior):
    """Greedy sampling under guidance against the same by hand, with full forwards and no cache."""
    labels, scale = torch.tensor([0, 2]), 2.5
    sampled = prior.sample(labels, SamplingOptions(temperature=0.0, guidance=scale), image_seeds(0, range(2)))
    codes = torch.zeros_like(sampled)
    for index in range(prior.layout.length):
        conditional = prior.logits(codes, labels)[:, index]
        null = prior.logits(codes, torch.full_like(labels, 3))[:, index]
        codes[:, index] = (null + scale * (conditional - null)).argmax(-1)
    assert torch.equal(sampled, codes)


@pytest.mark.slow
def test_guidance_one_is_conditional_and_zero_is_unconditional(prior):
    labels, seeds = torch.tensor([0, 1, 2]), image_seeds(0, range(3))
    conditional, null = (
        prior.sample(values, SamplingOptions(), seeds) for values in (labels, CLASSES.null(labels))
    )
    assert torch.equal(prior.sample(labels, SamplingOptions(guidance=1.0), seeds), conditional)
    assert torch.equal(prior.sample(labels, SamplingOptions(guidance=0.0), seeds), null)
    assert not torch.equal(conditional, null)


@pytest.mark.parametrize("condition", [Unconditional(), ClassLabels(("a", "b"), dropout=0.0)])
def test_guidance_without_condition_dropout_is_refused(condition, tiny):
    prior = Autoregressive(CodeLayout((8, 8), 5, ((2, 2),)), condition, tiny)
    with pytest.raises(ValueError, match=r"guidance 2.0 needs .* use guidance 1, or train"):
        prior.sample(
            torch.zeros(1, dtype=torch.int64), SamplingOptions(guidance=2.0), image_seeds(0, range(1))
        )


def test_sampling_keeps_the_mode_and_returns_trainable_codes(tiny):
    prior = Autoregressive(CodeLayout((8, 8), 5, ((2, 3),)), CLASSES, replace(tiny, dropout=0.5))
    labels, seeds = torch.tensor([0, 1]), image_seeds(0, range(2))
    codes = prior.sample(labels, SamplingOptions(), seeds)
    assert all(module.training for module in prior.modules())
    assert torch.equal(codes, prior.sample(labels, SamplingOptions(), seeds)), "dropout is off in sampling"
    prior.loss(codes, labels).backward()
    prior.eval().sample(labels, SamplingOptions(), seeds)
    assert not any(module.training for module in prior.modules())


def test_code_noise_applies_only_in_training(tiny):
    prior = Autoregressive(CodeLayout((8, 8), 7, ((3, 5),)), Unconditional(), tiny, code_noise=0.5)
    codes, labels = codes_and_labels(prior, 6)[0], torch.zeros(6, dtype=torch.int64)
    assert prior.loss(codes, labels) != prior.loss(codes, labels)
    prior.eval()
    assert prior.loss(codes, labels) == prior.loss(codes, labels)
    torch.testing.assert_close(prior.loss(codes, labels) * 15, prior.nats(codes, labels).mean())
    with pytest.raises(ValueError, match=r"code_noise must be at least 0 and below 1, got 1\.5"):
        Autoregressive(prior.layout, CLASSES, tiny, code_noise=1.5)


@pytest.mark.parametrize("training", [True, False])
def test_conditions_are_dropped_only_in_training(tiny, training):
    prior = Autoregressive(CodeLayout((8, 8), 7, ((3, 5),)), CLASSES, tiny).train(training)
    prior.loss(torch.randint(7, (60, 15)), torch.zeros(60, dtype=torch.int64)).backward()
    seen = prior.prefix.table.weight.grad.abs().sum(1) > 0
    assert seen.tolist() == [True, False, False, training]


def test_checkpointing_changes_no_gradient(tiny):
    layout, gradients = CodeLayout((8, 8), 7, ((3, 5),)), []
    for checkpoint in (False, True):
        torch.manual_seed(0)
        prior = Autoregressive(layout, CLASSES, replace(tiny, checkpoint=checkpoint, dropout=0.1))
        prior.loss(*codes_and_labels(prior, 4)).backward()
        gradients.append([parameter.grad for parameter in prior.parameters()])
    for plain, again in zip(*gradients, strict=True):
        assert torch.equal(plain, again)


def test_losses_and_logits_are_float32_under_autocast_and_the_cache_is_not(layout, tiny):
    prior = Autoregressive(layout, CLASSES, tiny).eval()
    codes, labels = codes_and_labels(prior, 2)
    expected = prior.nats(codes, labels)
    with torch.autocast("cpu", torch.bfloat16), torch.no_grad():
        state = TransformerState(prior, labels)
        assert state.start().dtype == prior.loss(codes, labels).dtype == torch.float32
        assert (
            state.transformer.caches[0].keys.dtype
            == state.transformer.caches[0].values.dtype
            == torch.bfloat16
        )
        torch.testing.assert_close(prior.nats(codes, labels), expected, rtol=1e-2, atol=0)


@pytest.mark.parametrize(
    ("plan", "hint"),
    [
        ({"width": 30}, "use 36 or change `heads`"),
        ({"width": 22, "positions": "learned"}, "use 24"),
        ({"depth": 0}, "at least 1"),
        ({"dropout": 1.0}, "below 1"),
    ],
)
def test_invalid_backbone_is_rejected(plan, hint, tiny):
    with pytest.raises(ValueError, match=hint):
        replace(tiny, **plan)


def test_default_backbone_has_llamagens_mlp_width():
    assert Backbone().mlp_width == 1024
    assert Backbone(width=1024, heads=16).mlp_width == 2816
    assert Backbone(width=1280, heads=20).mlp_width == 3584
    assert Backbone(feedforward="gelu").mlp_width == 4 * 384
