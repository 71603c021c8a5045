"""Presets: a run's own before ours, flags before both."""

import pytest

from genstack.prior import SamplingOptions
from genstack.prior.options import PRESETS, resolve_options

KEPT = {"fid": {"temperature": 1.1, "guidance_interval": [0.1, 0.9]}, "mine": {"top_k": 7}}


def test_flags_override_saved_and_built_in_presets():
    assert resolve_options("", {"top_k": None}, KEPT, True) == SamplingOptions()
    assert resolve_options("fid", {}, {}, True) == SamplingOptions()
    assert resolve_options("fid", {"temperature": 0.5}, KEPT, True) == SamplingOptions(
        temperature=0.5, guidance_interval=(0.1, 0.9)
    )
    assert resolve_options("mine", {"top_k": 0}, KEPT, True) == SamplingOptions()
    assert resolve_options("pretty", {}, KEPT, True) == SamplingOptions(**PRESETS["pretty"])


def test_built_in_presets_guide_only_guided_priors():
    assert resolve_options("pretty", {}, {}, False).guidance == 1
    assert resolve_options("mine", {}, {"mine": {"guidance": 3.0}}, False).guidance == 3


def test_unknown_and_damaged_presets_are_refused():
    with pytest.raises(ValueError, match="unknown preset 'fdi'; available: fid, mine, pretty"):
        resolve_options("fdi", {}, KEPT, True)
    for damaged in ({"code": "x"}, ["top_k"], None, {"temperature": "hot"}):
        with pytest.raises(ValueError, match="invalid preset 'mine'"):
            resolve_options("mine", {}, {"mine": damaged}, True)
