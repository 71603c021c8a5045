"""The core stands on torch alone: models can be used where nothing of training is installed."""

import ast
import importlib
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from genstack import hub
from genstack.conditions import text_encoder
from genstack.data.sources import open_source
from genstack.errors import UserError

ABSENT = (
    "pytorch_lightning",
    "lightning",
    "wandb",
    "lpips",
    "torchvision",
    "jsonargparse",
    "sklearn",
    "yaml",
)

#: Packages that Lightning imports, torch.compile's among them.
SLOW = ("pytorch_lightning", "torchmetrics", "torchvision", "torch._dynamo")

#: Folders and modules of genstack; each imports from those before it.
ORDER = (
    *(
        "errors",
        "yaml_files",
        "plugins",
        "discovery",
        "atomic",
        "quiet",
        "compilation",
        "layout",
        "dot_product_attention",
        "inputs",
        "dist",
        "hub",
        "pretrained",
    ),
    *("models", "transformer", "compressor", "conditions", "prior", "data", "losses", "model"),
    *("description", "data.codes", "sampling", "checkpoints", "evaluation", "training", "report", "testing"),
    *("cli", "web"),
)


@pytest.fixture
def python(start, tmp_path) -> Callable[[str], tuple[int, str, str]]:
    """Run code in a process that has imported nothing of genstack; exit code, output and errors."""
    folder = tmp_path / "folder"
    folder.mkdir()

    def run(code: str) -> tuple[int, str, str]:
        (tmp_path / "code.py").write_text(f"import sys; assert 'genstack' not in sys.modules\n{code}")
        return start(str(tmp_path / "code.py"), cwd=folder).finish()

    return run


@pytest.mark.slow
def test_core_imports_without_what_training_needs(python):
    code = (
        f"sys.modules.update(dict.fromkeys({ABSENT!r}))\n"
        "import genstack.sampling, genstack.layout, genstack.compressor, genstack.prior\n"
        "from genstack.discovery import modules\n"
        "modules(genstack.sampling), modules(genstack.compressor), modules(genstack.prior)"
    )
    status, _, errors = python(code)
    assert status == 0, errors


def test_folders_import_only_from_those_above_them():
    package = Path(hub.__file__).parent
    upward = [
        f"{path.relative_to(package)} imports {name}"
        for path in sorted(package.rglob("*.py"))
        for name in imported(path)
        if path.parent != package or path.name != "__init__.py"
        if ORDER.index(room(name)) > ORDER.index(room(".".join(path.relative_to(package.parent).parts)))
    ]
    assert not upward


def imported(path: Path) -> list[str]:
    """Modules of genstack that a file imports anywhere."""
    nodes = list(ast.walk(ast.parse(path.read_text(encoding="utf-8"))))
    modules = [node.module for node in nodes if isinstance(node, ast.ImportFrom) and node.module]
    parts = [
        f"genstack.{alias.name}"
        for node in nodes
        if isinstance(node, ast.ImportFrom) and node.module == "genstack"
        for alias in node.names
    ]
    plain = [alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names]
    found = [name for name in (*modules, *parts, *plain) if name.startswith("genstack.")]
    return [name for name in found if name != "genstack.__version__"]


def room(module: str) -> str:
    """The folder or module of ORDER that a module is in."""
    first, *rest = module.removesuffix(".py").split(".")[1:]
    if [first, *rest] == ["cli", "verbs", "web"]:
        return "web"  # its command line
    return "data.codes" if [first, *rest[:1]] == ["data", "codes"] else first


def test_absent_means_absent():
    """The way of blocking used above does block."""
    for name in ABSENT:
        with pytest.MonkeyPatch.context() as patch:
            patch.setitem(sys.modules, name, None)
            with pytest.raises(ModuleNotFoundError, match=f"import of {name} halted"):
                importlib.import_module(name)


@pytest.mark.slow
def test_commands_without_training_start_without_lightning(python):
    """With them, a command takes 5.8 s of a core to start, and 2.1 s without."""
    code = (
        f"sys.modules.update(dict.fromkeys({SLOW!r}))\n"
        "from genstack.cli.main import main\n"
        "for verb in ('sample', 'encode', 'export', 'import', 'data check'):\n"
        "    assert main([*verb.split(), 'nothing']) == 2"
    )
    status, _, errors = python(code)
    assert status == 0, errors
    assert len(errors.splitlines()) == 5


@pytest.mark.slow
def test_import_has_no_side_effects(python, tmp_path):
    """Importing seeds nothing, writes nothing and says nothing."""
    code = (
        "import torch; before = torch.get_rng_state()\n"
        "import genstack.compressor, genstack.prior, genstack.losses, genstack.cli.main\n"
        "assert torch.equal(before, torch.get_rng_state())"
    )
    assert python(code) == (0, "", "")
    assert not list((tmp_path / "folder").iterdir())


@pytest.mark.parametrize(
    ("package", "extra", "ask"),
    [
        ("datasets", "hf", lambda: open_source("hf:nobody/nothing")),
        ("pyarrow", "parquet", lambda: open_source("a.parquet")),
        ("transformers", "text", text_encoder.library),
        ("huggingface_hub", "hub", lambda: hub.fetch("hf:ann/flowers")),
    ],
)
def test_a_package_that_is_not_installed_is_asked_for_by_its_extra(
    package, extra, ask, monkeypatch, tmp_path
):
    monkeypatch.chdir(tmp_path)
    Path("a.parquet").write_bytes(b"PAR1")
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(UserError, match=rf"{package}.*; pip install 'genstack-images\[{extra}\]'$"):
        ask()
