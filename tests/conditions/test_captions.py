"""Captions: every text has tokens, the same for whoever learns them; what is too long is said."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import ByteLevelBPETokenizer

from genstack.conditions import Captions
from genstack.conditions.vocabulary import learn_merges, load_tokenizer, normalize_text, tokenize
from genstack.inputs import ConditionInputs, DataInfo, Prompts

TEXTS = ["a red circle left of a blue square", "a green ring above a red ring", "an orange circle"] * 5
MERGES = learn_merges(TEXTS, 300)


def of(*captions, **options):
    return Captions(**options).fit(DataInfo(captions=lambda: captions))


def inputs(*captions):
    return ConditionInputs(torch.zeros(len(captions), dtype=torch.int64), captions)


def test_learning_is_repeated_exactly():
    assert learn_merges(TEXTS, 300) == MERGES and 0 < len(MERGES) <= 300 - 256
    assert learn_merges(TEXTS, 256) == ()


def test_tokens_agree_with_the_trained_library(tmp_path):
    """The merges alone give back the cuts of the tokenizer that was trained, whatever its numbers are."""
    reference = ByteLevelBPETokenizer(add_prefix_space=True)
    reference.train_from_iterator(TEXTS, vocab_size=300, min_frequency=2, show_progress=False)
    for text in (*TEXTS[:3], "a magenta heptagon", "größe 漢字"):
        names = load_tokenizer(MERGES).encode(text).tokens
        assert names == reference.encode(text).tokens


@settings(deadline=None)
@given(st.text())
def test_texts_round_trip_through_tokens(text):
    numbers = tokenize(text, MERGES)
    assert all(1 <= number <= 256 + len(MERGES) for number in numbers)
    assert (numbers == []) == (normalize_text(text) == "")
    names = load_tokenizer(MERGES)
    letters = {letter: byte for byte, letter in bytes_to_letters().items()}
    spelled = bytes(letters[letter] for number in numbers for letter in names.id_to_token(number - 1))
    assert spelled.decode() == (" " + normalize_text(text) if numbers else "")


def bytes_to_letters():
    """GPT-2's letter for each byte: itself where it can be printed, else the next above 255 in turn."""
    printed = {*range(33, 127), *range(161, 173), *range(174, 256)}
    hidden = [byte for byte in range(256) if byte not in printed]
    return {byte: chr(byte) for byte in printed} | {byte: chr(256 + i) for i, byte in enumerate(hidden)}


def test_case_and_spaces_do_not_matter_and_words_are_whole():
    assert tokenize("  A red\tCIRCLE ", MERGES) == tokenize("a red circle", MERGES)
    big = learn_merges(TEXTS, 400)
    assert len(tokenize("a red circle", big)) == 3, "the first word is cut as any other"


def test_length_is_the_longest_caption_with_padding():
    condition = of(*TEXTS, vocabulary=400)
    assert condition.length == 8
    values = condition.encode(inputs("a red ring", "", TEXTS[0]))
    assert (values > 0).sum(dim=1).tolist() == [3, 0, 8]
    assert torch.equal(values[1:2], condition.null(values[1:2]))
    assert torch.equal(
        condition.encode(ConditionInputs(torch.zeros(2, dtype=torch.int64))), torch.zeros(2, 8).long()
    )


def test_truncated_captions_are_counted():
    with pytest.warns(UserWarning, match="10 of 15 captions are longer than 3 tokens.*up to 8"):
        condition = of(*TEXTS, vocabulary=400, length=3)
    assert condition.length == 3 and (condition.encode(inputs(TEXTS[0])) > 0).all()


def test_errors_explain_mistakes():
    condition = of(*TEXTS, vocabulary=400)
    with pytest.raises(ValueError, match="has 16 tokens, the prior reads 8; shorten it"):
        condition.modality.select(Prompts(captions=(TEXTS[0] * 2,)), 1)
    with pytest.raises(ValueError, match="the data has no captions"):
        of("", " ")
    for option in ({"vocabulary": 255}, {"length": -1}, {"depth": -1}, {"heads": 0}):
        with pytest.raises(ValueError, match="of captions must be"):
            Captions(**option)
    with pytest.raises(ValueError, match="width 20 is not a multiple of the captions' 8 heads"):
        of(*TEXTS, heads=8).embedding(20)
    with pytest.raises(ValueError, match="invalid vocabulary of captions"):
        tokenize("a", ("not there",))


def test_words_attend_to_each_other():
    """`circle` is another vector beside `red` than beside `green`."""
    condition = of(*TEXTS, vocabulary=400)
    encoder = condition.embedding(16).eval()
    red, green = encoder(condition.encode(inputs("a red circle", "a green circle")))
    assert (red[2] - green[2]).abs().max() > 1e-4
    assert torch.equal(
        condition.encode(inputs("a red circle"))[0, 2], condition.encode(inputs("a green circle"))[0, 2]
    )
