"""Parts of users: found by every command, remembered by runs, and loaded by nothing that is read."""

import json
import multiprocessing
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
import yaml
from safetensors import safe_open
from safetensors.torch import load_file, save_file

import genstack
from genstack import plugins
from genstack.checkpoints.exporting import exports
from genstack.cli.commands import training_command
from genstack.cli.main import main
from genstack.cli.parsing.parser import Parser
from genstack.data.sources import open_source
from genstack.description import build, describe, part_classes
from genstack.errors import UserError

SIGNS = '''
"""Flips (arXiv:2310.05737)."""
import torch
from pathlib import Path
from pytorch_lightning import Callback
import genstack.compressor
from genstack.compressor.bottleneck import Quantized
from genstack.checkpoints.exports.export import Export
from genstack.data.source import PictureInfo, Source


class Flips(genstack.compressor.Quantizer):
    """The sign of each channel.

    Args:
        dim: channels of the latents.
    """

    def __init__(self, dim: int = 4):
        super().__init__()
        self.dim, self.codebook_size = dim, 2**dim

    def forward(self, latents):
        bits = (latents.float() > 0).long()
        codes = torch.einsum("b d h w, d -> b h w", bits, 2 ** torch.arange(self.dim)).flatten(1)
        return Quantized(2.0 * bits - 1 + latents - latents.detach(), codes=codes)

    def lookup(self, codes, layout):
        (grid,) = layout.split(codes)
        return 2.0 * (grid // 2 ** torch.arange(self.dim) % 2).movedim(-1, 1) - 1


class Count(Callback):
    """Write the step to a file.

    Args:
        file: to write to.
        first: number of the first step.
    """

    def __init__(self, file: str, first: int = 1):
        self.file, self.first = file, first

    def on_train_batch_end(self, trainer, *_):
        with Path(self.file).open("a") as file:
            file.write(f"{trainer.global_step - 1 + self.first} ")


class Grey(Source):
    """Grey squares."""

    def __init__(self, name):
        pass

    @classmethod
    def names(cls):
        return ("grey",)

    @classmethod
    def claims(cls, name):
        return name == "grey"

    def __len__(self):
        return 40

    def key(self, number):
        return str(number)

    def info(self, number):
        return PictureInfo(0, 0, "L")

    def image(self, number, preprocessing):
        return torch.full((preprocessing.channels, 8, 8), number / 40)


class Names(Export):
    """Names of tensors."""

    name, what = "names", "a list of names"

    def write(self, model, folder, batch):
        (folder / "names.txt").write_text("\\n".join(model.modules().state_dict()))

    def use(self, model, place, batch):
        return "pass"
'''
TINY = [
    *("--config", "configs/demo/digits_compressor.yaml", "--data.source", "grey", "--data.batch_size", "4"),
    *("--trainer.max_steps", "2", "--log.images", "0", "--model.compressor.quantizer", "Flips"),
    *("--model.compressor.network.width", "8", "--model.compressor.network.dim", "8"),
]


