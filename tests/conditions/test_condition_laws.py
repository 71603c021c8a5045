"""Laws of conditions; a new file in genstack/conditions inherits all of it."""

import inspect
from dataclasses import replace
from typing import Any

import pytest
import torch

import genstack.conditions
from genstack.compressor import Autoencoder, Strided
from genstack.compressor.quantizers import VectorQuantizer
from genstack.conditions import Condition, Unconditional
from genstack.description import build, describe
from genstack.discovery import discover
from genstack.inputs import ConditionInputs, DataInfo, Prompts
from genstack.layout import CodeLayout
from genstack.prior import Autoregressive, SamplingOptions, image_seeds
from genstack.transformer import Backbone

CONDITIONS = discover(genstack.conditions, Condition)
CAPTIONS = ("a low tone", "a high tone")
DATA = DataInfo(
    ("low", "high"), lambda: [*CAPTIONS, "a low and a high tone"] * 20, (3, 16, 24), crops_vary=True
)
CROPS = ((0.0, 0.0, 0.5, 0.5), (0.25, 0.5, 1.0, 1.0))
LAYOUT = CodeLayout((16, 24), 6, ((2, 4),))
EVERYTHING = Prompts(("low",), CAPTIONS, torch.zeros(1, 3, 16, 24), ("a.png",), CROPS)


def inputs(count: int) -> ConditionInputs:
    """Low and high in turn, as every kind of input."""
    high = torch.arange(count) % 2
    images = (high * 2 - 1.0)[:, None, None, None] * torch.linspace(-1, 1, 24).expand(count, 3, 16, 24)
    crops = torch.tensor([CROPS[int(each)] for each in high])
    return ConditionInputs(
        high, tuple(CAPTIONS[int(each)] for each in high), images, ("a.png",) * count, crops
    )


@pytest.fixture(params=CONDITIONS.values(), ids=CONDITIONS.keys())
def condition(request) -> Condition:
    return request.param(**required(request)).fit(DATA)


def required(request) -> dict[str, Any]:
    """Arguments that a condition needs."""
    if request.param.__name__ == "EncodedCaptions":
        return {"encoder": str(request.getfixturevalue("text_encoder"))}
    if request.param.__name__ == "ImageCodes":
        network = Autoencoder(3, Strided(8, 4, 1, 8), VectorQuantizer(16, 4)).eval()
        return {"network": network.requires_grad_(False)}
    return {}


def test_conditions_are_discovered():
    expected = {
        "Captions",
        "ClassLabels",
        "ConditionImage",
        "Coordinates",
        "EncodedCaptions",
        "ImageCodes",
        "Unconditional",
    }
    assert expected <= set(CONDITIONS)


def test_a_condition_is_plain_data(condition):
    assert build(describe(condition)) == condition
    assert hash(condition) == hash(build(describe(condition)))


def test_values_become_length_tokens(condition):
    values = condition.encode(inputs(5))
    tokens = condition.embedding(16)(values)
    assert len(values) == 5 and tokens.shape == (5, condition.length, 16)


def test_values_of_an_image_do_not_depend_on_its_batch(condition):
    all_of_them = condition.encode(inputs(5))
    for index in range(5):
        assert torch.equal(condition.encode(inputs(5)[[index]])[0], all_of_them[index])


def test_values_are_on_the_device_of_the_inputs(condition):
    if condition.network is not None:
        pytest.skip("they are computed, and a device without values computes nothing")
    assert condition.encode(inputs(2).to("meta")).device.type == "meta"


def test_null_has_the_shape_of_values_and_dropout_makes_it(condition):
    values = condition.encode(inputs(4))
    null = condition.null(values)
    assert null.shape == values.shape and null.dtype == values.dtype
    if condition.dropout == 0:
        assert isinstance(condition, Unconditional)
        return
    assert not torch.equal(null, values)
    always = replace(condition, dropout=0.999999)
    assert torch.equal(always.drop(values), null)


def test_inputs_without_prompts_are_null_if_the_prior_learned_null(condition):
    if "ClassLabels" in type(condition).__name__:
        pytest.skip("without a wish, all classes are drawn in turn")
    values = condition.encode(condition.modality.select(Prompts(), 3))
    assert torch.equal(values, condition.null(values))
    if condition.dropout:
        with pytest.raises(ValueError, match="was trained without dropout and needs"):
            replace(condition, dropout=0.0).modality.select(Prompts(), 3)


def test_prompts_are_cycled_and_other_kinds_rejected(condition):
    with pytest.raises(ValueError, match=r"this prior was trained .* and does not read"):
        condition.modality.select(EVERYTHING, 5)
    met = 0
    for name in ("classes", "captions", "images", "crops"):
        only = Prompts(**{name: getattr(EVERYTHING, name)})
        try:
            chosen = condition.modality.select(only, 5)
        except ValueError:
            continue
        met += 1
        assert len(chosen) == 5 and len(condition.modality.describe(chosen)) == 5
        assert torch.equal(condition.encode(chosen[[4]]), condition.encode(chosen)[[4]])
    assert met == (0 if isinstance(condition, Unconditional) else 1)


def test_padding_never_covers_a_whole_condition(condition):
    hidden = condition.padding_mask(condition.encode(inputs(5)))
    assert hidden is None or (hidden.shape == (5, condition.length) and not hidden.all(dim=1).any())


def test_previews_can_be_described(condition):
    shown = condition.modality.preview(inputs(3))
    assert len(shown) == 3 and condition.encode(shown).shape == condition.encode(inputs(3)).shape
    assert all(isinstance(word, str) for told in condition.modality.describe(shown) for word in told.values())


@pytest.mark.parametrize("dropout", [-0.1, 1.0])
def test_invalid_dropout_is_rejected(condition, dropout):
    if "dropout" not in inspect.signature(type(condition)).parameters:
        pytest.skip("it has no null")
    with pytest.raises(ValueError, match=f"dropout must be at least 0 and below 1, got {dropout}"):
        replace(condition, dropout=dropout)


def test_gradients_reach_every_parameter(condition):
    values = condition.encode(inputs(6))
    embedding = condition.embedding(16)
    tokens = torch.cat([embedding(values), embedding(condition.null(values))])
    (tokens * torch.randn_like(tokens)).sum().backward()
    for name, parameter in embedding.named_parameters():
        assert parameter.grad is not None and parameter.grad.abs().sum() > 0, name


@pytest.mark.slow
def test_a_prior_follows_it_and_guidance_amplifies_it(condition):
    """Low has codes below 3 mostly, high the others."""
    if condition.dropout == 0:
        return
    known = inputs(32)
    values, high = condition.encode(known), known.labels[:, None]
    prior = Autoregressive(LAYOUT, replace(condition, dropout=0.3), Backbone(32, 2, 4, dropout=0.0))
    optimizer = torch.optim.AdamW(prior.parameters(), 3e-3)
    for _ in range(120):
        optimizer.zero_grad()
        odd = (torch.rand(32, LAYOUT.length) < 0.2).long()
        prior.loss(torch.randint(3, (32, LAYOUT.length)) + 3 * (high ^ odd), values).backward()
        optimizer.step()
    shares, many = [], values.repeat(4, *[1] * (values.ndim - 1))
    for guidance in (0.0, 1.0, 3.0):
        codes = prior.sample(many, SamplingOptions(guidance=guidance), image_seeds(0, range(128)))
        shares.append(((codes >= 3) == (high.repeat(4, 1) == 1)).float().mean())
    assert 0.3 < shares[0] < 0.7 and shares[1] > 0.7 and shares[2] > shares[1] + 0.03
