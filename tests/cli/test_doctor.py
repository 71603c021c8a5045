"""Checks of `genstack doctor`, each with its fix."""

from importlib.metadata import PackageNotFoundError
from pathlib import Path
from types import SimpleNamespace

import pytest

from genstack import plugins
from genstack.cli.main import main
from genstack.cli.verbs import doctor


def failing(error):
    def load(name):
        raise error

    return load


def test_doctor_passes_on_a_complete_machine(monkeypatch, capsys, tmp_path):
    monkeypatch.setattr(doctor, "torchvision", lambda: doctor.Finding("ok", "loads"))
    monkeypatch.setattr(doctor, "device", lambda: doctor.Finding("ok", "CPU"))
    monkeypatch.setattr(doctor, "disk", lambda runs: doctor.Finding("ok", str(runs)))
    assert main(["doctor", "--runs", str(tmp_path)]) == 0
    lines = capsys.readouterr().out.splitlines()
    subjects = ["versions", "device", "torchvision", "compiler", "venv"]
    subjects += ["weights", "plugins", "wandb", "disk"]
    assert [line.split()[1] for line in lines] == subjects
    assert str(tmp_path) in lines[-1]
    monkeypatch.setattr(doctor, "disk", lambda runs: doctor.Finding("problem", "full", "tidy up"))
    assert main(["doctor"]) == 1
    assert capsys.readouterr().out.splitlines()[-1].endswith("full; tidy up")


@pytest.mark.parametrize(
    ("module", "reason"),
    [
        ("broken_parts", "ModuleNotFoundError, broken_parts.py line 1: No module named 'nothing_there'"),
        ("missing_parts", "ModuleNotFoundError: module missing_parts not found; install the package again"),
        ("missing_package.parts", "ModuleNotFoundError: No module named 'missing_package'"),
        ("broken_parts.below", "ModuleNotFoundError: No module named 'nothing_there'"),
    ],
)
def test_broken_installed_plugin_is_reported(monkeypatch, tmp_path, capsys, module, reason):
    """And does not stop the other checks, or end another command in a traceback."""
    (tmp_path / "broken_parts.py").write_text("import nothing_there\n")
    metadata = tmp_path / "broken_parts-1.0.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: broken-parts\nVersion: 1.0\n")
    (metadata / "entry_points.txt").write_text(f"[genstack.parts]\nbroken = {module}\n")
    monkeypatch.syspath_prepend(tmp_path)
    plugins.installed.cache_clear()
    try:
        assert main(["doctor", "--runs", str(tmp_path)]) == 1
        lines = capsys.readouterr().out.splitlines()
        assert main(["config", "classes", "quantizer"]) == 2
        assert capsys.readouterr().err == (
            f"genstack config classes: plugin broken-parts failed to import: {reason}\n"
        )
    finally:
        plugins.installed.cache_clear()
    (line,) = [line for line in lines if line.split()[1] == "plugins"]
    assert line.startswith("problem ") and reason in line
    assert len(lines) == 9


def test_missing_library_is_reported():
    def version(name):
        if name == "torchvision":
            raise PackageNotFoundError(name)
        return "1.0"

    found = doctor.versions(
        version, lambda: ["torch>=1", "torchvision>=0.24", 'pyarrow>=1; extra == "parquet"']
    )
    assert (found.state, found.fact) == ("problem", "torchvision missing")
    assert found.fix == "pip install 'torchvision>=0.24'"


@pytest.mark.parametrize(
    ("installed", "state"), [("4.52.0", "problem"), ("4.53.0", "ok"), ("5.0", "problem")]
)
def test_version_out_of_bounds_is_reported_with_its_fix(installed, state):
    declared = ["jsonargparse[signatures]>=4.53,<5", "pytorch-lightning>=2.6"]
    found = doctor.versions({"jsonargparse": installed, "pytorch-lightning": "2.6.6"}.get, lambda: declared)
    assert found.state == state
    if state == "problem":
        assert found.fact == f"jsonargparse {installed} does not satisfy <5,>=4.53"
        assert found.fix == "pip install 'jsonargparse<5,>=4.53'"
    else:
        assert "jsonargparse 4.53.0, pytorch-lightning 2.6.6" in found.fact


def test_old_versions_of_optional_libraries_are_reported():
    declared = ['onnx>=1.17; extra == "onnx"', 'ruff>=2; extra == "test"', 'datasets>=4; extra == "hf"']

    def find(name):
        if name == "datasets":
            raise PackageNotFoundError(name)
        return "1.0"

    found = doctor.versions(find, lambda: declared)
    assert (found.state, found.fact) == ("problem", "onnx 1.0 does not satisfy >=1.17")


