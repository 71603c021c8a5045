"""The documentation as a site: it builds without a network, and no link is broken."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


def build(folder: Path, *options: str) -> subprocess.CompletedProcess[str]:
    """Build a site by the command of `make docs`."""
    for name in ("material", "mkdocstrings", "jupytext"):
        pytest.importorskip(name)
    (flags,) = re.findall(r"mkdocs (build .*)", (ROOT / "Makefile").read_text(encoding="utf-8"))
    return subprocess.run(
        [sys.executable, "-m", "mkdocs", *flags.split(), "--site-dir", str(folder), *options],
        cwd=ROOT,
        env={**os.environ, "NO_MKDOCS_2_WARNING": "1", "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.slow
@pytest.mark.parametrize("link", ["nowhere.md", "#nowhere", "pictures/nowhere.png"])
def test_broken_links_are_errors(link, tmp_path):
    """`--quiet` would also silence `--strict`."""
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs" / "index.md").write_text(f"# Home\n\n[link]({link})\n")
    own = {
        "INHERIT": str(ROOT / "mkdocs.yml"),
        "docs_dir": "docs",
        "hooks": [],
        "nav": [{"Home": "index.md"}],
    }
    (tmp_path / "mkdocs.yml").write_text(json.dumps(own))
    done = build(tmp_path / "site", "--config-file", str(tmp_path / "mkdocs.yml"))
    assert done.returncode == 1 and f"'{link}'" in done.stderr


@pytest.mark.slow
def test_site_builds_without_broken_links_and_loads_nothing_from_elsewhere(tmp_path):
    done = build(tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    pages = {path.parent.name: path.read_text(encoding="utf-8") for path in tmp_path.rglob("index.html")}
    recipes = [path.stem for path in (ROOT / "configs").rglob("*.yaml")]
    assert all(f'id="{name}' in pages["recipes"] for name in recipes)
    assert 'id="genstack.train_compressor"' in pages["calls_and_models"]
    assert 'id="genstack.compressor.quantizers.fsq.FSQ"' in pages["compressors"]
    assert ">data.md<" not in (tmp_path / "index.html").read_text(encoding="utf-8")  # links show titles
    sections = {part.partition('"')[0]: part for part in pages["recipes"].split('<h3 id="')[1:]}
    assert len(sections) == len(recipes)
    assert all("<table>" in text for text in sections.values())
    small = [name for name, text in sections.items() if ">Small budget</a>: emoji at 32 px" in text]
    assert len(small) == len(recipes) - len([*(ROOT / "configs" / "demo").glob("*.yaml")])
    assert not [name for name, text in sections.items() if "../pictures/" not in text]
    notebooks = {path.stem for path in tmp_path.glob("*.ipynb")}
    assert notebooks and all(f'href="../{name}.ipynb"' in pages[name] for name in notebooks)
    loaded = r'<(?:script|img|iframe|link(?! rel="canonical"))[^>]*(?:src|href)="https?://[^"]*'
    assert not [text for page in pages.values() for text in re.findall(loaded, page)]
