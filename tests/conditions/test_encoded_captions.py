"""Captions through a frozen text encoder: its own states, filled up unseen, and no encoder but its own."""

import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file

from genstack.conditions import EncodedCaptions
from genstack.conditions import text_encoder as encoders
from genstack.inputs import ConditionInputs, DataInfo, Prompts
from genstack.layout import CodeLayout
from genstack.prior import Autoregressive, SamplingOptions, image_seeds
from genstack.prior.masked import Masked
from genstack.prior.random_order import RandomOrder
from genstack.prior.residual import ResidualTransformer
from genstack.transformer import Backbone

TEXTS = ("a red circle", "a blue square left of a red ring", "")
ONE, DEEP = CodeLayout((16, 24), 7, ((2, 3),)), CodeLayout((16, 24), 7, ((2, 3),), depth=2)


@pytest.fixture
def own(text_encoder, tmp_path):
    """A copy that a test may change."""
    return shutil.copytree(text_encoder, tmp_path / "own")


def of(folder, **options):
    return EncodedCaptions(str(folder), **options).fit(DataInfo(captions=lambda: TEXTS))


def inputs(*captions):
    return ConditionInputs(torch.zeros(len(captions), dtype=torch.int64), captions)


def test_states_agree_with_transformers(text_encoder):
    """Each caption by itself, without anything that fills up."""
    import transformers

    condition = of(text_encoder)
    assert condition.length == 9 and condition.dim == 24, "the longest caption has eight words and an end"
    values = condition.encode(inputs(*TEXTS))
    network = transformers.T5EncoderModel.from_pretrained(text_encoder).eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(text_encoder)
    for row, text in zip(values[:2], TEXTS[:2], strict=True):
        with torch.no_grad():
            states = network(**tokenizer(text, return_tensors="pt")).last_hidden_state[0]
        torch.testing.assert_close(row[-len(states) :, 2:], states, atol=1e-5, rtol=1e-4)
        assert (row[-len(states) :, :2] == 1).all() and (row[: -len(states)] == 0).all()
    assert values[2].count_nonzero() == 1 and values[2, -1, 0] == 1, "no caption has one token, and no states"


def test_null_condition_keeps_the_padding(text_encoder):
    condition = of(text_encoder)
    values = condition.encode(inputs(*TEXTS))
    assert torch.equal(condition.padding_mask(condition.null(values)), condition.padding_mask(values))
    assert condition.padding_mask(values).sum(dim=1).tolist() == [5, 0, 8]


@pytest.mark.parametrize("options", [{}, {"cross_attention": True, "adaln": "own"}], ids=["before", "across"])
@pytest.mark.parametrize("kind", [Autoregressive, Masked, RandomOrder, ResidualTransformer])
def test_padding_has_no_effect(text_encoder, kind, options):
    """A prior that reads longer captions computes the same of a short one; read across, by its mean, too."""
    layout = DEEP if kind is ResidualTransformer else ONE
    conditions = [of(text_encoder, length=length) for length in (9, 14)]
    config = Backbone(24, 2, 3, dropout=0.0, **options)
    short, long = (kind(layout, condition, config).eval() for condition in conditions)
    for name, weight in short.named_parameters():
        if name.endswith("head.weight"):
            torch.nn.init.normal_(weight)
    state = {name: value for name, value in short.state_dict().items() if not name.endswith("null_states")}
    assert len(long.load_state_dict(state, strict=False).missing_keys) == 1
    codes = torch.randint(layout.codebook_size, (2, layout.length))
    nats, drawn = [], []
    for prior, condition in zip((short, long), conditions, strict=True):
        values = condition.encode(inputs(*TEXTS[:2]))
        with torch.no_grad():
            nats.append(prior.nats(codes, values))
        drawn.append(prior.sample(values, SamplingOptions(), image_seeds(0, range(2))))
    torch.testing.assert_close(nats[0], nats[1], atol=1e-4, rtol=1e-5)
    assert torch.equal(drawn[0], drawn[1])


def test_encoder_is_not_in_the_prior_and_uses_no_random_numbers(text_encoder):
    encoders.load_encoder.cache_clear()
    before = torch.get_rng_state()
    condition = of(text_encoder)
    assert torch.equal(torch.get_rng_state(), before)
    prior = Autoregressive(ONE, condition, Backbone(24, 1, 3))
    assert {name for name in prior.state_dict() if name.startswith("prefix")} == {
        "prefix.fc1.weight",
        "prefix.fc2.weight",
        "prefix.null_states",
    }
    network = encoders.load_encoder(str(text_encoder), "fp32").network
    assert not any(weight.requires_grad for weight in network.parameters()) and not network.training


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_precision_affects_only_the_encoder(text_encoder, precision):
    exact, rounded = of(text_encoder), of(text_encoder, precision=precision)
    assert exact.weights_hash != rounded.weights_hash
    one, other = (condition.encode(inputs(*TEXTS)) for condition in (exact, rounded))
    assert other.dtype == torch.float32 and 0 < (one - other).abs().max() < 0.1
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(exact.encode(inputs(*TEXTS)), one)


