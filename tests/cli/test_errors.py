"""Errors on the command line and in files: one line with the nearest valid choice."""

import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image

from genstack.cli.commands import Command
from genstack.cli.main import main
from genstack.cli.parsing.layers import Layers, nest
from genstack.cli.parsing.parser import Parser
from genstack.cli.parsing.recipes import read
from genstack.cli.parsing.source import Argument
from genstack.cli.parsing.stages import STAGES, build_training
from genstack.cli.verb import verbs
from genstack.errors import UserError
from genstack.training.run import Run

HOSTILE = Path(__file__).parents[1] / "golden" / "hostile"


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (
            ["--model.optimization.lerning_rate", "1"],
            "unknown option '--model.optimization.lerning-rate'; "
            "did you mean '--model.optimization.learning-rate'?",
        ),
        (
            ["--learning_rate", "1"],
            "unknown option '--learning-rate'; did you mean '--model.optimization.learning-rate'?",
        ),
        (["--seed", "1"], "unknown option '--seed'; did you mean '--data.seed' or '--model.seed'?"),
        (["--emaa", "1"], "unknown option '--emaa'; did you mean '--model.ema'?"),
        (["--nam=x"], "unknown option '--nam'; did you mean '--name'?"),
        (
            ["--model.compressor.quantizer=VectorQuantiser"],
            "--model.compressor.quantizer: unknown quantizer 'VectorQuantiser'; "
            "did you mean 'VectorQuantizer'?",
        ),
        (
            ["--model.compressor.network.widht", "3"],
            "unknown option '--model.compressor.network.widht'; "
            "did you mean '--model.compressor.network.width'?",
        ),
        (
            ["--model.compressor.network.width", "sixty"],
            "--model.compressor.network.width: expected int, got 'sixty'",
        ),
        (["--model.compile", "--data.limit", "0.5"], "--data.limit: expected int|null, got '0.5'"),
        (["--data.labels", "onw"], "--data.labels: expected own|folder|none, got 'onw'"),
        (
            ["--model.compressor.network.attention=a,2"],
            "--model.compressor.network.attention: expected int,..., got 'a,2'",
        ),
        (["--name"], "--name has no value; expected text"),
        (["--name", "a", "--name=b"], "--name is given twice; keep one"),
        (
            ["--model.compressor.channels", "3"],
            "--model.compressor.channels is set by genstack from the data; leave it out",
        ),
        (
            ["--model", "3"],
            "--model is a group of settings; set --model.compressor, --model.reconstruction, "
            "--model.perceptual, --model.adversary, --model.alignment",
        ),
        (
            ["--model.compressor.quantizer={class_path: FSQ, levels: 3}"],
            "--model.compressor.quantizer.levels must be inside init_args, since class_path is given",
        ),
        (
            ["--model.compressor.quantizer={class_path: FSQ"],
            "--model.compressor.quantizer: invalid YAML '{class_path: FSQ'; "
            "brackets and quotation marks come in pairs",
        ),
        (
            ["--model.adversary.weight", "1"],
            "--model.adversary: choose a class before its settings; --model.adversary=NAME, one of Adversary",
        ),
        (
            ["--model.adversary=Adversary", "--model.adversary.weight", "x"],
            "--model.adversary.weight: expected float, got 'x'",
        ),
        (["--runs="], "--runs is empty; expected path, or leave it out"),
        (["--data.source= "], "--data.source is empty; expected text"),
        (["--log.wandb-project", ""], "--log.wandb-project is empty; expected text, or leave it out"),
        (
            ["--model.perceptual="],
            "--model.perceptual is empty; expected ClassifierDistance or LPIPS, or leave it out",
        ),
        (
            ["--model.perceptual={class_path: LPIPS, init_args: {weights: ''}}"],
            "--model.perceptual.weights is empty; expected text|null, or leave it out",
        ),
        (["--config="], "--config has no value; expected a recipe or a file: --config FILE"),
        (
            ["stray"],
            "unexpected argument 'stray'; settings are --NAME VALUE: genstack train compressor --help",
        ),
    ],
)
def test_command_line_errors_are_one_line(parser, config, flags, message):
    with pytest.raises(UserError) as error:
        parser.parse(["--config", config, *flags])
    assert str(error.value) == f"genstack train compressor: {message}"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("model: {emma: 1}", "unknown setting 'model.emma'; did you mean 'model.ema'?"),
        ("modle: {compile: true}", "unknown setting 'modle'; did you mean 'model'?"),
        ("model: {compile: 7}", "model.compile: expected true|false|auto, got '7'"),
        ("model: {ema: }", "model.ema has no value; expected float"),
        ("log: {wandb_project: ''}", "log.wandb_project is empty; expected text, or leave it out"),
        ("data: {limit: [1, 2]}", "data.limit: expected int|null, got '1,2'"),
        (
            "model: {compressor: {network: {widht: 2}}}",
            "model.compressor: choose a class before its settings; model.compressor=NAME, one of Autoencoder",
        ),
        ("model: {1: 2}", "invalid setting name '1'; expected text"),
        ("model: {null: 2}", "invalid setting name 'None'; expected text"),
        ("model: [compile]", "model is a group of settings; set model.compressor, model.reconstruction,"),
        (
            "model: {compressor: {class_path: Autoencoder, init_args: nothing}}",
            "model.compressor.init_args must be a group of settings, got 'nothing'",
        ),
        (
            "model: {compressor: Autoencder}",
            "model.compressor: unknown compressor 'Autoencder'; did you mean",
        ),
    ],
)
def test_errors_in_files_name_the_file(parser, tmp_path, content, message):
    path = tmp_path / "mistaken.yaml"
    path.write_text(content)
    with pytest.raises(UserError) as error:
        parser.parse(["--config", str(path)])
    assert str(error.value).startswith(f"genstack train compressor: {path}: {message}")


