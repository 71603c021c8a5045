"""`compile: auto` of a training: chosen after its first steps, and kept by the run."""

from contextlib import contextmanager

import pytest
import torch

from genstack.cli.main import main
from genstack.cli.verbs.doctor import Finding, compiler
from genstack.compressor import Autoencoder, Convolutional
from genstack.compressor.quantizers import VectorQuantizer
from genstack.data import ImageData
from genstack.losses.adaptive import AdaptiveWeight
from genstack.losses.adversary import Adversary
from genstack.training.callbacks import compilation
from genstack.training.callbacks.checkpoint import latest
from genstack.training.compressor import CompressorTraining
from genstack.training.prior import PriorTraining


class Machine:
    """A clock by which a step takes so many seconds, and a compiler that notes what it is given."""

    def __init__(self, plain=1.0, quick=0.5):
        self.plain, self.quick, self.now = plain, quick, 0.0
        self.active, self.networks = False, []

    def seconds(self, device):
        self.now += (self.quick if self.active else self.plain) / 2  # a step reads the clock twice
        return self.now

    @contextmanager
    def compiled(self, networks):
        self.active, self.networks = True, [*self.networks, [type(one).__name__ for one in networks]]
        yield
        self.active = False


@pytest.fixture
def machine(monkeypatch):
    """Steps that are worth compiling, decided after two, and after two more."""
    for name, count in (("WARMUP", 1), ("COMPILING", 1), ("TIMED", 1)):
        monkeypatch.setattr(compilation, name, count)
    monkeypatch.setattr(PriorTraining, "compile_worthwhile", 0.0)
    monkeypatch.setattr("genstack.cli.verbs.doctor.compiler", lambda: Finding("ok", ""))
    found = Machine()
    monkeypatch.setattr(compilation, "seconds", found.seconds)
    monkeypatch.setattr(compilation, "compiled", found.compiled)
    return found


def choice(folder):
    """The choice in the checkpoint of a run."""
    states = torch.load(latest(folder), weights_only=True)["callbacks"]
    return next(state["compiled"] for name, state in states.items() if name == "CompilationCallback")


@pytest.mark.slow
def test_a_run_keeps_its_choice(runs, machine, capsys):
    """Also where steps would no longer be worth it, and said each time."""
    more = ("--trainer.max_steps", "5")
    folder = runs.train("prior", "kept choice", *more)
    assert "compiling: 3 more steps would take 0.0 minutes; --model.compile false" in capsys.readouterr().err
    assert (choice(folder), machine.networks, machine.active) == (True, [["Transformer"]], False)
    config = folder / "config.yaml"
    config.write_text(config.read_text().replace("max_steps: 5", "max_steps: 6"))
    assert main(["train", "resume", str(folder)]) is None
    assert "compiled, as before; --model.compile false leaves it out" in capsys.readouterr().err
    assert (choice(folder), len(machine.networks), machine.active) == (True, 2, False)


@pytest.mark.slow
@pytest.mark.parametrize("reason", ["slower", "compiler", "short"])
def test_a_run_continues_as_it_was(runs, machine, monkeypatch, capsys, reason):
    said = ""
    if reason == "slower":
        machine.quick, said = 2.0, "no longer compiled: a step took 2.00 of its time before\n"
    elif reason == "compiler":
        missing = Finding("warning", "no g++ for C++; --compile will not work")
        monkeypatch.setattr("genstack.cli.verbs.doctor.compiler", lambda: missing)
        said = "not compiled: 3 more steps would take 0.0 minutes, but there is no g++ for C++\n"
    else:
        monkeypatch.setattr(PriorTraining, "compile_worthwhile", 60.0)
    folder = runs.train("prior", f"continued {reason}", "--trainer.max_steps", "5")
    error = capsys.readouterr().err
    assert said in error and ("compil" in error) is bool(said)
    assert (choice(folder), len(machine.networks), machine.active) == (False, int(reason == "slower"), False)


def compressor(channels):
    return Autoencoder(channels, Convolutional(4, 4, (1, 2), 1, (), False), VectorQuantizer(7, 3))


def test_networks_that_cannot_be_compiled_are_left():
    """By auto, silently; `true` is an error, which tests of both stages hold."""
    images = ImageData("shapes", 24, limit=12)
    plain = CompressorTraining(compressor, images)
    assert plain.compile_mode == "auto" and not plain.compile_obstacle
    assert [type(one).__name__ for one in plain.networks_to_compile()] == ["PyramidEncoder", "PyramidDecoder"]
    adaptive = CompressorTraining(
        compressor, images, adversary=lambda channels: Adversary(channels, adaptive=AdaptiveWeight())
    )
    assert "several backward passes" in adaptive.compile_obstacle


def test_missing_compiler_is_an_error_before_training(runs, monkeypatch, capsys):
    missing = Finding("warning", "no g++ for C++", "apt install g++")
    monkeypatch.setattr("genstack.cli.verbs.doctor.compiler", lambda: missing)
    words = runs.words("compressor", "no compiler", "--model.compile", "true")
    assert main(["train", *words]) == 2
    assert "--model.compile needs a C++ compiler: no g++ for C++: apt install g++" in capsys.readouterr().err
    assert not (runs.folder / "no compiler").exists()


#: Trains a run, and the same with a break after the steps that decide; prints names of weights that differ.
TWO_RUNS = """
import sys
from functools import partial
import torch
from genstack.cli.main import main
from genstack.training.callbacks import compilation
from genstack.training.prior import PriorTraining

backend, label, runs, *words = sys.argv[1:]
PriorTraining.compile_worthwhile = 0.0
compilation.WARMUP, compilation.COMPILING, compilation.TIMED = 0, 1, 1
compilation.seconds = lambda device: 0.0
compilation.compiled = partial(compilation.compiled, backend=backend)
named = lambda name: ["train", *(name if word == "NAME" else word for word in words)]
assert main(named("straight " + label)) is None

class Cut(BaseException):
    pass

def cut(self, *arguments):
    if self.global_step == 5:
        raise Cut
    return step(self, *arguments)

step, PriorTraining.training_step = PriorTraining.training_step, cut
try:
    main(named("cut " + label))
except Cut:
    PriorTraining.training_step = step
assert main(["train", "resume", f"{runs}/cut {label}"]) is None
saved = [
    torch.load(f"{runs}/{name} {label}/checkpoints/last.ckpt", weights_only=True)
    for name in ("straight", "cut")
]
print([each["callbacks"]["CompilationCallback"]["compiled"] for each in saved])
one, other = (each["state_dict"] for each in saved)
print([name for name in one if "_orig_mod" in name or not torch.equal(one[name], other[name])])
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("stage", "backend"),
    [
        ("prior", "eager"),
        ("flow", "eager"),
        pytest.param(
            "prior",
            "inductor",
            marks=[
                pytest.mark.nightly,
                pytest.mark.skipif(compiler().state != "ok", reason="no C++ compiler"),
            ],
        ),
    ],
)
def test_a_compiled_run_resumes_bit_for_bit(runs, stage, backend, start, tmp_path):
    """In a process of its own, where shapes are not checked: the checks do not compile."""
    words = runs.words(stage, "NAME", "--trainer.checkpoint_minutes", "0")
    words = [backend, f"{stage} {backend}", str(runs.folder), *words]
    (tmp_path / "two_runs.py").write_text(TWO_RUNS)
    status, printed, errors = start(str(tmp_path / "two_runs.py"), *words).finish()
    assert status == 0, errors
    assert printed.splitlines()[-2:] == ["[True, True]", "[]"]
