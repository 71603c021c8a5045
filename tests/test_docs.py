"""Links, paths, commands and examples of README and docs are true."""

import os
import pydoc
import re
import shlex
import subprocess
import sys
import tomllib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from PIL import Image
from pytorch_lightning.callbacks import EarlyStopping

import genstack
from genstack import plugins
from genstack.checkpoints.model_file import save
from genstack.cli import commands as command_lines
from genstack.cli import verb
from genstack.cli.calls import flat, words
from genstack.cli.commands import Command
from genstack.cli.main import dispatch, main
from genstack.cli.parsing import stages
from genstack.cli.parsing.parser import Parser
from genstack.cli.parsing.source import Argument, choices, find, subclasses
from genstack.cli.verbs import encode, evaluate, plan, sample, train
from genstack.cli.verbs.config import BASES
from genstack.compressor import Autoencoder
from genstack.compressor.networks.convolutional import Convolutional
from genstack.compressor.quantizers import FSQ
from genstack.compressor.quantizers.vq import VectorQuantizer
from genstack.conditions import ClassLabels
from genstack.data.images import Preprocessing
from genstack.errors import UserError
from genstack.model import Model
from genstack.prior import Autoregressive
from genstack.transformer.backbone import Backbone

ROOT = Path(__file__).parents[1]
PAGES = [
    *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md")),
    *ROOT.glob("docs/*.md"),
    ROOT / "benchmarks" / "README.md",
]
FENCE = re.compile(r"^```(\w+)\n(.*?)^```", re.MULTILINE | re.DOTALL)
COMMAND = re.compile(r"^genstack (.*)")
PARTS_OF_PATHS = r"(?:genstack|tests|configs|docs)/[\w/.]*"


def blocks(page: Path, language: str) -> list[str]:
    """The fenced blocks of a language."""
    return [text for kind, text in FENCE.findall(page.read_text(encoding="utf-8")) if kind == language]


def commands() -> list[str]:
    """Every command line of genstack in a fenced block."""
    lines = {line for page in PAGES for text in blocks(page, "bash") for line in text.splitlines()}
    return sorted(line for line in lines if COMMAND.match(line))