def test_errors_name_the_innermost_setting_of_a_file(parser, config, tmp_path):
    path = tmp_path / "mistaken.yaml"
    path.write_text("model: {compressor: {network: {widht: 2}}}")
    with pytest.raises(
        UserError, match=r"mistaken.yaml: unknown setting 'model.compressor.network.widht'; did"
    ):
        parser.parse(["--config", config, "--config", str(path)])


def test_errors_list_choices_of_missing_settings(parser):
    with pytest.raises(UserError, match=r"--model.compressor is missing; choose Autoencoder.*config list"):
        parser.parse(["--data.source", "digits"])
    with pytest.raises(UserError, match=r"--model.compressor.network is missing; choose .*ViT"):
        parser.parse(["--data.source=digits", "--model.compressor=Autoencoder"])
    with pytest.raises(UserError, match=r"--data.source is missing: folder of images"):
        parser.parse([])
    with pytest.raises(UserError, match=r"--config has no value; expected a recipe or a file"):
        parser.parse(["--config"])


def test_files_without_settings_are_rejected(parser, config, tmp_path):
    wrong = config.replace("vqgan", "vqgn")
    with pytest.raises(UserError, match=re.escape(f"recipe '{wrong}' not found; did you mean {config}?")):
        parser.parse(["--config", wrong])
    for content, message in {
        "a: [1": "line 1",
        "- a\n- b": "holds no settings",
        "a: 1\nb: {c: 2": "line 2",
        "3: x": "invalid setting name '3'",
        "a: !!binary aGVsbG8=": "expected text, numbers and lists",
        "a: !!set {b, c}": "expected text, numbers and lists",
        "a: &a [*a, *a]": "more than 10000 settings",
    }.items():
        path = tmp_path / "broken.yaml"
        path.write_text(content)
        with pytest.raises(ValueError, match=message) as error:
            read(path)
        assert "\n" not in str(error.value)
    with pytest.raises(ValueError, match="is not a YAML file"):
        (tmp_path / "image.yaml").write_bytes(b"\x89PNG\xff")
        read(tmp_path / "image.yaml")
    with pytest.raises(ValueError, match="is a folder, expected a file"):
        read(tmp_path)


def options(command: Command) -> Iterator[tuple[str, Argument]]:
    """Every option of a command, and those of its groups, as on the command line."""
    yield from command.arguments().items()
    for prefix, group in command.groups.items():
        yield from ((f"{prefix}.{name}", argument) for name, argument in group.arguments().items())


@pytest.mark.parametrize(
    "command",
    [command for verb in verbs().values() for command in verb.actions().values()],
    ids=lambda command: command.name,
)
def test_every_option_of_every_command_rejects_empty_values(command):
    parser = Parser(command)
    for name, _ in options(command):
        flag = f"--{name.replace('_', '-')}"
        for words in ([f"{flag}="], [f"{flag}= "], [flag, ""]):
            with pytest.raises(UserError) as error:
                parser.parse(words)
            assert re.fullmatch(f"{command.name}: {flag} is empty; expected [^\\n]+", str(error.value))


