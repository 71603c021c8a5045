"""Sampling options that a page offers are those that the model supports."""

from dataclasses import fields

import pytest

import genstack
from genstack.cli.commands import SAMPLE
from genstack.cli.parsing.parser import Parser
from genstack.cli.parsing.sampling_options import resolve_options
from genstack.prior import SamplingOptions
from genstack.web.offers import TRIALS, offers
from genstack.web.samples import option_settings, presets


def test_every_option_can_be_offered():
    assert [*TRIALS] == [field.name for field in fields(SamplingOptions)]
    assert all(value != getattr(SamplingOptions(), name) for name, value in TRIALS.items())


@pytest.mark.parametrize(
    ("run", "has", "lacks"),
    [
        ("classes", {"temperature", "top_k", "guidance", "guidance_schedule"}, {"steps", "solver"}),
        ("masked", {"steps", "temperature_schedule"}, {"solver"}),
        ("plain", {"top_p"}, {"guidance", "guidance_power", "steps"}),
        ("vae", {"temperature"}, {"top_k", "guidance", "steps"}),
    ],
)
def test_models_offer_what_they_support(saved, run, has, lacks):
    names = {offer.name for offer in offers(genstack.load(saved / run))}
    assert has <= names and not lacks & names


def test_offers_explain_and_bound_themselves(saved):
    found = {offer.name: offer for offer in offers(genstack.load(saved / "masked"))}
    assert all(offer.words for offer in found.values())
    assert found["guidance_schedule"].choices == ("constant", "linear", "cosine", "power")
    assert found["top_k"].label == "Top-k" and found["guidance_interval"].label == "Guidance interval"
    assert [*found][:2] == ["temperature", "guidance"]


def test_a_command_names_only_options_that_differ(saved):
    model = genstack.load(saved / "classes")
    model.save_preset("default", SamplingOptions(temperature=0.5, guidance=3.0))
    assert presets(model) == ["", "default", "fid", "pretty"]
    shown = {"temperature": 0.5, "guidance": 2.0, "top_p": 1.0, "top_k": None}
    settings = option_settings(model, "", shown)
    assert settings == {"guidance": 2.0}
    assert option_settings(model, "pretty", {"temperature": 0.9}) == {"preset": "pretty"}
    assert option_settings(model, "unknown here", {"temperature": 1.0}) == {"temperature": 1.0}
    flags = Parser(SAMPLE).parse(["run", *(f"--{name}={value}" for name, value in settings.items())])
    assert resolve_options(flags, model) == SamplingOptions(temperature=0.5, guidance=2.0)