def test_bounds_are_those_of_the_clone_or_of_the_installed_package(tmp_path, monkeypatch):
    assert any(text.startswith("torch>=") for text in doctor.bounds())
    assert any(text.startswith("gradio>=") and 'extra == "web"' in text for text in doctor.bounds())
    monkeypatch.setattr(doctor, "requires", lambda name: [f"{name}-bound>=1"])
    assert doctor.bounds(tmp_path) == ["genstack-images-bound>=1"]


def test_mismatched_torchvision_is_reported():
    found = doctor.torchvision(failing(RuntimeError(doctor.MISMATCH)))
    assert found.state == "problem"
    assert "does not match this torch" in found.fact
    assert "--force-reinstall torch torchvision" in found.fix
    found = doctor.torchvision(failing(ImportError("No module named torchvision")))
    assert (found.state, found.fix) == ("problem", "pip install torchvision")


def fake_torch(cuda=False, bf16=False, mps=False):
    return SimpleNamespace(
        get_num_threads=lambda: 3,
        cuda=SimpleNamespace(
            is_available=lambda: cuda,
            is_bf16_supported=lambda: bf16,
            device_count=lambda: 2,
            get_device_name=lambda index: "T4",
            get_device_properties=lambda index: SimpleNamespace(total_memory=16 * 2**30),
        ),
        backends=SimpleNamespace(mps=SimpleNamespace(is_available=lambda: mps)),
    )


def test_devices_are_reported(monkeypatch):
    assert doctor.device(failing(OSError("libtorch.so: no such file\nmore"))).state == "problem"
    assert "2 x T4, 16 GiB, bf16" in doctor.device(lambda name: fake_torch(cuda=True, bf16=True)).fact
    assert "--trainer.precision 16-mixed" in doctor.device(lambda name: fake_torch(cuda=True)).fact
    assert "MPS" in doctor.device(lambda name: fake_torch(mps=True)).fact
    monkeypatch.setattr(doctor.shutil, "which", lambda name: None)
    assert doctor.device(lambda name: fake_torch()).state == "ok"
    monkeypatch.setattr(doctor.shutil, "which", lambda name: f"/bin/{name}")
    assert doctor.device(lambda name: fake_torch()).state == "warning"


def test_missing_compiler_is_reported(monkeypatch, tmp_path):
    """The compiler is searched as torch searches it."""
    monkeypatch.delenv("CXX", raising=False)
    monkeypatch.setattr(doctor.sys, "platform", "linux")
    (tmp_path / "Python.h").touch()
    assert doctor.compiler(lambda name: None, tmp_path).fix.startswith("apt install g++")
    only = doctor.compiler(lambda name: f"/bin/{name}" if name == "clang++" else None, tmp_path)
    assert (only.state, only.fix) == ("warning", "export CXX=clang++")
    assert "/bin/g++" in doctor.compiler(lambda name: f"/bin/{name}", tmp_path).fact
    bare = doctor.compiler(lambda name: f"/bin/{name}", tmp_path / "nothing")
    assert (bare.state, bare.fix) == ("warning", "apt install python3-dev")
    monkeypatch.setenv("CXX", "icpx")
    assert "/bin/icpx" in doctor.compiler(lambda name: f"/bin/{name}", tmp_path).fact
    monkeypatch.delenv("CXX")
    monkeypatch.setattr(doctor.sys, "platform", "darwin")
    assert "/bin/clang++" in doctor.compiler(lambda name: f"/bin/{name}", tmp_path).fact


def test_missing_venv_is_reported():
    found = doctor.venv(lambda name: None if name == "ensurepip" else object())
    assert (found.state, found.fix) == ("warning", "apt install python3-venv")
    assert doctor.venv(lambda name: object()).state == "ok"


def test_missing_weights_are_reported():
    found = doctor.weights(lambda: {"lpips-vgg": [], "lpips-alex": ["/here"]})
    assert found.state == "warning"
    assert "genstack weights fetch lpips-vgg" in found.fix
    assert "/here" in doctor.weights(lambda: {"lpips-alex": ["/here"]}).fact
    assert doctor.weights(lambda: failing(ImportError("torch"))("torch")).state == "problem"


def test_wandb_is_optional(monkeypatch):
    assert doctor.wandb(lambda name: None).state == "warning"
    monkeypatch.setenv("WANDB_MODE", "disabled")
    assert "disabled" in doctor.wandb(lambda name: object()).fact


@pytest.mark.parametrize(("free", "state"), [(0.5e9, "problem"), (5e9, "warning"), (50e9, "ok")])
def test_disk_space_is_reported(tmp_path, free, state):
    seen = []

    def usage(path: Path):
        seen.append(path)
        return SimpleNamespace(free=free)

    assert doctor.disk(tmp_path / "not" / "yet", usage).state == state
    assert seen == [tmp_path]


def test_read_only_disk_is_reported(tmp_path, monkeypatch):
    monkeypatch.setattr(doctor.os, "access", lambda path, mode: False)
    assert doctor.disk(tmp_path).state == "problem"
