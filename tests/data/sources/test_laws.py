"""Laws of every kind of source in the folder."""

import pytest

import genstack.data.sources as package
from genstack.data.source import Source
from genstack.data.sources import open_source
from genstack.discovery import discover
from genstack.testing import laws_in, sources

KINDS = discover(package, Source)


@pytest.fixture(params=KINDS)
def named(request, example):
    """A kind and a name that means it."""
    return sources.make(KINDS[request.param], example(request.param))


@pytest.mark.parametrize("law", laws_in(sources), ids=lambda law: law.__name__)
def test_source_keeps_the_law(named, law):
    law(named)


def test_the_name_opens_its_kind(named):
    assert type(open_source(named.name)) is named.kind
