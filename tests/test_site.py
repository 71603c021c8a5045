"""The documentation as a site: it builds without a network, and no link is broken."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.mark.slow
def test_site_builds_without_broken_links_and_loads_nothing_from_elsewhere(tmp_path):
    pytest.importorskip("material")
    pytest.importorskip("mkdocstrings")
    pytest.importorskip("jupytext")
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(tmp_path)],
        cwd=ROOT,
        env={**os.environ, "NO_MKDOCS_2_WARNING": "1", "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    pages = {path.parent.name: path.read_text(encoding="utf-8") for path in tmp_path.rglob("index.html")}
    recipes = [path.stem for path in (ROOT / "configs").rglob("*.yaml")]
    assert all(f'id="{name}' in pages["recipes"] for name in recipes)
    assert 'id="genstack.train_compressor"' in pages["reference"]
    pictures = ("digits.png", "clipart.png", *(f"recipes/{name}.png" for name in ("vqgan", "captions-prior")))
    assert all(f'src="../pictures/{name}"' in pages["recipes"] for name in pictures)
    assert pages["recipes"].count("PSNR (95 %)") > 10, "numbers of recipes, from the tables of results"
    notebooks = {path.stem for path in tmp_path.glob("*.ipynb")}
    assert notebooks and all(f'href="../{name}.ipynb"' in pages[name] for name in notebooks)
    loaded = r'<(?:script|img|iframe|link(?! rel="canonical"))[^>]*(?:src|href)="https?://[^"]*'
    assert not [text for page in pages.values() for text in re.findall(loaded, page)]