@pytest.fixture(autouse=True)
def forgotten(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """No test sees the plugins of another."""
    monkeypatch.setenv(plugins.FOLDERS, "")
    monkeypatch.setattr(plugins, "__path__", [])
    with plugins.use_temporarily([]):
        yield


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("plugin") / "signs.py"
    path.write_text(SIGNS)
    return str(path)


@pytest.fixture(scope="module")
def trained(file: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run whose quantizer, source and callback are a plugin's."""
    root = tmp_path_factory.mktemp("runs")
    callback = ["--trainer.callbacks", "Count", "--trainer.callbacks.file", str(root / "steps")]
    flags = ["--name", "signs", "--runs", str(root), "--trainer.callbacks.first", "10"]
    assert main(["train", "compressor", "--plugin", file, *TINY, *callback, *flags]) is None
    return root / "signs"


def test_parts_are_listed_with_those_of_genstack(file, capsys):
    assert main([f"--plugin={file}", "config", "classes"]) is None
    listed = capsys.readouterr().out
    for line in ("Flips", "Count", "Grey", "Names"):
        assert f"\n  {line} " in listed
    assert "VectorQuantizer" in listed
    assert main(["config", "classes"]) is None
    assert "Flips" not in capsys.readouterr().out


def test_docstrings_are_help_and_nothing_is_imported_for_it(tmp_path, capsys):
    (tmp_path / "unseen.py").write_text(SIGNS)
    words = ["--model.compressor.quantizer.help=Flips", "--plugin", str(tmp_path / "unseen.py")]
    assert main(["train", "compressor", *words]) is None
    assert "channels of the latents. [default: 4]" in capsys.readouterr().out
    assert main(["sample", "--help"]) is None
    assert "--plugin <path>" in capsys.readouterr().out
    assert "genstack.plugins.unseen" not in sys.modules


def test_a_run_remembers_its_plugins(trained, file):
    config = yaml.safe_load((trained / "config.yaml").read_text())
    assert [one["name"] for one in config["plugins"]] == ["signs.py"]
    assert config["plugins"][0]["version"].startswith("sha256:")
    assert json.loads((trained / "model.json").read_text())["plugins"] == config["plugins"]
    assert (trained.parent / "steps").read_text() == "10 11 "


def test_a_run_without_its_plugin_names_it(trained, file, tmp_path, capsys):
    for words in (["train", "resume", str(trained)], ["encode", str(trained), "--out", str(tmp_path / "x")]):
        assert main(words) == 2
        said = capsys.readouterr().err
        assert "was made with plugin signs.py" in said and "--plugin signs.py" in said
        assert said.count("\n") == 1
    assert main(["train", "resume", str(trained), "--plugin", file]) is None
    with pytest.raises(UserError, match=r"--plugin signs\.py"):
        genstack.load(trained)
    plugins.use_plugin(file)
    model = genstack.load(trained)
    codes = model.compressor.encode(torch.zeros(1, 1, 8, 8))
    assert (
        codes.shape == (1, model.layout.length)
        and model.layout.codebook_size == 2**model.compressor.quantizer.dim
    )


def test_a_run_continues_after_its_plugin_changed_and_warns(trained, file, tmp_path):
    other = tmp_path / "signs.py"
    other.write_text(SIGNS + "\n# one more line\n")
    with pytest.warns(UserWarning, match=r"was made with signs\.py of sha256:"):
        assert main(["train", "resume", str(trained), "--plugin", str(other)]) is None


def test_sources_and_exports_are_found(file):
    with pytest.raises(UserError, match="grey"):
        open_source("grey")
    plugins.use_plugin(file)
    assert len(open_source("grey")) == 40
    assert "names" in exports()
    assert "Flips" in part_classes()


@pytest.mark.slow
def test_a_spawned_process_imports_the_same_part(file):
    plugins.use_plugin(file)
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        assert pool.apply(len, (open_source("grey"),)) == 40


def quantizer_of(file, name="Flips"):
    """The quantizer of this name that a command with a plugin builds, after a way to plain data and back."""
    parser = Parser(training_command("compressor"))
    network = ["--model.compressor.network", "Strided"]
    words = ["--model.compressor", "Autoencoder", *network, "--data.source", "digits"]
    with plugins.use_temporarily([file]):
        settings = parser.parse([*words, "--model.compressor.quantizer", name])
        made = parser.build(settings).model.compressor(1)
        assert type(build(describe(made)).quantizer) is type(made.quantizer)
        return made.quantizer


def test_plugins_with_equal_names_follow_each_other(file, tmp_path):
    """Neither another file's class nor an earlier state of the same file is taken for the one in use."""
    texts = {"other.py": SIGNS.replace("dim: int = 4", "dim: int = 5"), "signs.py": "x = 1\n" + SIGNS}
    for name, text in texts.items():
        (tmp_path / name).write_text(text)
    other, same_name = str(tmp_path / "other.py"), str(tmp_path / "signs.py")
    for _ in range(2):
        assert [quantizer_of(each).dim for each in (file, other, same_name)] == [4, 5, 4]
    Path(same_name).write_text(SIGNS.replace("dim: int = 4", "dim: int = 6").replace("Names(", "Nouns("))
    assert quantizer_of(same_name).dim == 6
    with pytest.raises(UserError, match=r"unknown quantizer 'Flops'; did you mean 'Flips'\?"):
        quantizer_of(same_name, "Flops")


def test_a_class_of_no_plugin_in_use_is_unknown(file, tmp_path):
    quantizer_of(file)
    (tmp_path / "empty.py").write_text("")
    for name in ("Flips", "genstack.plugins.signs.Flips", "{class_path: Flips}"):
        with pytest.raises(UserError, match=r"unknown quantizer '[\w.]*Flips'"):
            quantizer_of(tmp_path / "empty.py", name)


def test_an_edited_file_replaces_its_former_parts(tmp_path):
    file = tmp_path / "signs.py"
    for dim in (4, 5):
        file.write_text(SIGNS.replace("dim: int = 4", f"dim: int = {dim}"))
        plugins.use_plugin(file)
        assert part_classes()["Flips"]().dim == dim


def test_two_plugins_in_use_cannot_share_a_name(file, tmp_path, capsys):
    (tmp_path / "other.py").write_text(SIGNS)
    words = ["config", "classes", "--plugin", file, "--plugin", str(tmp_path / "other.py")]
    assert main(words) == 2
    said = capsys.readouterr().err
    assert re.search(r"two parts are named Flips, in (signs|other)\.py and (signs|other)\.py; rename", said)
    assert said.count("\n") == 1


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("import not_there", r"bad.py failed to import: ModuleNotFoundError, bad.py line 1: No module"),
        ("\ndef f(:", r"bad.py failed to import: SyntaxError, bad.py line 2"),
        ("raise SystemError('a\\nb')", r"bad.py failed to import: SystemError, bad.py line 1: a b"),
        ("import sys\nsys.exit(3)", r"bad.py failed to import: SystemExit, bad.py line 2: 3"),
        (
            "from genstack.compressor import Quantizer\nclass FSQ(Quantizer):\n"
            "  def forward(self, latents): ...\n  def lookup(self, codes, layout): ...",
            r"two parts are named FSQ, in genstack.compressor.quantizers.fsq and bad.py; rename",
        ),
    ],
)
def test_a_bad_plugin_is_one_clear_line(text, message, tmp_path, capsys):
    (tmp_path / "bad.py").write_text(text)
    assert main(["train", "compressor", *TINY, "--plugin", str(tmp_path / "bad.py")]) == 2
    said = capsys.readouterr().err
    assert re.search(message, said) and said.count("\n") == 1


