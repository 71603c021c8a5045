"""The command `genstack`: verbs, start-up time, exit codes."""

import logging
import os
import subprocess
import sys
import time
import warnings
from pathlib import Path

import pytest

import genstack
from genstack.cli import verb
from genstack.cli.calls import without_none
from genstack.cli.commands import Command
from genstack.cli.main import main
from genstack.cli.parsing.parser import Parser
from genstack.cli.parsing.words import split, suggest
from genstack.cli.quiet import quiet
from genstack.cli.verb import verbs
from genstack.errors import UserError

ROOT = Path(__file__).parents[2]


def test_overview_shows_every_verb_with_an_example(capsys):
    assert main([]) is None
    text = capsys.readouterr().out
    for name in ("train", "doctor", "config", "weights"):
        assert f"$ genstack {name}" in text
    assert max(map(len, text.splitlines())) <= 120


def test_overview_imports_no_library():
    code = (
        "import sys; from genstack.cli.main import main; main(['--help'])\n"
        "assert not {'torch', 'jsonargparse', 'pytorch_lightning', 'numpy'} & set(sys.modules)"
    )
    before = time.perf_counter()
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert time.perf_counter() - before < 5  # 0.15 s on an idle machine


@pytest.mark.parametrize(
    ("environment", "expected"), [({}, "passive"), ({"OMP_WAIT_POLICY": "active"}, "active")]
)
def test_idle_threads_sleep_by_default(environment, expected):
    code = (
        "import os, sys; from genstack.cli.main import main; assert 'torch' not in sys.modules\n"
        "main(['--version']); print(os.environ['OMP_WAIT_POLICY'])"
    )
    inherited = {name: value for name, value in os.environ.items() if name != "OMP_WAIT_POLICY"}
    done = subprocess.run(
        [sys.executable, "-c", code], env=inherited | environment, capture_output=True, text=True, check=True
    )
    assert done.stdout.split()[-1] == expected


@pytest.mark.parametrize("command", ["train compressor", "train prior", "sample", "evaluate", "data check"])
def test_help_imports_no_library(command):
    code = (
        f"import sys; from genstack.cli.main import main; main([*{command.split()}, '--help'])\n"
        "assert not {'torch', 'jsonargparse', 'pytorch_lightning', 'torchvision'} & set(sys.modules)\n"
        "import time; assert time.process_time() < 1.5, time.process_time()"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(f"usage: genstack {command}")


def test_unencodable_characters_are_escaped():
    code = "from genstack.cli.main import main; main(['--version']); print('猫')"
    for encoding in ("ascii", "cp1252"):
        environment = os.environ | {"PYTHONIOENCODING": encoding}
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, env=environment, check=False)
        assert done.returncode == 0 and done.stdout.endswith(b"\\u732b\n")


#: Modules that Windows lacks.
POSIX = ("resource", "fcntl", "pwd", "grp", "termios")


@pytest.mark.slow
def test_all_stages_run_without_modules_that_windows_lacks(start, tmp_path):
    """Import every verb in a process without them, train both stages, sample, evaluate, and so on."""
    small = """
        --model.compressor Autoencoder --model.compressor.quantizer FSQ
        --model.compressor.network Strided --model.compressor.network.dim 16
        --data.source shapes:40 --data.resolution 16 --data.batch_size 4"""
    compressor = ["compressor", *small.split()]
    backbone = "--model.prior.backbone.width 16 --model.prior.backbone.depth 1 --model.prior.backbone.heads 2"
    prior = ["prior", "--compressor", "runs/a", "--model.prior", "Autoregressive", *backbone.split()]
    steps = ["--trainer.max_steps", "2", "--name"]
    verbs = [
        ["train", *compressor, *steps, "a"],
        ["train", *prior, *steps, "b"],
        ["train", "resume", "runs/b"],
        ["sample", "runs/b", "--count", "2"],
        ["evaluate", "runs/b", "--samples", "16", "--lpips", "none"],
        ["plan", *compressor],
        ["report", "runs/b"],
    ]
    code = (
        "import sys; assert 'genstack' not in sys.modules\n"
        f"sys.modules.update(dict.fromkeys({POSIX!r}))\n"
        "import genstack.cli.verbs; from genstack.discovery import modules; modules(genstack.cli.verbs)\n"
        "from genstack.cli.main import main\n"
        f"for verb in {verbs!r}:\n    assert main(verb) is None, verb\n"
    )
    (tmp_path / "windows.py").write_text(code)
    status, _, errors = start(str(tmp_path / "windows.py"), cwd=tmp_path).finish()
    assert status == 0, errors


def test_version(capsys):
    assert main(["--version"]) is None
    assert capsys.readouterr().out.startswith("genstack 0.")


@pytest.mark.parametrize(("script", "verb"), [("train.py", "train"), ("sample.py", "sample")])
def test_scripts_are_verbs(script, verb, monkeypatch):
    seen = []
    monkeypatch.setattr("genstack.cli.main.main", seen.extend)
    monkeypatch.setattr(sys, "argv", [script, "a", "--b=3"])
    code = compile((ROOT / script).read_text(), script, "exec")
    with pytest.raises(SystemExit):
        exec(code, {"__name__": "__main__"})
    assert seen == [verb, "a", "--b=3"]


def test_interrupts_and_closed_pipes_exit_quietly(monkeypatch, capsys):
    def interrupted(arguments):
        raise KeyboardInterrupt

    monkeypatch.setattr("genstack.cli.main.dispatch", interrupted)
    assert main(["train"]) == 130
    assert capsys.readouterr().err == "interrupted\n"
    pipe = f"{sys.executable} -c 'from genstack.cli.main import main; import sys; sys.exit(main())' | true"
    done = subprocess.run(["bash", "-c", pipe], capture_output=True, text=True, check=False)
    assert done.stderr == ""