def anchors(page: Path) -> set[str]:
    """The places in a page that a link can name."""
    headings = re.findall(r"^#+ (.*)", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


def signs() -> str:
    """The quantizer in the README."""
    (text,) = [text for text in blocks(ROOT / "README.md", "python") if "class Signs(" in text]
    return text


@pytest.fixture(scope="session")
def examples(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The plugins that commands name, as pages show them."""
    folder = tmp_path_factory.mktemp("plugins")
    for name, page, mark in (
        ("signs", "README.md", "Signs"),
        ("stop", "docs/plugins.md", "StopAbove"),
        ("parts", "docs/plugins.md", "Disks"),
    ):
        (text,) = [text for text in blocks(ROOT / page, "python") if f"class {mark}(" in text]
        (folder / f"{name}.py").write_text(text, encoding="utf-8")
    return folder


@pytest.fixture
def parsing(monkeypatch: pytest.MonkeyPatch, examples: Path) -> None:
    """Commands read their words as ever, and then do nothing; runs that they name are taken for granted."""
    use = plugins.use_plugin
    monkeypatch.setattr(plugins, "use_plugin", lambda file: use(examples / file))
    monkeypatch.setattr(plugins, "_named", [])

    def parse(function: Callable, command: Command, words: list[str]) -> None:
        Parser(command).parse(words)

    monkeypatch.chdir(ROOT)
    monkeypatch.setattr(verb, "call", parse)
    monkeypatch.setattr(train, "train", lambda *_, **__: None)
    monkeypatch.setattr(train, "read_run", lambda *_: (None, None))
    monkeypatch.setattr(plan, "print_plan", lambda *_: True)
    monkeypatch.setattr(plan, "propose", lambda _: None)
    monkeypatch.setattr(sample, "sample", lambda *_: None)
    monkeypatch.setattr(encode, "encode", lambda *_: None)
    monkeypatch.setattr("genstack.cli.verbs.import.import_model", lambda *_: None)
    monkeypatch.setattr(encode, "inherited_settings", lambda _: {"data": {"source": "digits"}})
    recipe = yaml.safe_load((ROOT / "configs/compressor/vqvae.yaml").read_text(encoding="utf-8"))
    inherited = {"model": {"compressor": recipe["model"]["compressor"]}}
    monkeypatch.setattr(stages.CompressorStage, "inherited_settings", lambda *_: inherited)
    monkeypatch.setattr(evaluate, "inherited_settings", lambda *_: {"data": {"source": "digits"}})
    monkeypatch.setattr(evaluate, "evaluate", lambda *_: None)
    monkeypatch.setattr(evaluate, "evaluate_npz", lambda *_: None)
    inherited_prior = {"data": {"source": "digits"}, "model": {"prior": {"class_path": "Autoregressive"}}}
    monkeypatch.setattr(stages.PriorStage, "inherited_settings", lambda *_: inherited_prior)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page):
    for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text(encoding="utf-8")):
        if target.startswith("https://"):
            continue
        name, _, anchor = target.partition("#")
        linked = page.parent / name if name else page
        assert linked.exists(), target
        assert not anchor or anchor in anchors(linked), target


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_files_that_are_named_exist(page):
    text = page.read_text(encoding="utf-8")
    for name in re.findall(rf"`({PARTS_OF_PATHS})`", text) + re.findall(rf" ({PARTS_OF_PATHS}\.yaml) ", text):
        assert (ROOT / name).exists(), name


@pytest.mark.parametrize("line", commands())
def test_commands_are_understood(line, parsing):
    (words,) = COMMAND.match(line).groups()
    try:
        dispatch(shlex.split(words, comments=True))
    except SystemExit as stop:  # --print_config
        assert stop.code == 0


def known(settings: dict[str, Argument], place: str) -> bool:
    """Return True if a setting such as `compressor.network.width` exists in any class allowed there."""
    name, _, rest = place.partition(".")
    if name not in settings or not rest:
        return name in settings
    return any(known(part.arguments(given), rest) for part, given in choices(settings[name]).values())


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_settings_that_are_named_exist(page, parsing):
    plugins.use_plugin("stop.py")
    groups = [
        command.groups
        for name, command in command_lines.commands().items()
        if name in ("train compressor", "train prior")
    ]
    for place in re.findall(r"--((?:model|data|trainer|log)\b[\w.-]*\w)", page.read_text(encoding="utf-8")):
        group, _, name = place.replace("-", "_").removesuffix(".help").partition(".")
        assert not name or any(known(found[group].arguments(), name) for found in groups), place


@pytest.mark.parametrize("index", ["README.md", "docs/README.md"])
def test_an_index_leads_to_every_page(index):
    linked = {
        (ROOT / index).parent / target.partition("#")[0]
        for target in re.findall(r"\]\(([^)\s]+)\)", (ROOT / index).read_text(encoding="utf-8"))
    }
    assert set(ROOT.glob("docs/*.md")) - {ROOT / "docs" / "README.md"} <= linked


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_commands_have_one_form(page):
    """`genstack train`, not `python train.py`."""
    assert not [text for text in blocks(page, "bash") if re.search(r"^python (train|sample)\.py", text, re.M)]


def test_extras_that_are_named_exist():
    """`pip install 'genstack-images[NAME]'` adds an extra to any installation, editable or not."""
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    files = [*PAGES, *ROOT.glob("genstack/**/*.py"), *ROOT.glob("configs/**/*.yaml")]
    texts = [file.read_text(encoding="utf-8") for file in files]
    named = {name for text in texts for name in re.findall(settings["name"] + r"\[(\w+)\]", text)}
    named |= set(re.findall(r'extra\("(\w+)"', "".join(texts)))
    assert {"web", "text", "fid"} <= named <= settings["optional-dependencies"].keys()
    assert not [file.name for file, text in zip(files, texts, strict=True) if "'.[" in text]


def test_there_are_commands_to_test():
    assert len(commands()) > 15


def test_verbs_and_make_targets_in_the_text_exist():
    known = set(verb.verbs())
    targets = re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        assert set(re.findall(r"`genstack ([a-z]+)", text)) <= known, page
        assert set(re.findall(r"^make ([\w-]+)|`make ([\w-]+)", text)) <= {
            (a, b) for a in ["", *targets] for b in ["", *targets]
        }


def test_the_workflow_runs_the_suite_the_browser_and_the_site():
    workflow = yaml.safe_load((ROOT / ".github" / "workflows" / "ci.yml").read_text(encoding="utf-8"))
    ran = {step["run"] for job in workflow["jobs"].values() for step in job["steps"] if "run" in step}
    targets = set(re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    assert {".ci/run", "make test-lowest", "make test-web", "make docs", "make test-docs"} <= ran
    assert {line.removeprefix("make ") for line in ran if line.startswith("make ")} <= targets
    assert os.access(ROOT / ".ci" / "run", os.X_OK)


def test_parts_in_the_table_exist():
    table = (
        (ROOT / "README.md").read_text(encoding="utf-8").partition("## What there is")[2].partition("##")[0]
    )
    known = {"Adversary", "Alignment"}
    for base in BASES.values():
        known |= {part.node.name for part in subclasses(find(base)) if part.concrete}
    assert set(re.findall(r"`([A-Z]\w+)`", table)) <= known


@pytest.fixture
def flowers(tmp_path, monkeypatch) -> Path:
    """A folder with the run of a prior, and a picture."""
    network = Convolutional(
        dim=4, width=4, multipliers=(1, 1), blocks=1, attention=(), middle_attention=False
    )
    compressor = Autoencoder(3, network, VectorQuantizer(codebook_size=7, dim=3))
    prior = Autoregressive(
        compressor.layout(6, 8), ClassLabels(("rose", "tulip")), Backbone(8, depth=1, heads=2)
    )
    model = Model(compressor, Preprocessing(3, 6, 8), ("rose", "tulip"), prior)
    save(model, tmp_path / "runs" / "flowers-prior")
    monkeypatch.chdir(tmp_path)
    Image.new("RGB", (37, 20), "red").save("rose.jpg")
    return tmp_path


def test_the_python_example_samples(flowers):
    (example,) = [text for text in blocks(ROOT / "README.md", "python") if "flowers-prior" in text]
    names: dict = {}
    exec(example, names)
    assert names["images"].shape == (16, 3, 6, 8)
    assert (flowers / "flowers.png").exists()


def test_the_python_examples_of_sampling_draw(flowers, monkeypatch):
    monkeypatch.setattr(Model, "receptive_field", (0,))
    names: dict = {}
    for example in blocks(ROOT / "docs" / "sampling.md", "python"):
        exec(example, names)
    assert names["images"].shape == names["edited"].shape == (2, 3, 6, 8)
    assert all((flowers / f"{name}.png").exists() for name in ("samples", "sweep"))
    assert len(list((flowers / "completed").glob("*.png"))) == 16
    assert len(list((flowers / "sweep").glob("*/*.png"))) == 4 * 16


def test_the_python_example_encodes_and_decodes(tmp_path, monkeypatch):
    network = Convolutional(
        dim=4, width=4, multipliers=(1, 1), blocks=1, attention=(), middle_attention=False
    )
    compressor = Autoencoder(3, network, VectorQuantizer(codebook_size=7, dim=3))
    save(Model(compressor, Preprocessing(3, 6, 8)), tmp_path / "runs" / "flowers")
    monkeypatch.chdir(tmp_path)
    Image.new("RGB", (37, 20), "red").save("rose.jpg")
    (example,) = [text for text in blocks(ROOT / "README.md", "python") if "rose-again" in text]
    names: dict = {}
    exec(example, names)
    assert names["codes"].shape == (1, 12) and names["codes"].dtype == torch.int64
    with Image.open("rose-again.png") as again:
        assert again.size == (8, 6)


@pytest.mark.slow
def test_the_example_of_a_quantizer_is_checked_and_trained_in_an_empty_folder(tmp_path, monkeypatch, capsys):
    quantizer, (test,) = signs(), blocks(ROOT / "CONTRIBUTING.md", "python")
    (tmp_path / "signs.py").write_text(quantizer, encoding="utf-8")
    (tmp_path / "test_signs.py").write_text(test, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    assert main(["config", "check", "signs.py"]) == 0
    assert " laws hold" in (said := capsys.readouterr().out) and "broken" not in said
    (shown,) = [text for text in blocks(ROOT / "README.md", "bash") if "signs.py" in text]
    check, command = shown.splitlines()
    assert check.split("#")[0].split() == ["genstack", "config", "check", "signs.py"]
    assert main([*command.split()[1:], "--trainer.max_steps", "1", "--log.images", "0"]) is None
    with plugins.use_temporarily(["signs.py"]):
        assert genstack.load("runs/signs").layout.codebook_size == 2**8
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "test_signs.py", "-p", "no:cacheprovider"],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0 and "passed" in done.stdout, done.stdout + done.stderr


@pytest.mark.slow
def test_the_example_of_a_source_and_a_prior_is_checked_and_trained(examples, tmp_path, monkeypatch, capsys):
    """By the commands beside it; without the plugin, the run names it."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "parts.py").write_bytes((examples / "parts.py").read_bytes())
    (commands,) = [text for text in blocks(ROOT / "docs" / "plugins.md", "bash") if "parts.py" in text]
    check, *training, drawing = [shlex.split(line)[1:] for line in commands.splitlines()]
    assert main(check) == 0
    assert "broken" not in capsys.readouterr().out
    for command in training:
        assert main([*command, "--trainer.max_steps", "2", "--log.images", "0"]) is None
    assert main([word for word in drawing if word not in ("--plugin", "parts.py")]) == 2
    assert "--plugin parts.py" in capsys.readouterr().err
    assert main(drawing) is None
    assert len(list(Path("samples").glob("*.png"))) == 8


def test_contracts_of_plugins_are_those_of_the_code():
    text = (ROOT / "docs" / "plugins.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| `(\w+)` \| (.*?) \| (.*?) \|", text, re.MULTILINE)
    assert [kind for kind, *_ in rows] == list(BASES)
    for kind, contract, defined in rows:
        first, *others = [pydoc.locate(name) for name in re.findall(r"`([\w.]+)`", contract)]
        assert all(issubclass(each, pydoc.locate(BASES[kind])) for each in (first, *others)), kind
        abstract = {
            name
            for name in getattr(first, "__abstractmethods__", ())
            if name not in ("encode", "layout", "__init__")
        }
        named = set(re.findall(r"`(\w+)`", defined)) & {*dir(first), *first.__annotations__}
        assert abstract <= named or "seldom" in defined, kind


@pytest.mark.slow
def test_the_script_trains_both_stages_and_samples(tmp_path, monkeypatch):
    script = blocks(ROOT / "docs" / "python.md", "python")[0].replace("1000", "2")
    assert len(script.splitlines()) <= 20
    monkeypatch.chdir(tmp_path)
    names: dict = {}
    exec(script, names)
    assert names["images"].shape == (16, 1, 8, 8)
    assert all(Path(name).is_file() for name in ("digits.png", "report.html"))
    model = genstack.load("runs/digits-prior")
    assert model.layout.codebook_size == 64 and model.fingerprint == names["model"].fingerprint
    with pytest.raises(UserError, match=r"unknown option '--trainer\.max[-_]step'; did you mean"):
        genstack.train_compressor(trainer={"max_step": 2})


def test_calls_have_the_words_of_commands():
    settings = {
        "config": ["vqgan", Path("a.yaml")],
        "init": None,
        "dry_run": True,
        "data": {"source": "a b", "augmentation": {"zoom": (1, 1.5)}},
        "captions": ["one", "two, three"],
        "model": {"quantizer": FSQ((4, 4))},
    }
    assert list(words(settings)) == [
        *("--config=vqgan", "--config=a.yaml", "--init=null", "--dry-run=true", "--data.source=a b"),
        *("--data.augmentation.zoom=[1, 1.5]", "--captions", "one", "two, three"),
        '--model.quantizer={"class_path": "FSQ", "init_args": {"levels": [4, 4]}}',
    ]


def test_places_of_a_call_are_flat():
    assert flat([Path("a"), ["b", Path("c")], 3]) == ["a", "b", "c", "3"]


def test_settings_of_a_call_can_be_rebuilt():
    steps = words({"trainer": {"max_steps": np.int64(3), "callbacks": [{"class_path": "Timer"}]}})
    assert list(steps) == ["--trainer.max-steps=3", '--trainer.callbacks=[{"class_path": "Timer"}]']
    with pytest.raises(UserError, match=r"object of EarlyStopping; .* \{\"class_path\": \"EarlyStopping\","):
        list(words({"trainer": {"callbacks": [EarlyStopping("val/psnr")]}}))


def test_broken_laws_are_named(tmp_path, capsys):
    (tmp_path / "wrong.py").write_text(
        signs().replace("grid // 2 **", "1 - grid // 2 **").replace("Signs", "Wrong"), encoding="utf-8"
    )
    assert main(["config", "check", str(tmp_path / "wrong.py")]) == 1
    said = capsys.readouterr().out
    with pytest.raises(UserError, match="genstack config check found faults; they are printed above"):
        genstack.run("config check", tmp_path / "wrong.py")
    assert (
        "  broken   lookup inverts quantization\n           AssertionError: Tensor-likes are not close"
        in said
    )
    (tmp_path / "none.py").write_text("class Nothing: pass")
    assert main(["config", "check", str(tmp_path / "none.py")]) == 2
    assert "has no part with laws; expected a subclass of Quantizer, Network" in capsys.readouterr().err


def test_the_example_of_the_oracle_runs(capsys):
    (example,) = blocks(ROOT / "docs" / "data.md", "python")
    exec(example, {})
    assert "tensor(1.)" in capsys.readouterr().out