@pytest.mark.parametrize("name", ["A", "Zebra"])  # before and after genstack's in the alphabet
def test_a_source_or_export_with_the_name_of_another_is_one_clear_line(name, tmp_path, capsys):
    (tmp_path / "bad.py").write_text(
        SIGNS.replace('"grey"', '"digits"').replace("Grey(", f"{name}(").replace('"names",', '"onnx",')
    )
    words = ["--plugin", str(tmp_path / "bad.py")]
    assert main(["data", "check", "digits", "--out", str(tmp_path / "a.png"), *words]) == 2
    assert re.search(r"two parts are named digits, in .*bad.py.*; rename", capsys.readouterr().err)
    with (
        plugins.use_temporarily([tmp_path / "bad.py"]),
        pytest.raises(UserError, match="two parts are named onnx"),
    ):
        exports()


def test_proposed_commands_name_the_plugin_files(file, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert plugins.flags() == ""
    (tmp_path / "my parts").mkdir()
    (tmp_path / "my parts" / "other.py").write_text("")
    with plugins.use_temporarily([file, "my parts/other.py"]):
        assert plugins.flags() == f" --plugin {file} --plugin 'my parts/other.py'"
    assert main(["data", "check", "grey", "--plugin", file, "--out", "a.png"]) is None
    assert f"genstack plan grey --plugin {file}\n" in capsys.readouterr().out


def test_names_of_files_are_checked(file, tmp_path, capsys):
    (tmp_path / "signs.py").write_text("")
    (tmp_path / "a-b.py").write_text("")
    for words, message in {
        ("--plugin",): "--plugin has no value",
        ("--plugin", "none.py"): "plugin 'none.py' not found",
        ("--plugin", str(tmp_path / "a-b.py")): "expected a Python file",
        ("--plugin", file, "--plugin", str(tmp_path / "signs.py")): "two plugins are named signs.py",
    }.items():
        assert main(["config", "list", *words]) == 2
        assert message in capsys.readouterr().err
    assert main(["config", "list", "--plugin", file, "--plugin", file]) is None


def test_nothing_that_is_read_loads_a_plugin(trained, file, tmp_path, capsys, monkeypatch):
    """Neither the module's name nor the record of a plugin imports it, from wherever it can be imported."""
    (tmp_path / "evil.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\nclass Evil: pass")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    plugins.__path__.append(str(tmp_path))
    record = [{"name": "evil.py", "version": "sha256:0"}]
    for path in ("evil.Evil", "genstack.plugins.evil.Evil"):
        recipe = {"model": {"compressor": {"class_path": path}}}
        Path("recipe.yaml").write_text(yaml.safe_dump(recipe))
        assert main(["train", "compressor", "--config", "recipe.yaml"]) == 2
        Path("recipe.yaml").write_text(yaml.safe_dump(recipe | {"plugins": record}))
        assert main(["train", "compressor", "--config", "recipe.yaml"]) == 2
        assert "was made with plugin evil.py" in capsys.readouterr().err
    with safe_open(trained / "model.safetensors", framework="pt") as weights:
        described = json.loads(weights.metadata()["genstack"])
    for hostile in (record, "evil.py", [["evil.py"]], [{"name": ["evil.py"]}], {"name": "evil.py"}):
        described["plugins"] = hostile
        metadata = {"genstack": json.dumps(described)}
        save_file(load_file(trained / "model.safetensors"), tmp_path / "model.safetensors", metadata)
        with pytest.raises(UserError) as error:
            genstack.load(tmp_path)
        assert len(str(error.value)) < 400
    assert not (tmp_path / "ran").exists()


def test_installed_packages_are_plugins(tmp_path, monkeypatch, capsys):
    package = tmp_path / "flowers"
    (package / "parts").mkdir(parents=True)
    (package / "__init__.py").write_text("")
    (package / "parts" / "__init__.py").write_text("from .base import Half\n")
    base = SIGNS.replace("class Flips(", "class Half(").partition("class Count")[0]
    (package / "parts" / "base.py").write_text(base)
    more = "from . import base\nfrom .base import Half\n\nclass Third(base.Half):\n    '''A third.'''\n"
    (package / "parts" / "more.py").write_text(more)
    metadata = tmp_path / "flowers-1.2.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: flowers\nVersion: 1.2\n")
    (metadata / "entry_points.txt").write_text("[genstack.parts]\nall = flowers.parts\n")
    monkeypatch.syspath_prepend(tmp_path)
    plugins.installed.cache_clear()
    try:
        assert main(["config", "classes", "quantizer"]) is None
        listed = capsys.readouterr().out
        assert "\n  Half " in listed and "\n  Third " in listed
        assert {"Half", "Third"} <= set(part_classes())
        assert plugins.plugins_defining(["Third"])[0].record == {"name": "flowers", "version": "1.2"}
        assert main(["config", "check", str(package / "parts" / "base.py")]) == 0
        listed = capsys.readouterr().out
        assert "Half:" in listed and "Third:" not in listed
    finally:
        plugins.installed.cache_clear()
        for name in [name for name in sys.modules if name.partition(".")[0] == "flowers"]:
            del sys.modules[name]
    with pytest.raises(UserError, match=r"made with plugin roses 1\.2; install that package"):
        plugins.require([{"name": "roses", "version": "1.2"}], "runs/a")