def test_bugs_keep_their_traceback(monkeypatch):
    monkeypatch.setattr("genstack.cli.main.dispatch", lambda arguments: int(arguments[0]))
    with pytest.raises(ValueError, match="bug"):
        main(["bug"])


def test_traceback_on_request(monkeypatch):
    monkeypatch.setenv("GENSTACK_TRACEBACK", "1")
    with pytest.raises(UserError):
        main(["trian"])


def test_verb_files_show_their_command(tmp_path):
    (tmp_path / "encode.py").write_text('"""Images to codes.\n\n    genstack encode DIR\n"""\n1 / 0')
    (tmp_path / "other.py").write_text('"""Something else; see genstack encode."""')
    assert verb.read(tmp_path / "encode.py") == verb.Verb("encode", "Images to codes", "genstack encode DIR")
    assert verb.read(tmp_path / "other.py") is None


@pytest.fixture(scope="module")
def export() -> Parser:
    return Parser(Command("genstack export", ("genstack.cli.verbs.export.export",)))


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["a"], {"run": "a", "to": "safetensors", "list": False}),
        (["a", "onnx", "--batch", "3", "--list"], {"run": "a", "to": "onnx", "batch": 3, "list": True}),
        (["--list", "a"], {"run": "a", "list": True}),
        (["--run=a", "--batch=-2"], {"run": "a", "batch": -2}),
        (["a", "--list", "false", "--out", "c"], {"list": False, "out": "c"}),
    ],
)
def test_functions_accept_positional_and_named_arguments(export, words, expected):
    assert expected.items() <= export.parse(words).as_dict().items()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["a", "--bacth", "3"], "unknown option '--bacth'; did you mean '--batch'?"),
        (["a", "--run", "b"], "--run is given twice; keep one"),
        (["a", "--batch", "x"], "--batch: expected int, got 'x'"),
        (["a", "--config", "x"], "unknown option '--config'"),
        (
            list("abcd1fghi"),
            "unexpected argument 'i'; the command takes RUN TO OUT LICENCE BATCH PUSH HALF LIST: ",
        ),
    ],
)
def test_invalid_arguments_of_functions_are_rejected(export, words, message):
    with pytest.raises(UserError) as error:
        export.parse(words)
    assert str(error.value).startswith(f"genstack export: {message}")


def test_missing_argument_is_named(capsys):
    assert main(["interpolate"]) == 2
    assert "genstack interpolate: RUN is missing: folder of a compressor's" in capsys.readouterr().err


def test_actions_are_listed_and_checked(capsys):
    assert main(["config"]) == 2
    assert "classes" in capsys.readouterr().out
    assert main(["config", "clases"]) == 2
    assert "unknown action 'clases'; did you mean 'classes'?" in capsys.readouterr().err


def test_split_returns_names_and_values():
    words = split(["a", "--top-k", "-1", "--force", "b", "--x=", "--y"], {"force": ("true", "false")})
    assert words == [("", "a"), ("top_k", "-1"), ("force", None), ("", "b"), ("x", ""), ("y", None)]
    words = split(["--sweep", "a=1", "b=2", "--count", "3", "--sweep=c=3"], lists={"sweep"})
    assert words == [("sweep", ["a=1", "b=2"]), ("count", "3"), ("sweep", ["c=3"])]


def test_none_in_python_means_null_or_not_given():
    command = verbs()["train"].actions()["compressor"]
    given = {
        "name": None,
        "init": None,
        "log": {"wandb_project": None},
        "data": {"limit": None, "source": "x"},
    }
    assert without_none(given, command) == {"init": None, "log": {}, "data": {"limit": None, "source": "x"}}


def test_suggest_prefers_the_closest_name():
    assert suggest("x", "FSK", ["FSQ", "VectorQuantizer"]) == "x; did you mean 'FSQ'?"
    assert suggest("x", "zzz", ["FSQ", "LFQ"]) == "x; choose from FSQ, LFQ"
    assert suggest("x", "zzz", []) == "x"
    assert suggest("x", "temp", ["steps", "temperature"]) == "x; did you mean 'temperature'?"


def test_quiet_hides_only_listed_messages():
    """Other messages of the same libraries are shown."""
    logger = logging.getLogger("pytorch_lightning.utilities.rank_zero")
    heard = []
    handler = logging.Handler()
    handler.emit = lambda record: heard.append(record.getMessage())
    logger.addHandler(handler)
    level = logger.level
    logger.setLevel(logging.INFO)
    try:
        with quiet(), quiet():
            logger.info("GPU available: False, used: False")
            logger.info("disk is full")
            warnings.warn("Found 3 module(s) in eval mode at the start of training. More.", stacklevel=1)
            with pytest.warns(UserWarning, match="loss is nan"):
                warnings.warn("loss is nan", stacklevel=1)
        logger.info("GPU available: later")
        with pytest.warns(UserWarning, match="in eval mode"):
            warnings.warn("Found 3 module(s) in eval mode at the start of training. More.", stacklevel=1)
    finally:
        logger.removeHandler(handler)
        logger.setLevel(level)
    assert heard == ["disk is full", "GPU available: later"]


def test_own_warnings_omit_the_source_line():
    here = str(Path(genstack.__file__).parent / "data" / "split.py")
    with quiet():
        assert warnings.formatwarning("one image only", UserWarning, here, 3) == "warning: one image only\n"
        assert "elsewhere.py:3" in warnings.formatwarning("soon gone", UserWarning, "elsewhere.py", 3)
    assert "split.py:3" in warnings.formatwarning("one image only", UserWarning, here, 3)
