"""Laws of sources."""

import pickle
from collections.abc import Callable
from typing import Any

import torch

import genstack.data.sources as package
from genstack.data.images import Preprocessing
from genstack.data.source import Source
from genstack.discovery import classes_in


class Named:
    """A kind of source and a name that it claims."""

    def __init__(self, kind: type[Source], name: str, **given: Any):
        self.kind, self.name = kind, name
        self.open: Callable[[], Source] = lambda: kind(name, **given)


def make(part: type[Source], name: str = "", **given: Any) -> Named:
    """Build the source of a name, the first of its examples if none is given."""
    return Named(part, name or part.names()[0], **given)


def no_other_kind_claims_the_name(named: Named) -> None:
    """No other kind of genstack claims the name."""
    others = classes_in(package, Source).values()  # type: ignore[type-abstract]
    claims = [kind.__name__ for kind in others if kind is not named.kind and kind.claims(named.name)]
    assert not claims, f"{claims[0]} claims '{named.name}', too"


def examples_are_claimed(named: Named) -> None:
    """The kind claims the names that messages show as examples."""
    assert all(named.kind.claims(name) for name in named.kind.names())


def images_are_a_function_of_their_number(named: Named) -> None:
    """An image is float32 in [0, 1] with the channels asked for, and the same each time."""
    source, again = named.open(), named.open()
    for number in (len(source) - 1, 0, 2):
        for channels in (1, 3, 4):
            seen = source.image(number, Preprocessing(channels, 12, 17))
            assert seen.dtype == torch.float32 and seen.shape[0] == channels
            assert seen.min() >= 0 and seen.max() <= 1
            assert torch.equal(again.image(number, Preprocessing(channels, 12, 17)), seen)


def keys_labels_and_captions_agree(named: Named) -> None:
    """Keys differ and never change, labels are classes, captions are text; a copy in a worker agrees."""
    source = named.open()
    again = pickle.loads(pickle.dumps(source))
    count = min(len(source), 20)
    keys = [source.key(number) for number in range(count)]
    assert count > 3, "give a name with 4 images or more"
    assert len(set(keys)) == count
    assert keys == [again.key(number) for number in range(count)]
    for number in range(count):
        assert 0 <= source.label(number) < max(1, len(source.class_names))
        assert isinstance(source.caption(number), str)
    info = source.info(1)
    if info.height:
        assert source.image(1, Preprocessing(3, 8, 8)).shape[1:] == (info.height, info.width)


def a_window_reads_the_values_of_the_file(named: Named) -> None:
    """With a window, an image has the values of the file: 0 to 255 for 8 bits."""
    source = named.open()
    plain, raw = (source.image(1, Preprocessing(3, 12, 17, window=window)) for window in (None, (0.0, 255.0)))
    torch.testing.assert_close(raw, plain * 255, atol=1e-3, rtol=0)


def labels_of_many_are_those_of_each(named: Named) -> None:
    """`labels_of` agrees with `label`."""
    source = named.open()
    assert source.labels_of([3, 0, 1]).tolist() == [source.label(number) for number in (3, 0, 1)]
