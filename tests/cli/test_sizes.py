"""The dial `--size`, and the proposal for a folder of pictures."""

import pytest
import yaml
from PIL import Image

from genstack.cli.main import main
from genstack.cli.parsing.sizes import PARTS, RATES, SIZES
from genstack.cli.parsing.source import find, subclasses
from genstack.cli.verbs import plan


def printed(capsys, *words: str) -> dict:
    with pytest.raises(SystemExit) as stop:
        main(["train", *words, "--print-config"])
    assert stop.value.code == 0
    return yaml.safe_load(capsys.readouterr().out)["model"]


def test_sizes_exist_and_grow():
    networks = {part.node.name: part for part in subclasses(find("genstack.compressor.Network"))}
    networks["Backbone"] = find("genstack.transformer.backbone.Backbone")
    assert PARTS.keys() == RATES.keys()
    for name, sizes in PARTS.items():
        assert tuple(sizes) == SIZES
        weights = [entry["width"] ** 2 * entry.get("depth", entry.get("blocks")) for entry in sizes.values()]
        assert weights == sorted(weights) and len(set(weights)) == 4
        for entry in sizes.values():
            assert entry.keys() <= networks[name].arguments().keys()
            assert entry["width"] % entry.get("heads", 32) == 0


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
            ("--model.compressor", "Autoencoder", "--model.compressor.network", "Strided", "--size", "base"),
            "--size: no sizes for Strided; leave it out",
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


@pytest.mark.parametrize(("gpu", "resolution", "steps"), [(True, 64, 50_000), (False, 32, 5000)])
def test_plan_proposes_for_a_folder(tmp_path, monkeypatch, capsys, gpu, resolution, steps):
    monkeypatch.setattr(plan.torch.cuda, "is_available", lambda: gpu)
    for number in range(6):
        Image.new("RGB", (90 + number, 70), (number, 0, 0)).save(tmp_path / f"{number}.png")
    parsed = []
    monkeypatch.setattr(plan, "print_plan", lambda stage, settings: parsed.append(settings) or True)
    assert main(["plan", str(tmp_path)]) is None
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("pictures 6, the shorter side")
    assert f"resolution {resolution}, --size tiny" in lines[1]
    assert lines[2].startswith("first    genstack train compressor --config vqgan --size tiny --data.source")
    assert "--config autoregressive --size tiny" in lines[3]
    network = parsed[0].model.compressor.init_args.network.init_args
    assert (network.width, network.blocks) == (32, 1)
    assert (parsed[0].data.resolution, parsed[0].trainer.max_steps) == (resolution, steps)
    assert lines[-1].endswith("--size SIZE estimates another size: small, base, large")
    assert main(["plan", str(tmp_path), "--size", "base"]) is None
    assert parsed[1].model.compressor.init_args.network.init_args.width == 128
    assert "--size base" in capsys.readouterr().out
    assert main(["plan", str(tmp_path), "--size", "bsae"]) == 2
    assert "base" in capsys.readouterr().err
    assert main(["plan", str(tmp_path / "none")]) == 2
    assert main(["plan"]) == 2
    assert "SOURCE" in capsys.readouterr().out


def test_plan_proposes_the_next_smaller_size_that_fits(tmp_path, monkeypatch, capsys):
    """A size that was asked for is estimated alone, whether it fits or not."""
    monkeypatch.setattr(plan.torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(plan, "FEWEST", {"tiny": 1, "small": 2, "base": 3})
    for number in range(6):
        Image.new("RGB", (70, 70), (number, 0, 0)).save(tmp_path / f"{number}.png")
    tried = []

    def fits(stage, settings):
        tried.append(settings.model.compressor.init_args.network.init_args.width)
        return tried[-1] < 128

    monkeypatch.setattr(plan, "print_plan", fits)
    assert main(["plan", str(tmp_path)]) is None
    assert tried == [128, 128, 64]
    shown = capsys.readouterr().out
    assert "--size large (6 pictures)" in shown and "instead  --size small (smaller)" in shown
    assert main(["plan", str(tmp_path), "--size", "large"]) is None
    assert tried[3:] == [128]
