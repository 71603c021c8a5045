"""Settings from defaults, files and flags, and from a saved run."""

import re
import shutil

import pytest
import yaml

from genstack.cli.commands import ENCODE, SAMPLE, commands, training_command
from genstack.cli.parsing.help import command_help, part_help
from genstack.cli.parsing.parser import PACKAGES, TRAINING, Parser, locate
from genstack.cli.parsing.recipes import read
from genstack.cli.parsing.source import choices, classes, find, words
from genstack.compressor import Autoencoder, Convolutional
from genstack.errors import UserError


def compressor(settings):
    return settings.as_dict()["model"]["compressor"]["init_args"]


def test_flags_override_files_and_files_override_defaults(parser, config, tmp_path):
    later = tmp_path / "later.yaml"
    later.write_text("model: {compressor: {network: {attention: [5]}}, compile: true}\nname: later\n")
    flags = ["--model.compressor.network.width", "9", "--config", config, "--config", str(later)]
    settings = parser.parse(flags)
    network = compressor(settings)["network"]["init_args"]
    assert (network["width"], network["attention"]) == (9, (5,))
    assert (settings.model.ema, settings.model.compile) == (0.99, True)
    assert (settings.name, settings.init) == ("later", None)
    assert parser.parse([*flags, "--name=flag"]).name == "flag"


def test_files_override_inherited_settings(parser, config):
    inherited = {"model": {"ema": 0.5, "compile": True}}
    settings = parser.parse(["--config", config], lambda given: inherited)
    assert (settings.model.ema, settings.model.compile) == (0.99, True)


def test_inherit_reads_flags_before_files(parser, config, tmp_path):
    seen = []
    (tmp_path / "named.yaml").write_text("name: file")
    for flags in (["--name", "flowers"], []):
        words = ["--config", config, "--config", str(tmp_path / "named.yaml"), *flags]
        parser.parse(words, lambda given: seen.append((given.get("name"), given.get("init"))) or {})
    assert seen == [("flowers", None), ("file", None)]


def test_dumped_settings_parse_to_the_same(parser, config):
    settings = parser.parse(["--config", config, "--model.adversary", "{class_path: Adversary}"])
    resolved = parser.dump(settings)
    assert yaml.safe_load(yaml.safe_dump(resolved)) == resolved
    assert "weight" in resolved["model"]["adversary"]["init_args"]  # defaults are written, too
    assert resolved["model"]["perceptual"] is None
    again = parser.parse_saved(resolved, "config.yaml")
    assert parser.dump(again) == resolved


def test_factories_leave_late_arguments_open(parser, config):
    model = parser.build(parser.parse(["--config", config, "--model.compressor.network.dim", "5"])).model
    made = model.compressor(3)
    assert isinstance(made, Autoencoder)
    assert (made.channels, made.network.width, made.network.dim) == (3, 6, 5)


def test_changing_a_class_keeps_common_settings(parser, config):
    flags = ["--config", config, "--model.compressor.quantizer.codebook_size=17"]
    assert compressor(parser.parse(flags))["quantizer"]["init_args"]["codebook_size"] == 17
    other = compressor(parser.parse([*flags, "--model.compressor.quantizer=SimVQ"]))["quantizer"]
    assert other["class_path"].endswith(".SimVQ") and other["init_args"]["codebook_size"] == 17
    other = compressor(parser.parse(["--config", config, "--model.compressor.quantizer=FSQ"]))["quantizer"]
    assert "codebook_size" not in other["init_args"]


@pytest.mark.parametrize(
    "flags", [["--model.compile"], ["--model.compile", "true"], ["--model.compile=true"]]
)
def test_switch_alone_means_true(parser, config, flags):
    assert parser.parse(["--config", config, *flags]).model.compile is True
    assert parser.parse(["--config", config, "--model.compile", "false"]).model.compile is False


def test_switch_with_a_third_value_takes_it():
    parser = Parser(SAMPLE)
    assert parser.parse(["run", "--compile", "auto"]).compile == "auto"
    assert parser.parse(["--compile", "run"]).compile is True


@pytest.mark.parametrize("flag", ["--model.optimization.learning-rate", "--model.optimization.learning_rate"])
def test_lists_use_commas_and_names_use_dashes(parser, config, flag):
    settings = parser.parse(["--config", config, "--model.compressor.network.attention", "3,4", flag, "2e-5"])
    assert compressor(settings)["network"]["init_args"]["attention"] == (3, 4)
    one = parser.parse(["--config", config, "--model.compressor.network.attention", "3"])
    assert compressor(one)["network"]["init_args"]["attention"] == (3,)
    assert settings.model.optimization.init_args.learning_rate == 2e-5


