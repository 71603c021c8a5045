"""What a user gets wrong is told in one line: what, where, and the nearest valid choice."""

import re
import sys
from pathlib import Path

import pytest

from genstack.cli.main import main
from genstack.cli.parsing.recipes import read
from genstack.errors import UserError

HOSTILE = Path(__file__).parents[1] / "golden" / "hostile"


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (
            ["--model.lerning_rate", "1"],
            "--model.lerning_rate is unknown; did you mean --model.learning_rate?",
        ),
        (["--learning_rate", "1"], "--learning_rate is unknown; did you mean --model.learning_rate?"),
        (["--nam=x"], "--nam is unknown; did you mean --name?"),
        (
            ["--model.compressor.quantizer=Halfing"],
            "--model.compressor.quantizer: Halfing is no Bottleneck; did you mean Halving?",
        ),
        (
            ["--model.compressor.network.widht", "3"],
            "--model.compressor.network.widht is unknown to Plain; "
            "did you mean --model.compressor.network.width?",
        ),
        (
            ["--model.compressor.network.width", "sixty"],
            '--model.compressor.network.width: "sixty" does not fit; it takes a whole number',
        ),
        (["--model.deep", "--seed", "0.5"], '--seed: "0.5" does not fit; it takes a whole number or null'),
        (
            ["--model.compressor.network.levels=a,2"],
            '--model.compressor.network.levels: "a,2" does not fit; it takes whole numbers as a,b',
        ),
        (["--name"], "--name has no value; it takes text"),
        (["--name", "a", "--name=b"], "--name is given twice; keep one"),
        (
            ["--model.compressor.channels", "3"],
            "--model.compressor.channels is set by genstack itself, from the data; leave it out",
        ),
        (
            ["--model", "3"],
            "--model is a group of settings; set --model.compressor, --model.extra, --model.network, "
            "--model.learning_rate, --model.deep",
        ),
        (
            ["--model.compressor.quantizer={class_path: Identity, dim: 3}"],
            "--model.compressor.quantizer.dim stands beside class_path; "
            "put it under --model.compressor.quantizer.init_args",
        ),
        (
            ["--model.compressor.quantizer={class_path: Identity"],
            "--model.compressor.quantizer: {class_path: Identity is no YAML; "
            "brackets and quotation marks come in pairs",
        ),
        (["stray"], "what is stray for? it takes only --settings; see genstack train compressor --help"),
    ],
)
def test_mistakes_on_the_command_line(parser, config, flags, message):
    with pytest.raises(UserError) as error:
        parser.parse(["--config", config, *flags])
    assert str(error.value) == f"genstack train compressor: {message}"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("model: {lerning_rate: 1}", "model.lerning_rate is unknown; did you mean model.learning_rate?"),
        ("modle: {deep: true}", "modle is unknown; did you mean model?"),
        ("model: {deep: 7}", "model.deep: 7 does not fit; it takes true or false"),
        ("model: {learning_rate: }", "model.learning_rate has no value; it takes a number"),
        ("seed: [1, 2]", "seed: [1, 2] does not fit; it takes a whole number or null"),
        ("model: {compressor: {network: {widht: 2}}}", "model.compressor: a class comes before its settings"),
        ("model: {1: 2}", "model.1 is unknown; there is compressor,"),
        ("model: {null: 2}", "model.None is unknown; there is compressor,"),
        ("model: [deep]", "model is a group of settings; set model.compressor, model.extra,"),
        (
            "model: {compressor: {class_path: Autoencoder, init_args: nothing}}",
            "model.compressor.init_args is a group of settings of Autoencoder, and 'nothing' is none",
        ),
    ],
)
def test_mistakes_in_files_name_the_file(parser, tmp_path, content, message):
    path = tmp_path / "mistaken.yaml"
    path.write_text(content)
    with pytest.raises(UserError) as error:
        parser.parse(["--config", str(path)])
    assert str(error.value).startswith(f"genstack train compressor: {path}: {message}")


def test_what_is_missing_is_named_with_its_choice(parser):
    with pytest.raises(UserError, match=r"--model.compressor is missing; choose Autoencoder.*config list"):
        parser.parse([])
    with pytest.raises(UserError, match=r"--model.compressor.network is missing; choose .*Plain"):
        parser.parse(["--model.compressor=Autoencoder", "--model.compressor.quantizer=Identity"])
    with pytest.raises(UserError, match=r"--config needs a file"):
        parser.parse(["--config"])


def test_files_that_are_none(parser, config, tmp_path):
    wrong = config.replace("vqgan", "vqgn")
    with pytest.raises(UserError, match=re.escape(f"{wrong} does not exist; did you mean {config}?")):
        parser.parse(["--config", wrong])
    for content, message in {
        "a: [1": "line 1",
        "- a\n- b": "holds no settings",
        "a: 1\nb: {c: 2": "line 2",
        "3: x": "holds no settings",
    }.items():
        path = tmp_path / "broken.yaml"
        path.write_text(content)
        with pytest.raises(ValueError, match=message) as error:
            read(path)
        assert "\n" not in str(error.value)
    with pytest.raises(ValueError, match="no YAML text"):
        (tmp_path / "image.yaml").write_bytes(b"\x89PNG\xff")
        read(tmp_path / "image.yaml")
    with pytest.raises(ValueError, match="is no file"):
        read(tmp_path)


def test_files_of_strangers_run_nothing(parser, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=r"line 3: .*os\.system"):
        parser.parse(["--config", str(HOSTILE / "exec.yaml")])
    with pytest.raises(UserError, match=r"model.target is unknown"):
        parser.parse(["--config", str(HOSTILE / "config_target.yaml")])
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "name",
    ["os.system", "torch.nn.Linear", "torch.nn.Identity", "genstack.compressor.Network", "trap.Identity"],
)
@pytest.mark.parametrize("place", ["compressor.quantizer", "compressor", "network"])
def test_only_discovered_classes_can_be_named(parser, config, tmp_path, monkeypatch, name, place):
    """Not even a module of the right name is imported."""
    (tmp_path / "trap.py").write_text("from pathlib import Path\nPath('PWNED').touch()\nclass Identity: ...")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.chdir(tmp_path)
    for value in (name, f"{{class_path: {name}}}"):
        with pytest.raises(UserError, match=f"{name} is no "):
            parser.parse(["--config", config, f"--model.{place}={value}"])
    assert "trap" not in sys.modules
    assert not (tmp_path / "PWNED").exists()


def test_what_a_constructor_refuses_is_told_with_its_place(parser, config):
    namespace = parser.parse(["--config", config, "--model.compressor.network.width=-1"])
    with pytest.raises(UserError) as error:
        parser.build(namespace)
    message = "model.compressor.network: width -1 is too small; use 1 or more"
    assert str(error.value) == f"genstack train compressor: {message}"


def test_main_prints_one_line_and_exits_with_two(capsys):
    assert main(["trian"]) == 2
    captured = capsys.readouterr()
    assert (captured.out, captured.err) == ("", "genstack: trian is no verb; did you mean train?\n")
    assert main(["doctor", "--runz", "x"]) == 2
    assert capsys.readouterr().err == "genstack doctor: --runz is unknown; did you mean --runs?\n"


def test_messages_are_one_line_whatever_they_quote():
    """Names in a stranger's file could move the cursor, end the line, fill the screen, be no text."""
    message = str(UserError("no tensor\nfor \x1b[2J\ud800" + "a" * 9000))
    assert message.startswith("no tensor for ?[2J?aaa")
    assert message.isprintable() and len(message) < 2100
    message.encode()
