"""Settings from defaults, files and flags, and back from a saved run."""

import pytest
import yaml

from genstack.cli.parsing.parser import Parser
from genstack.cli.parsing.recipes import read
from genstack.compressor import Autoencoder
from genstack.data import ImageData


def compressor(namespace):
    return namespace.as_dict()["model"]["compressor"]["init_args"]


def test_flags_beat_files_and_files_beat_defaults(parser, config, tmp_path):
    later = tmp_path / "later.yaml"
    later.write_text("model: {compressor: {network: {levels: [5]}}, deep: true}\nname: later\n")
    flags = ["--model.compressor.network.width", "9", "--config", config, "--config", str(later)]
    namespace = parser.parse(flags)
    assert compressor(namespace)["network"]["init_args"] == {"width": 9, "levels": (5,)}
    assert (namespace.model.learning_rate, namespace.model.deep) == (1e-3, True)
    assert (namespace.name, namespace.seed) == ("later", None)
    assert parser.parse([*flags, "--name=flag"]).name == "flag"


def test_inherited_settings_yield_to_files(parser, config):
    inherited = {"model": {"learning_rate": 5.0, "deep": True}}
    namespace = parser.parse(["--config", config], inherited)
    assert (namespace.model.learning_rate, namespace.model.deep) == (1e-3, True)


def test_resolved_settings_are_plain_and_come_back_the_same(parser, config):
    namespace = parser.parse(["--config", config, "--model.extra", "[Halving, {class_path: Identity}]"])
    resolved = parser.resolved(namespace)
    assert yaml.safe_load(yaml.safe_dump(resolved)) == resolved
    assert resolved["model"]["extra"][1]["init_args"] == {"dim": 3, "rate": 0.5}  # defaults are written too
    assert resolved["model"]["network"]["init_args"]["width"] == 7
    again = parser.reread(resolved, "config.yaml")
    assert parser.resolved(again) == resolved


def test_objects_are_built_with_their_late_arguments_left_open(parser, config):
    model = parser.build(parser.parse(["--config", config, "--model.compressor.quantizer.dim", "5"])).model
    made = model.compressor(3)
    assert isinstance(made, Autoencoder)
    assert (made.channels, made.network.width, made.quantizer.dim) == (3, 6, 5)
    assert model.network.width == 7


def test_a_class_named_anew_starts_from_its_own_defaults(parser, config):
    flags = ["--config", config, "--model.compressor.quantizer.rate=null"]
    assert compressor(parser.parse(flags))["quantizer"]["init_args"]["rate"] is None
    same = compressor(parser.parse([*flags, "--model.compressor.quantizer=Identity"]))
    assert same["quantizer"]["init_args"]["rate"] is None
    other = compressor(parser.parse([*flags, "--model.compressor.quantizer=Halving"]))
    assert other["quantizer"]["init_args"]["rate"] == 0.5


@pytest.mark.parametrize("words", [["--model.deep"], ["--model.deep", "true"], ["--model.deep=true"]])
def test_a_switch_is_true_alone_or_in_words(parser, config, words):
    assert parser.parse(["--config", config, *words]).model.deep is True
    assert parser.parse(["--config", config, "--model.deep", "false"]).model.deep is False


def test_lists_are_written_with_commas_and_dashes_are_underscores(parser, config):
    namespace = parser.parse(
        ["--config", config, "--model.compressor.network.levels", "3,4", "--model.learning-rate", "2e-5"]
    )
    assert compressor(namespace)["network"]["init_args"]["levels"] == (3, 4)
    assert namespace.model.learning_rate == 2e-5


def test_peek_reads_one_setting_before_all_others(parser, config):
    assert parser.peek(["--nonsense", "1", "--name", "flowers", "--config", config], "name") == "flowers"
    assert parser.peek(["--config", config], "model")["learning_rate"] == 1e-3
    assert parser.peek([], "name") is None


def test_print_config_prints_what_would_be_used(parser, config, capsys):
    with pytest.raises(SystemExit):
        parser.parse(["--config", config, "--name", "ünique", "--print_config"])
    printed = yaml.safe_load(capsys.readouterr().out)
    assert printed == parser.resolved(parser.parse(["--config", config, "--name", "ünique"]))


def test_help_says_meaning_choice_and_default_of_everything(parser, capsys):
    with pytest.raises(SystemExit) as stop:
        parser.parse(["--help"])
    text = " ".join(capsys.readouterr().out.split())
    assert stop.value.code == 0
    assert "--model.compressor what to train. (Autoencoder, HierarchicalAutoencoder; needed)" in text
    assert "--model.learning_rate of the optimizer. (a number; default 0.0001)" in text
    assert "--model.compressor Autoencoder --model.compressor.SETTING VALUE" in text
    assert "Defaults yield to files" in text


def test_help_says_where_settings_come_from_that_nobody_sets(capsys):
    parser = Parser("genstack train prior")
    parser.add_class(ImageData, "data", otherwise="the compressor's run")
    with pytest.raises(SystemExit):
        parser.parse(["--help"])
    shown = " ".join(capsys.readouterr().out.split())
    assert "What is left out is as in the compressor's run." in shown
    assert "needed" not in shown and "default" not in shown


def test_help_of_a_part_lists_classes_or_explains_one(parser, capsys):
    with pytest.raises(SystemExit):
        parser.parse(["--model.compressor.quantizer.help"])
    assert "Halving: Half is lost." in capsys.readouterr().out
    with pytest.raises(SystemExit):
        parser.parse(["--model.compressor.quantizer.help=Identity"])
    assert "--model.compressor.quantizer.rate" in capsys.readouterr().out


def test_help_of_a_part_leaves_out_what_the_program_gives(parser, capsys):
    with pytest.raises(SystemExit):
        parser.parse(["--model.compressor.help=Autoencoder"])
    text = capsys.readouterr().out
    assert "--model.compressor.network" in text
    assert "--model.compressor.channels" not in text


@pytest.mark.parametrize(("text", "levels"), [("4", (4,)), ("4,2", (4, 2)), ("[4, 2]", (4, 2)), ("[]", ())])
def test_several_values(parser, config, text, levels):
    settings = parser.parse(["--config", config, "--model.compressor.network.levels", text])
    assert tuple(settings.model.compressor.init_args.network.init_args.levels) == levels


def test_words_in_files_stay_words_and_numbers_are_numbers(tmp_path):
    path = tmp_path / "plain.yaml"
    values = "a: off, b: no, c: true, d: 1e-3, e: 3, f: .5, g: null, h: 2024-01-01, i: -1.5E+2, j: 16-mixed"
    path.write_text(f"{{{values}}}")
    assert read(path) == {
        "a": "off",
        "b": "no",
        "c": True,
        "d": 1e-3,
        "e": 3,
        "f": 0.5,
        "g": None,
        "h": "2024-01-01",
        "i": -150.0,
        "j": "16-mixed",
    }
