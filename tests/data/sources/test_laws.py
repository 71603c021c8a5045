"""What every kind of source keeps to, found by lying in the folder."""

import pickle

import pytest
import torch

import genstack.data.sources as package
from genstack.data.images import Preprocessing
from genstack.data.source import Source
from genstack.data.sources import open_source
from genstack.discovery import discover

KINDS = discover(package, Source)


@pytest.fixture(params=KINDS)
def named(request, example):
    """A kind and a name that means it."""
    return KINDS[request.param], example(request.param)


def test_name_opens_only_its_kind(named):
    kind, name = named
    assert type(open_source(name)) is kind
    assert [other for other in KINDS.values() if other.claims(name)] in ([kind], [])


def test_examples_in_messages_are_claimed(named):
    kind, _ = named
    assert all(kind.claims(name) for name in kind.names())


def test_images_are_a_function_of_their_number(named):
    _, name = named
    source, again = open_source(name), open_source(name)
    for number in (len(source) - 1, 0, 2):
        for channels in (1, 3, 4):
            seen = source.image(number, Preprocessing(channels, 12, 17))
            assert seen.dtype == torch.float32 and seen.shape[0] == channels
            assert seen.min() >= 0 and seen.max() <= 1
            assert torch.equal(again.image(number, Preprocessing(channels, 12, 17)), seen)


def test_metadata_agrees_with_pictures(named):
    _, name = named
    source = open_source(name)
    again = pickle.loads(pickle.dumps(source))  # as a worker of another process gets it
    count = min(len(source), 20)
    keys = [source.key(number) for number in range(count)]
    assert count > 3 and len(set(keys)) == count
    assert keys == [again.key(number) for number in range(count)]
    for number in range(count):
        assert 0 <= source.label(number) < max(1, len(source.class_names))
        assert isinstance(source.caption(number), str)
    kept = source.info(1)
    if kept.height:
        assert source.image(1, Preprocessing(3, 8, 8)).shape[1:] == (kept.height, kept.width)


def test_window_reads_values_of_the_file(named):
    _, name = named
    source = open_source(name)
    plain, raw = (source.image(1, Preprocessing(3, 12, 17, window=window)) for window in (None, (0.0, 255.0)))
    torch.testing.assert_close(raw, plain * 255, atol=1e-3, rtol=0)


def test_labels_of_many_agree_with_each(named):
    _, name = named
    source = open_source(name)
    assert source.labels_of([3, 0, 1]).tolist() == [source.label(number) for number in (3, 0, 1)]
