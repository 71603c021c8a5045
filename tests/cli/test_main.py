"""The command `genstack`: its verbs, how quickly it answers, how it ends."""

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
from genstack.cli.main import main
from genstack.cli.parsing.words import meant, split
from genstack.cli.quiet import quiet
from genstack.errors import UserError

ROOT = Path(__file__).parents[2]


def test_overview_shows_every_verb_with_an_example(capsys):
    assert main([]) is None
    text = capsys.readouterr().out
    for name in ("train", "doctor", "config", "weights"):
        assert f"$ genstack {name}" in text
    assert max(map(len, text.splitlines())) <= 120


def test_overview_loads_no_library():
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
def test_idle_threads_sleep_unless_the_user_says_otherwise(environment, expected):
    code = (
        "import os, sys; from genstack.cli.main import main; assert 'torch' not in sys.modules\n"
        "main(['--version']); print(os.environ['OMP_WAIT_POLICY'])"
    )
    inherited = {name: value for name, value in os.environ.items() if name != "OMP_WAIT_POLICY"}
    done = subprocess.run(
        [sys.executable, "-c", code], env=inherited | environment, capture_output=True, text=True, check=True
    )
    assert done.stdout.split()[-1] == expected


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


def test_interruption_and_closed_pipes_end_quietly(monkeypatch, capsys):
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


def test_tracebacks_on_demand(monkeypatch):
    monkeypatch.setenv("GENSTACK_TRACEBACK", "1")
    with pytest.raises(UserError):
        main(["trian"])


def test_a_verb_is_a_file_that_shows_its_command(tmp_path):
    (tmp_path / "encode.py").write_text('"""Images to codes.\n\n    genstack encode DIR\n"""\n1 / 0')
    (tmp_path / "other.py").write_text('"""Something else; see genstack encode."""')
    assert verb.read(tmp_path / "encode.py") == verb.Verb("encode", "Images to codes", "genstack encode DIR")
    assert verb.read(tmp_path / "other.py") is None


def function(source: str, target: str = "here", *, count: int = 1, force: bool = False) -> None:
    """Copy.

    Args:
        source: from where.
    """
    print((source, target, count, force))


@pytest.mark.parametrize(
    ("words", "result"),
    [
        (["a"], ("a", "here", 1, False)),
        (["a", "b", "--count", "3", "--force"], ("a", "b", 3, True)),
        (["--force", "a"], ("a", "here", 1, True)),
        (["--source=a", "--count=-2"], ("a", "here", -2, False)),
        (["a", "--force", "false", "--target", "c"], ("a", "c", 1, False)),
    ],
)
def test_functions_are_called_as_in_python(words, result, capsys):
    assert verb.call(function, "genstack copy", words) is None
    assert capsys.readouterr().out == f"{result}\n"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "--source is missing; from where"),
        (["a", "--cuont", "3"], "--cuont is unknown; did you mean --count?"),
        (["a", "--source", "b"], "--source is given twice; keep one"),
    ],
)
def test_functions_called_wrongly(words, message):
    with pytest.raises(UserError) as error:
        verb.call(function, "genstack copy", words)
    assert str(error.value) == f"genstack copy: {message}"


def test_actions_of_a_verb(capsys):
    assert main(["config"]) == 2
    assert "classes" in capsys.readouterr().out
    assert main(["config", "clases"]) == 2
    assert "clases is no action; did you mean classes?" in capsys.readouterr().err


def test_words_are_split_into_places_and_names():
    words = split(["a", "--top-k", "-1", "--force", "b", "--x=", "--y"], frozenset({"force"}))
    assert words.positional == ["a", "b"]
    assert words.settings == [("top_k", "-1"), ("force", None), ("x", ""), ("y", None)]


def test_the_nearest_name_or_else_the_choice():
    assert meant("x", "FSK", ["FSQ", "VectorQuantizer"]) == "x; did you mean FSQ?"
    assert meant("x", "zzz", ["FSQ", "LFQ"]) == "x; there is FSQ, LFQ"
    assert meant("x", "zzz", []) == "x"
    assert meant("x", "temp", ["steps", "temperature"]) == "x; did you mean temperature?"


def test_only_named_noise_is_silenced():
    """What else the same libraries say is heard."""
    logger = logging.getLogger("pytorch_lightning.utilities.rank_zero")
    heard = []
    handler = logging.Handler()
    handler.emit = lambda record: heard.append(record.getMessage())
    logger.addHandler(handler)
    level = logger.level
    logger.setLevel(logging.INFO)
    try:
        quiet()
        logger.info("GPU available: False, used: False")
        logger.info("disk is full")
        warnings.warn("Found 3 module(s) in eval mode at the start of training. More.", stacklevel=1)
        with pytest.warns(UserWarning, match="loss is nan"):
            warnings.warn("loss is nan", stacklevel=1)
    finally:
        logger.removeHandler(handler)
        logger.setLevel(level)
    assert heard == ["disk is full"]


def test_own_warnings_are_one_line_without_a_place_in_the_source():
    quiet()
    here = str(Path(genstack.__file__).parent / "data" / "split.py")
    assert warnings.formatwarning("one image only", UserWarning, here, 3) == "warning: one image only\n"
    assert "elsewhere.py:3" in warnings.formatwarning("soon gone", UserWarning, "elsewhere.py", 3)
