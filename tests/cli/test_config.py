"""Recipes and classes that `genstack config` lists."""

from pathlib import Path

import pytest
import yaml

from genstack.cli.main import main
from genstack.cli.parsing.recipes import read

DEMO = Path(__file__).parents[2] / "configs" / "demo"


def test_list_shows_recipes_with_titles(tmp_path, capsys):
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep" / "a.yaml").write_text("# VQGAN, f16 (Esser et al. 2021,\n# table 4)\n")
    (tmp_path / "b.yaml").write_text("model: {}\n")
    assert main(["config", "list", str(tmp_path)]) is None
    first, second = capsys.readouterr().out.splitlines()
    assert first == str(tmp_path / "b.yaml")
    assert second.split(maxsplit=1) == [str(tmp_path / "deep" / "a.yaml"), "VQGAN, f16"]


def test_recipe_titles_are_complete(capsys):
    assert main(["config", "list", str(DEMO.parent)]) is None
    for line in capsys.readouterr().out.splitlines():
        path, words = line.split(maxsplit=1)
        whole = " ".join(part.lstrip("# ") for part in Path(path).read_text().splitlines())
        assert whole.startswith(words) and whole[len(words)] in " ;.,", line
        assert words.count("(") == words.count(")"), line


def test_list_of_an_empty_folder_is_rejected(tmp_path, capsys):
    assert main(["config", "list", str(tmp_path)]) == 2
    assert "no recipes (*.yaml) found" in capsys.readouterr().err


def test_classes_lists_discovered_classes(capsys):
    assert main(["config", "classes", "network"]) is None
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "network:"
    assert any(line.split()[0] == "Convolutional" for line in lines[1:])
    assert main(["config", "classes", "netwrok"]) == 2
    assert "unknown kind 'netwrok'; did you mean 'network'?" in capsys.readouterr().err


def test_show_completes_a_recipe_with_defaults(capsys):
    """Settings of the recipe are kept, and missing ones get defaults."""
    recipe = DEMO / "digits_compressor.yaml"
    assert main(["config", "show", str(recipe)]) is None
    shown = yaml.safe_load(capsys.readouterr().out)
    said = yaml.safe_load(recipe.read_text())
    assert shown["trainer"]["max_steps"] == said["trainer"]["max_steps"]
    assert "accumulate_grad_batches" in shown["trainer"]


def test_show_prints_the_settings_of_a_run(tmp_path, capsys):
    (tmp_path / "config.yaml").write_text(
        "format_version: 2\ndata: {source: digits}\nname: ünique\n", encoding="utf-8"
    )
    assert main(["config", "show", str(tmp_path)]) is None
    assert yaml.safe_load(capsys.readouterr().out) == {"data": {"source": "digits"}, "name": "ünique"}


def test_show_of_a_missing_run_is_rejected(tmp_path, capsys):
    assert main(["config", "show", str(tmp_path)]) == 2
    assert "is not a run" in capsys.readouterr().err


def test_bundled_recipes_are_found_from_any_folder(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(["config", "list"]) is None
    assert "\nconfigs/demo/digits_prior.yaml " in capsys.readouterr().out
    assert main(["config", "show", "configs/demo/digits_compressor.yaml"]) is None
    here = capsys.readouterr().out
    assert main(["config", "show", str(DEMO / "digits_compressor.yaml")]) is None
    assert capsys.readouterr().out == here
    Path("configs/demo").mkdir(parents=True)
    Path("configs/demo/digits_compressor.yaml").write_text("trainer: {max_steps: 7}\n")
    assert main(["config", "show", "configs/demo/digits_compressor.yaml"]) is None
    assert "max_steps: 7" in capsys.readouterr().out, "a file that is there comes first"


@pytest.mark.parametrize(
    ("name", "way_out"),
    [
        ("vqgna", "did you mean vqgan?"),
        ("configs/compressor/vqgna.yaml", "did you mean configs/compressor/vqgan.yaml?"),
        ("nothing/like/xyzzy.yaml", "`genstack config list` shows the recipes"),
    ],
)
def test_unknown_recipe_error_suggests_another(name, way_out, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(["train", "compressor", "--config", name]) == 2
    assert f"recipe '{name}' not found; {way_out}\n" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["vqgan", "vqgan.yaml", "compressor/vqgan", "configs/compressor/vqgan.yaml"])
def test_recipe_is_found_without_folder_and_suffix(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert read(Path(name)) == read(DEMO.parent / "compressor" / "vqgan.yaml")


def test_recipe_of_the_same_stage_takes_precedence(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for stage in ("compressor", "prior"):
        assert read(Path("residual"), stage) == read(DEMO.parent / stage / "residual.yaml")


def test_a_setting_that_is_given_twice_in_a_recipe_is_refused(tmp_path, capsys):
    (tmp_path / "twice.yaml").write_text("data:\n  batch_size: 8\ndata:\n  resolution: 32\n")
    assert main(["config", "show", str(tmp_path / "twice.yaml")]) == 2
    assert "twice.yaml, line 3: data is given twice; keep one\n" in capsys.readouterr().err
