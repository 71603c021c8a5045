"""Text from outside: what UTF-8 cannot hold, and forms of accents."""

import os
from unicodedata import normalize

import pytest

from genstack.data.text import clean, encodable, existing


@pytest.mark.parametrize(
    ("text", "cleaned"),
    [
        ("", ""),
        ("déjà 画像 🎨", "déjà 画像 🎨"),
        (os.fsdecode(b"caf\xe9"), "café"),
        ("a cat \ud83d", "a cat \ufffd"),
        ("\udc00\udfff", "\ufffd\ufffd"),
    ],
)
def test_clean_text_is_valid_utf8(text, cleaned):
    assert clean(text) == cleaned
    assert encodable(clean(text)) and clean(clean(text)) == clean(text)


def test_existing_and_missing_paths_are_not_changed(tmp_path):
    for form in ("NFC", "NFD"):
        (tmp_path / normalize(form, "é")).mkdir()
    for form in ("NFC", "NFD"):
        assert existing(tmp_path / normalize(form, "é")).name == normalize(form, "é")
    assert existing(tmp_path / "ü" / "ö").name == "ö"