def test_another_encoder_is_rejected_but_a_copy_is_not(own, tmp_path, monkeypatch):
    condition = of(own)
    expected = condition.encode(inputs("a red circle"))
    moved = own.rename(tmp_path / "moved")
    encoders.load_encoder.cache_clear()
    with pytest.raises(ValueError, match=r"no text encoder found in .*own.*GENSTACK_TEXT_ENCODER"):
        condition.encode(inputs("a red circle"))
    monkeypatch.setenv("GENSTACK_TEXT_ENCODER", str(moved))
    assert torch.equal(condition.encode(inputs("a red circle")), expected)
    weights = load_file(moved / "model.safetensors")
    weights["encoder.final_layer_norm.weight"][3] += 0.5
    save_file(weights, moved / "model.safetensors", {"format": "pt"})
    encoders.load_encoder.cache_clear()
    with pytest.raises(ValueError, match="moved is not the one that this prior was trained with"):
        condition.encode(inputs("a red circle"))


def test_another_vocabulary_is_another_encoder(own):
    condition = of(own)
    words = (own / "tokenizer.json").read_text(encoding="utf-8")
    (own / "tokenizer.json").write_text(words.replace('"circle"', '"green"'), encoding="utf-8")
    encoders.load_encoder.cache_clear()
    with pytest.raises(ValueError, match="weights or vocabulary differ"):
        condition.modality.select(Prompts(captions=("a red circle",)), 1)


def test_damaged_encoders_are_refused(own):
    weights = load_file(own / "model.safetensors")
    del weights["encoder.final_layer_norm.weight"]
    save_file(weights, own / "model.safetensors", {"format": "pt"})
    with pytest.raises(ValueError, match=r"is incomplete: no weights for encoder\.final_layer_norm\.weight"):
        of(own)
    (own / "model.safetensors").unlink()
    torch.save(weights, own / "pytorch_model.bin")
    with pytest.raises(ValueError, match="transformers cannot load a text encoder from"):
        of(own)


def test_errors_explain_mistakes(text_encoder, tmp_path):
    with pytest.raises(ValueError, match="no text encoder found in ''"):
        of("")
    with pytest.raises(ValueError, match="no captions; give it captions"):
        EncodedCaptions(str(text_encoder)).fit(DataInfo())
    with pytest.raises(ValueError, match="must be at least 0, got -1"):
        EncodedCaptions(length=-1)
    with pytest.warns(UserWarning, match="1 of 2 captions are longer than 6 tokens.*up to 9"):
        condition = of(text_encoder, length=6)
    with pytest.raises(ValueError, match="has 9 tokens, the prior reads 6"):
        condition.modality.select(Prompts(captions=(TEXTS[1],)), 1)
    with pytest.raises(ValueError, match="invalid name on the hub: hf:nobody"):
        of("hf:nobody")


def test_hub_is_only_used_in_training(monkeypatch, text_encoder):
    """Sampling finds what was fetched, or says how."""
    import huggingface_hub

    asked = []

    def snapshot(repo, local_files_only=False, **_):
        asked.append((repo, local_files_only))
        if local_files_only and len(asked) == 1:
            raise huggingface_hub.errors.LocalEntryNotFoundError("not here")
        return str(text_encoder)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot)
    condition = of("hf:somebody/t5")
    assert asked == [("somebody/t5", True), ("somebody/t5", False)]
    condition.encode(inputs("a red circle"))
    assert asked[2:] == [("somebody/t5", True)]
    asked.clear()
    with pytest.raises(ValueError, match=r"not on this machine; download it .hf download somebody/t5"):
        condition.encode(inputs("a red circle"))


def test_case_is_kept_by_default(text_encoder):
    kept, lower = of(text_encoder), of(text_encoder, lower=True)
    assert not torch.equal(kept.encode(inputs("A Red circle")), kept.encode(inputs("a red circle")))
    assert torch.equal(lower.encode(inputs("A  Red circle ")), lower.encode(inputs("a red circle")))


def test_empty_captions_need_no_library(text_encoder, monkeypatch):
    condition = of(text_encoder)
    monkeypatch.setattr(encoders, "load_encoder", lambda *_: pytest.fail("opened"))
    values = condition.encode(condition.modality.select(Prompts(), 2))
    assert values.shape == (2, 9, 26)
