"""Words to numbers by byte-level byte pair encoding (Sennrich et al. 2016, arXiv:1508.07909; GPT-2).

What is learned is a list of pairs to merge; 256 bytes come before them, so that every text has its tokens.
"""

import json
import os
from collections.abc import Iterable
from functools import lru_cache
from typing import TYPE_CHECKING, Any
from unicodedata import normalize

from genstack.errors import UserError, extra

if TYPE_CHECKING:
    from tokenizers import Tokenizer

BYTES = 256


def learn(captions: Iterable[str], size: int) -> tuple[str, ...]:
    """The pairs that captions ask to be merged, at most `size` - 256 of them, each as `left right`."""
    tokenizers = library()
    tokenizer = empty(())
    trainer = tokenizers.trainers.BpeTrainer(
        vocab_size=size,
        min_frequency=2,
        show_progress=False,
        initial_alphabet=tokenizers.pre_tokenizers.ByteLevel.alphabet(),
    )
    tokenizer.train_from_iterator((plain(caption) for caption in captions), trainer)
    merges = json.loads(tokenizer.to_str())["model"]["merges"]
    return tuple(merge if isinstance(merge, str) else " ".join(merge) for merge in merges)


def tokens(caption: str, merges: tuple[str, ...]) -> list[int]:
    """The numbers of a caption's tokens, from 1; 0 is left for none. An empty caption has no tokens."""
    text = plain(caption)
    return [number + 1 for number in tokenizer_of(merges).encode(text).ids] if text else []


def plain(caption: str) -> str:
    """Lower case, one space between words, and each letter written in one way."""
    return " ".join(normalize("NFKC", caption).lower().split())


@lru_cache(maxsize=8)
def tokenizer_of(merges: tuple[str, ...]) -> "Tokenizer":
    """The tokenizer that these merges make.

    Raises:
        UserError: a merge joins what is not there.
    """
    try:
        return empty(merges)
    except Exception as error:  # the library is not written in Python, and raises nothing narrower
        reason = " ".join(str(error).split())
        raise UserError(f"the vocabulary of the captions is damaged: {reason}") from error


def empty(merges: tuple[str, ...]) -> "Tokenizer":
    """A tokenizer of bytes and merges; nothing else decides which numbers the tokens have."""
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
    """The package `tokenizers`, of which all work stays in one thread: loaders fork this process.

    Raises:
        UserError: it is not installed.
    """
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    with extra("captions", "captions need the package tokenizers"):
        import tokenizers
    return tokenizers
