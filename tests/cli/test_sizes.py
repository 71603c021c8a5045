"""The dial `--size`, and the proposal for a folder of pictures."""

import math
import tempfile
from pathlib import Path

import pytest
import torch
import yaml
from PIL import Image

from genstack.cli.main import main
from genstack.cli.parsing import sizes
from genstack.cli.parsing.sizes import PARTS, RATES, SIZES
from genstack.cli.parsing.source import find, subclasses
from genstack.cli.parsing.source import words as spelled
from genstack.cli.parsing.stages import STAGES
from genstack.cli.proposal import Cost, Proposal
from genstack.cli.verbs import plan
from genstack.training.estimate import Memory, memory_errors

ONE_OF_EACH = Path(__file__).parents[1] / "plugins" / "one_of_each.py"

#: The CPU's error in torch 2.14.
CPU_ALLOCATOR = (
    "[enforce fail at alloc_cpu.cpp:127] err == 0. DefaultCPUAllocator: can't allocate memory: you tried to "
    "allocate 1 bytes. Error code 12 (Cannot allocate memory)"
)


def printed(capsys, *words: str) -> dict:
    with pytest.raises(SystemExit) as stop:
        main(["train", *words, "--print-config"])
    assert stop.value.code == 0
    return yaml.safe_load(capsys.readouterr().out)["model"]


def test_sizes_exist_and_grow():
    networks = {part.node.name: part for part in subclasses(find("genstack.compressor.Network"))}
    networks |= {part.node.name: part for part in subclasses(find("genstack.prior.Prior"))}
    networks["Backbone"] = find("genstack.transformer.backbone.Backbone")
    assert PARTS.keys() == RATES.keys()
    for name, table in PARTS.items():
        assert tuple(table) == SIZES
        scales = [math.prod(entry.values()) for entry in table.values()]
        assert scales == sorted(scales) and len(set(scales)) == 4
        for entry in table.values():
            assert entry.keys() <= networks[name].arguments().keys()
            assert next(iter(entry.values())) % entry.get("heads", 32) == 0


def test_size_overrides_recipes_and_flags_override_it(capsys):
    words = ("compressor", "--config", "vqgan", "--data.source", "x")
    recipe, base = printed(capsys, *words), printed(capsys, *words, "--size", "base")
    network, optimization = base["compressor"]["init_args"]["network"]["init_args"], base["optimization"]
    assert (network["width"], network["blocks"], network["multipliers"]) == (128, 2, [1, 1, 2, 4])
    assert (optimization["init_args"]["learning_rate"], optimization["init_args"]["muon"]) == (1e-4, None)
    assert recipe["optimization"]["init_args"]["muon"] > 0
    assert "size" not in base
    narrow = printed(capsys, *words, "--size", "base", "--model.compressor.network.width", "96")
    assert narrow["compressor"]["init_args"]["network"]["init_args"]["width"] == 96


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            (
                *("--plugin", str(ONE_OF_EACH), "--model.compressor", "Autoencoder"),
                *("--model.compressor.network", "Quarter", "--size", "base"),
            ),
            "--size: no sizes for Quarter; leave it out",
        ),
        (
            ("--config", "vqgan", "--size", "huge"),
            "unknown --size 'huge'; choose from tiny, small, base, large",
        ),
    ],
)
def test_unknown_sizes_are_rejected(words, message, capsys):
    assert main(["train", "compressor", "--data.source", "x", *words, "--print-config"]) == 2
    assert message in capsys.readouterr().err


def test_sizes_are_choices_in_the_help(capsys):
    """They are spelled out once, and types that a module imports are resolved."""
    for words in (["plan", "x", "--help"], ["train", "compressor", "--help"], ["train", "prior", "--help"]):
        assert main(words) is None
        assert "--size <tiny|small|base|large|null>" in capsys.readouterr().out
    argument = find("genstack.conditions.encoded_captions.EncodedCaptions").arguments()["precision"]
    assert spelled(argument) == "fp32|bf16|fp16"


@pytest.fixture
def pictures(tmp_path):
    folder = tmp_path / "pictures"
    folder.mkdir()
    for number in range(6):
        Image.new("RGB", (90 + number, 70), (number, 0, 0)).save(folder / f"{number}.png")
    return folder


@pytest.fixture
def measured(monkeypatch):
    """The proposals that are measured; each stage of `tiny` takes a second and a GB, of `small` two, ..."""
    tried = []

    def costs(proposal):
        tried.append(proposal)
        need = 1 + SIZES.index(proposal.size)
        for stage in ("compressor", "prior"):
            yield Cost(
                stage, 10**6 * need, Memory(need * 10**9, 10**10, "cpu", measured=True), 5000, float(need)
            )

    monkeypatch.setattr(Proposal, "costs", costs)
    return tried


