"""Byte-level byte pair encoding (Sennrich et al. 2016, arXiv:1508.07909; GPT-2).

The vocabulary is 256 bytes, so that every text has tokens, and a learned list of merges.
"""

import json
import os
from collections.abc import Iterable
from functools import lru_cache
from typing import TYPE_CHECKING, Any
from unicodedata import normalize

from genstack.errors import UserError

if TYPE_CHECKING:
    from tokenizers import Tokenizer

BYTES = 256


def learn_merges(captions: Iterable[str], size: int) -> tuple[str, ...]:
    """Learn at most `size` - 256 merges from captions, each as `left right`."""
    tokenizers = library()
    tokenizer = build_tokenizer(())
    trainer = tokenizers.trainers.BpeTrainer(
        vocab_size=size,
        min_frequency=2,
        show_progress=False,
        initial_alphabet=tokenizers.pre_tokenizers.ByteLevel.alphabet(),
    )
    tokenizer.train_from_iterator((normalize_text(caption) for caption in captions), trainer)
    merges = json.loads(tokenizer.to_str())["model"]["merges"]
    return tuple(merge if isinstance(merge, str) else " ".join(merge) for merge in merges)


def tokenize(caption: str, merges: tuple[str, ...]) -> list[int]:
    """Split a caption into tokens, numbered from 1; 0 is padding. An empty caption has none."""
    text = normalize_text(caption)
    return [number + 1 for number in load_tokenizer(merges).encode(text).ids] if text else []


def normalize_text(caption: str) -> str:
    """Lower case, single spaces, and Unicode NFKC."""
    return " ".join(normalize("NFKC", caption).lower().split())


@lru_cache(maxsize=8)
def load_tokenizer(merges: tuple[str, ...]) -> "Tokenizer":
    """Build and cache the tokenizer of these merges."""
    try:
        return build_tokenizer(merges)
    except Exception as error:  # the library is not written in Python, and raises nothing narrower
        reason = " ".join(str(error).split())
        raise UserError(f"invalid vocabulary of captions: {reason}") from error


def build_tokenizer(merges: tuple[str, ...]) -> "Tokenizer":
    """Build a tokenizer whose token numbers depend on the merges only."""
    tokenizers = library()
    pairs = [tuple(merge.split(" ", 1)) for merge in merges]
    names = [*sorted(tokenizers.pre_tokenizers.ByteLevel.alphabet()), *("".join(pair) for pair in pairs)]
    numbers: dict[str, int] = {}
    for name in names:  # two merges may make the same text
        numbers.setdefault(name, len(numbers))
    tokenizer = tokenizers.Tokenizer(tokenizers.models.BPE(vocab=numbers, merges=pairs))
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=True)
    return tokenizer


def library() -> Any:
    """Import the package `tokenizers`, on one thread, since data loaders fork this process."""
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    import tokenizers

    return tokenizers