def test_null_and_text_that_looks_like_a_number(parser, config):
    flags = ["--data.window", "1,2", "--name", "123", "--model.adversary.lecam", "null"]
    settings = parser.parse(["--config", config, "--model.adversary=Adversary", *flags])
    assert (settings.data.window, settings.name) == ((1.0, 2.0), "123")
    assert settings.model.adversary.init_args.lecam is None


@pytest.mark.parametrize("text", ["[red, blue]", "{red", "a: b", "null", "1e3", "😀 \udce9", "caf\x1b", "'"])
def test_text_is_kept_verbatim(text):
    assert Parser(SAMPLE).parse(["run", "--caption", text, "--save-preset", text]).caption == text


def test_infinity_in_files_is_a_number(parser, config, tmp_path):
    (tmp_path / "endless.yaml").write_text("data: {window: [-.inf, .inf]}")
    settings = parser.parse(["--config", config, "--config", str(tmp_path / "endless.yaml")])
    assert settings.data.window == (-float("inf"), float("inf"))


def test_paths_expand_the_home_folder(parser, config, monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    shutil.copy(config, tmp_path / "recipe.yaml")
    paths = ["--runs=~/runs", "--data.source=~/a*.tar", "--init", "~/b", "--data.condition_images=~/maps"]
    settings = parser.parse(["--config=~/recipe.yaml", *paths])
    assert (settings.runs, settings.init) == (f"{tmp_path}/runs", f"{tmp_path}/b")
    assert settings.data.source == f"{tmp_path}/a*.tar"
    assert settings.data.condition_images == f"{tmp_path}/maps"


def test_print_config_prints_parsed_settings(parser, config, capsys):
    with pytest.raises(SystemExit):
        parser.parse(["--config", config, "--name", "ünique", "--print-config"])
    printed = yaml.safe_load(capsys.readouterr().out)
    assert printed == parser.dump(parser.parse(["--config", config, "--name", "ünique"]))


def test_help_shows_type_description_and_default():
    text = " ".join(command_help(training_command("compressor")).split())
    assert re.search(r"--model.compressor <Autoencoder\|HierarchicalAutoencoder> [^<]* \[required\]", text)
    assert "--data.batch-size <int>" in text and "[default: 32]" in text
    assert "--model.adversary <Adversary|null>" in text
    assert "--model.optimization.learning-rate <float>" in text
    assert "--runs <path> folder of all runs. [default: runs]" in text
    assert "--model.compressor Autoencoder --model.compressor.SETTING VALUE" in text
    assert "Files override defaults" in text


def test_help_names_the_source_of_unset_options():
    text = " ".join(command_help(ENCODE).split())
    assert "Unset options default to the compressor's run." in text
    assert "--data.source <text>" in text and "[required]" not in text.partition("data:")[2]


def test_part_help_lists_classes_or_settings():
    command = training_command("compressor")
    assert "FSQ: " in part_help(command, "--model.compressor.quantizer.help")
    assert "--model.compressor.quantizer.levels" in part_help(
        command, "--model.compressor.quantizer.help=FSQ"
    )
    text = part_help(command, "--model.compressor.help=Autoencoder")
    assert "--model.compressor.quantizer" in text and "--model.compressor.channels" not in text
    with pytest.raises(UserError, match=r"unknown class 'FSK'; did you mean 'FSQ'\?"):
        part_help(command, "--model.compressor.quantizer.help=FSK")
    with pytest.raises(UserError, match=r"--model.ema does not take a class"):
        part_help(command, "--model.ema.help")


def test_source_matches_imported_classes(parser):
    """Every name, default and choice of help is that of the imported class."""
    for command in commands().values():
        for path in (*command.flags, *(group.class_path for group in command.groups.values())):
            assert callable(locate(path)) and find(path).summary
    argument = find("genstack.compressor.Autoencoder").arguments()["network"]
    assert choices(argument)["Convolutional"][0].path == f"{Convolutional.__module__}.Convolutional"
    parts = [part for package in (*PACKAGES, TRAINING) for part in classes(package)]
    for part in parts:
        assert all(map(words, part.arguments().values()))
    assert "VectorQuantizer" in [part.node.name for part in parts if part.concrete]


def test_yaml_follows_version_1_2(tmp_path):
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
