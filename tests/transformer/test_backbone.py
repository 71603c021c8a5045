"""Options of the backbone that published transformers need, in priors that are trained here."""

from dataclasses import replace

import pytest
import torch
from torch.nn.functional import layer_norm, rms_norm

from genstack.conditions import ClassLabels
from genstack.errors import UserError
from genstack.layout import CodeLayout
from genstack.prior import Autoregressive, SamplingOptions, image_seeds
from genstack.prior.masked import Masked
from genstack.prior.next_scale import NextScale
from genstack.prior.random_order import RandomOrder
from genstack.prior.residual import ResidualTransformer
from genstack.transformer import Backbone
from genstack.transformer.attention import qk_norm

CLASSES = ClassLabels(("a", "b", "c"), dropout=0.2)
LAYOUT = CodeLayout((16, 24), 7, ((2, 3),))
SMALL = Backbone(24, 2, 3)
BACKBONES = {
    "rar": replace(SMALL, adaln="own", adaln_steps=True, registers=1, qk_norm="layer", bias=True),
    "halton": replace(SMALL, adaln="own", prefix=False, registers=2, qk_norm="width", head_bias=True),
    "narrow heads": replace(SMALL, head_dim=4, kv_heads=1, epsilon=1e-3, tied=False, head_bias=True),
    "shared steps": replace(SMALL, adaln="shared", adaln_steps=True),
    "bert": replace(SMALL, norm="layer", bias=True, post_norm=True, epsilon=1e-12),
    "u-vit": replace(SMALL, depth=4, skips=True, checkpoint=True),
    "crossed": replace(SMALL, cross_attention=True, prefix=False, registers=1),
}
LAYOUTS = {ResidualTransformer: CodeLayout((16, 24), 7, ((2, 3),), 2)}


@pytest.mark.parametrize("backbone", BACKBONES.values(), ids=BACKBONES)
@pytest.mark.parametrize("kind", [Autoregressive, Masked, RandomOrder, ResidualTransformer])
def test_gradients_reach_every_parameter(kind, backbone):
    layout = LAYOUTS.get(kind, LAYOUT)
    prior = kind(layout, CLASSES, backbone)
    prior.loss(torch.randint(7, (16, layout.length)), torch.arange(16) % 3).backward()
    for name, parameter in prior.named_parameters():
        assert parameter.grad is not None and parameter.grad.abs().sum() > 0, name


@torch.no_grad()
@pytest.mark.parametrize("backbone", BACKBONES.values(), ids=BACKBONES)
@pytest.mark.parametrize("kind", [Autoregressive, RandomOrder, ResidualTransformer])
def test_sampling_with_caches_has_the_logits_of_one_pass(kind, backbone):
    layout = LAYOUTS.get(kind, LAYOUT)
    prior = kind(layout, CLASSES, backbone)
    for parameter in prior.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    labels = torch.arange(4) % 3
    codes = prior.sample(labels, SamplingOptions(temperature=0.0), image_seeds(0, range(4)))
    orders = (prior.raster(codes),) if kind is RandomOrder else ()
    assert torch.equal(codes, prior.eval().logits(codes, labels, *orders).argmax(dim=-1))


@torch.no_grad()
def test_query_and_key_norms_agree_with_torch():
    heads = torch.randn(2, 5, 6, 8)
    layer = qk_norm(replace(SMALL, qk_norm="layer", epsilon=0.1))
    layer.gain.normal_(), layer.bias.normal_()
    for head in range(6):
        channels = slice(8 * head, 8 * head + 8)
        expected = layer_norm(heads[:, :, head], (8,), layer.gain[channels], layer.bias[channels], 0.1)
        torch.testing.assert_close(layer(heads)[:, :, head], expected)
    width = qk_norm(replace(SMALL, qk_norm="width", epsilon=0.1))
    for part in (slice(0, 3), slice(3, 6)):
        expected = rms_norm(heads[:, :, part].flatten(2), (24,), eps=0.1)
        torch.testing.assert_close(width(heads)[:, :, part].flatten(2), expected)


@pytest.mark.parametrize(("depth", "count"), [(4, 1), (5, 2)])
def test_pairs_of_layers_are_joined_around_the_middle(depth, count):
    prior = Masked(LAYOUT, CLASSES, replace(SMALL, depth=depth, skips=True))
    assert len(prior.network.transformer.skips) == count


@torch.no_grad()
@pytest.mark.parametrize("schedule", ["constant", "linear"])
def test_the_last_step_of_a_falling_temperature_is_greedy(schedule):
    """In one step, which is the last, only a falling temperature leaves nothing to chance."""
    prior = Masked(LAYOUT, CLASSES, SMALL, predict_mask=True).eval()
    options = SamplingOptions(temperature=9.0, temperature_schedule=schedule, steps=1)
    codes = prior.sample(torch.zeros(8, dtype=torch.int64), options, image_seeds(0, range(8)))
    assert bool((codes == codes[:1]).all()) == (schedule == "linear")
    with pytest.raises(UserError, match="supports only temperature_schedule constant, got linear"):
        Autoregressive(LAYOUT, CLASSES, SMALL).check(SamplingOptions(temperature_schedule="linear"))


@torch.no_grad()
def test_a_condition_without_prefix_still_steers():
    prior = Masked(LAYOUT, CLASSES, replace(BACKBONES["halton"], registers=0)).eval()
    for parameter in prior.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    codes = prior.sample(torch.tensor([0, 1]), SamplingOptions(temperature=0.0), image_seeds(0, [0, 0]))
    assert prior.network.prefix_length == 0
    assert not torch.equal(codes[0], codes[1])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"adaln_steps": True}, "adaln_steps needs `adaln: own`"),
        ({"prefix": False}, "without a prefix, the condition needs `adaln: own`"),
        ({"post_norm": True, "adaln": "own"}, "post_norm and adaLN exclude each other"),
        ({"head_dim": 6}, "head_dim must be a multiple of 4"),
        ({"registers": -1}, "registers must be at least 0"),
        ({"epsilon": 0.0}, "epsilon must be above 0"),
    ],
)
def test_options_that_exclude_each_other_are_refused(options, message):
    with pytest.raises(UserError, match=message):
        replace(SMALL, **options)


@pytest.mark.parametrize("kind", [Autoregressive, RandomOrder])
def test_the_first_code_needs_a_token_before_it(kind):
    with pytest.raises(UserError, match="1 for `registers`"):
        kind(LAYOUT, CLASSES, replace(SMALL, adaln="own", prefix=False))


def test_grids_are_predicted_behind_registers():
    layout = CodeLayout((16, 16), 7, ((1, 1), (2, 2)))
    prior = NextScale(layout, CLASSES, BACKBONES["rar"])
    assert prior.prefix_length == 2
    assert len(prior.transformer.steps.weight) == 2 + layout.length