@pytest.mark.parametrize(("gpu", "resolution", "steps"), [(True, 64, 50_000), (False, 32, 5000)])
def test_plan_proposes_for_a_folder(pictures, measured, monkeypatch, capsys, gpu, resolution, steps):
    monkeypatch.setattr(plan.torch.cuda, "is_available", lambda: gpu)
    assert main(["plan", str(pictures)]) is None
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("pictures 6, the shorter side")
    assert lines[1].startswith(f"images   {resolution} pixels") and ("no GPU" in lines[1]) == (not gpu)
    assert lines[3:5] == [
        f"tiny     {stage}    1.0 M weights   1.00 of 10.00 GB  5000 steps of 1 s: 83.3 minutes"
        for stage in ("compressor", "prior     ")
    ]
    assert lines[5] == "propose  --size tiny (small suits 5,000 pictures or more)"
    assert lines[6].startswith("first    genstack train compressor --config vqgan --size tiny --data.source")
    assert "--config autoregressive --size tiny" in lines[7]
    (proposal,) = measured
    settings = STAGES["compressor"].parse(proposal.compressor())
    network = settings.model.compressor.init_args.network.init_args
    assert (network.width, network.blocks) == (32, 1)
    assert (settings.data.resolution, settings.trainer.max_steps) == (resolution, steps)


def test_plan_estimates_a_size_that_is_asked_for(pictures, measured, capsys):
    """Whatever the number of pictures."""
    assert main(["plan", str(pictures), "--size", "base"]) is None
    assert [proposal.size for proposal in measured] == ["base"]
    assert "propose  --size base (as you asked)" in capsys.readouterr().out
    assert main(["plan", str(pictures), "--size", "bsae"]) == 2
    assert "base" in capsys.readouterr().err
    assert main(["plan", str(pictures / "none")]) == 2
    assert main(["plan"]) == 2
    assert "SOURCE" in capsys.readouterr().out


def test_plan_proposes_the_largest_size_that_suits(pictures, measured, monkeypatch, capsys):
    """Of the number of pictures, the memory and the time, the first that is exceeded is the reason."""

    def propose(fewest=0, memory=10**10, seconds=10.0):
        monkeypatch.setattr(plan, "FEWEST", dict.fromkeys(SIZES, 0) | {"large": fewest})
        monkeypatch.setattr(Memory, "fits", property(lambda self: self.needed <= memory))
        monkeypatch.setattr(plan, "LONGEST", seconds * 5000)
        assert main(["plan", str(pictures)]) is None
        return next(line for line in capsys.readouterr().out.splitlines() if line.startswith("propose"))

    assert propose() == "propose  --size large (the largest size)"
    assert [proposal.size for proposal in measured] == [*SIZES]
    assert propose(fewest=10**6) == "propose  --size base (large suits 1,000,000 pictures or more)"
    assert propose(memory=2.5e9) == "propose  --size small (base does not fit the memory)"
    assert propose(seconds=1.5) == "propose  --size tiny (small takes 2.8 hours)"
    assert propose(seconds=0.5) == "propose  --size tiny (small takes 2.8 hours)"


@pytest.mark.parametrize(
    "error", [torch.OutOfMemoryError("CUDA out of memory"), MemoryError(), RuntimeError(CPU_ALLOCATOR)]
)
def test_plan_steps_down_from_a_size_that_runs_out_of_memory(pictures, measured, monkeypatch, capsys, error):
    """Whichever allocator fails; only for the smallest size it is an error."""

    def fail_at(size: str) -> None:
        def failing(proposal):
            yield from costs(proposal)
            if proposal.size == size:
                with memory_errors("the whole model and 2 images do not fit into the memory"):
                    raise error

        monkeypatch.setattr(Proposal, "costs", failing)

    costs = Proposal.costs
    monkeypatch.setattr(plan, "FEWEST", dict.fromkeys(SIZES, 0))
    fail_at("base")
    assert main(["plan", str(pictures)]) is None
    shown = capsys.readouterr().out
    assert "base     the whole model and 2 images do not fit into the memory; lower" in shown
    assert "propose  --size small (base does not fit the memory)" in shown
    assert main(["plan", str(pictures), "--size", "base"]) == 2
    assert "--size base does not fit the memory; genstack plan" in capsys.readouterr().err
    fail_at("tiny")
    assert main(["plan", str(pictures)]) == 2
    assert "--size tiny does not fit the memory; lower --data.batch-size" in capsys.readouterr().err


def test_other_errors_are_no_lack_of_memory():
    with pytest.raises(RuntimeError, match="shapes differ"), memory_errors("the weights do not fit"):
        raise RuntimeError("shapes differ")


@pytest.mark.slow
def test_plan_measures_both_stages(tmp_path, monkeypatch, capsys):
    """The prior on the codes of the compressor before it; nothing stays."""
    monkeypatch.setattr(plan, "FEWEST", dict.fromkeys(SIZES, 0) | {"small": 10**6})
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(sizes.PYRAMID, "tiny", {"width": 8})
    monkeypatch.setitem(sizes.BACKBONE, "tiny", {"width": 16, "depth": 1, "heads": 1})
    assert main(["plan", "digits"]) is None
    lines = capsys.readouterr().out.splitlines()
    assert lines[3].startswith("tiny     compressor") and lines[4].startswith("tiny     prior")
    assert lines[5] == "propose  --size tiny (small suits 1,000,000 pictures or more)"
    assert "--data.channels 1" in lines[6]
    assert not list(tmp_path.iterdir())