@pytest.mark.parametrize(
    "command",
    [command for verb in verbs().values() for command in verb.actions().values()],
    ids=lambda command: command.name,
)
def test_every_path_of_every_command_expands_the_home_folder(command, monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    for place in command.paths():
        layers = Layers([("--", nest([(place, "~/here")]))])
        layers.expand_paths(command)
        assert layers.get(place) == f"{tmp_path}/here"


def test_untrusted_files_run_no_code(parser, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=r"line 3: .*os\.system"):
        parser.parse(["--config", str(HOSTILE / "exec.yaml")])
    with pytest.raises(UserError, match=r"unknown setting 'model.(target|params)'"):
        parser.parse(["--config", str(HOSTILE / "config_target.yaml")])
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "name",
    [
        "os.system",
        "builtins.eval",
        "torch.nn.Linear",
        "torch.nn.Identity",
        "genstack.compressor.Network",
        "genstack.cli.main.main",
        "genstack.checkpoints.initialize.begun",
        "genstack.data.images.os.system",
        "trap.FSQ",
    ],
)
@pytest.mark.parametrize("place", ["compressor.quantizer", "compressor", "compressor.network", "perceptual"])
def test_settings_name_discovered_classes_only(parser, config, tmp_path, monkeypatch, name, place):
    """Modules of other names are not imported, and functions are not called."""
    (tmp_path / "trap.py").write_text("from pathlib import Path\nPath('PWNED').touch()\nclass FSQ: ...")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.chdir(tmp_path)
    for value in (name, f"{{class_path: {name}}}"):
        with pytest.raises(UserError, match=f"unknown {place.rpartition('.')[2]} '{name}'; "):
            parser.parse(["--config", config, f"--model.{place}={value}"])
    assert "trap" not in sys.modules
    assert not (tmp_path / "PWNED").exists()


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--model.perceptual=LPIPS", "--model.perceptual.weight=-1"], "model.perceptual: weight -1"),
        (["--model.adversary=Adversary", "--model.adversary.weight=-1"], "model.adversary: .*weight -1"),
        (
            ["--model.adversary=Adversary", "--model.adversary.discriminator.layers=0"],
            "model.adversary.*discriminator: .*layers 0",
        ),
        (
            [
                "--model.adversary=Adversary",
                "--model.adversary.lecam=LeCAM",
                "--model.adversary.lecam.decay=2",
            ],
            "model.adversary.*lecam: .*decay 2",
        ),
        (
            [
                "--model.adversary=Adversary",
                "--model.adversary.penalty=R1",
                "--model.adversary.penalty.every=0",
            ],
            "model.adversary.*penalty: .*every 0",
        ),
        (["--trainer.max_steps=0"], "trainer: max_steps 0"),
    ],
)
def test_constructor_errors_are_one_line_with_the_setting(parser, config, flags, message, tmp_path):
    """In parts whose type is `X | None`, too."""
    settings = parser.parse(["--config", config, *flags])
    with pytest.raises(UserError, match=f"^genstack train compressor: {message}"):
        build_training(STAGES["compressor"], settings, Run(tmp_path))


def test_main_prints_one_line_and_exits_with_two(capsys):
    assert main(["trian"]) == 2
    captured = capsys.readouterr()
    assert (captured.out, captured.err) == ("", "genstack: unknown command 'trian'; did you mean 'train'?\n")
    assert main(["doctor", "--runz", "x"]) == 2
    assert capsys.readouterr().err == "genstack doctor: unknown option '--runz'; did you mean '--runs'?\n"


@pytest.mark.parametrize(
    ("words", "out"),
    [
        (["reconstruct", "RUN"], "sheet.jpg"),
        (["interpolate", "RUN", "A", "B"], "sheet.JPG"),
        (["decode", "RUN", "A"], "sheet.jpg"),
        (["decode", "RUN", "A"], "folder/"),
        (["data", "check", "digits"], "sheet"),
        (["data", "check", "digits"], "sheet.jpg"),
    ],
)
def test_pictures_have_names_that_end_in_png(capsys, words, out):
    assert main([*words, "--out", out]) == 2
    name = "data check" if words[0] == "data" else words[0]
    assert capsys.readouterr().err == (
        f"genstack {name}: invalid --out '{out}': pictures are "
        "written as PNG; expected a name that ends in .png\n"
    )


def test_messages_are_one_line_for_any_quoted_text():
    """Names in a stranger's file could move the cursor, end the line, fill the screen, be no text."""
    message = str(UserError("no tensor\nfor \x1b[2J\ud800" + "a" * 9000))
    assert message.startswith("no tensor for ?[2J?aaa")
    assert message.isprintable() and len(message) < 2100
    message.encode()


def test_pictures_of_others_are_not_overwritten(tmp_path, capsys):
    Image.new("RGB", (8, 8)).save(tmp_path / "mine.png")
    before = (tmp_path / "mine.png").read_bytes()
    words = ["data", "check", "digits", "--out"]
    assert main([*words, str(tmp_path / "mine.png")]) == 2
    message = "mine.png exists, and genstack did not write it; choose another --out"
    assert message in capsys.readouterr().err
    assert main(["sample", "clipart", "--count", "1", "--out", str(tmp_path / "mine")]) == 2  # its sheet
    assert message in capsys.readouterr().err and not (tmp_path / "mine").exists()
    assert (tmp_path / "mine.png").read_bytes() == before
    for _ in range(2):  # its own sheet is replaced
        assert main([*words, str(tmp_path / "sheet.png")]) is None
