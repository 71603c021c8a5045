"""The code of the tutorials runs as it stands, with few steps; as a page, and as a notebook."""

import importlib.util
import re
from pathlib import Path

import pytest

from genstack import plugins
from genstack.cli.quiet import quiet

DOCS = Path(__file__).parents[1] / "docs"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("page", "pictures"),
    [
        ("from_pictures_to_samples", ["data-check.png", "again.png", "samples.png", "sweep.png"]),
        ("your_own_quantizer", ["quantizers.png"]),
    ],
)
def test_tutorial_runs(page, pictures, tmp_path, monkeypatch):
    text = (DOCS / f"{page}.md").read_text(encoding="utf-8")
    code_of_page = text.replace("Signs", "Marks")  # parts of other tests in this process have that name
    monkeypatch.chdir(tmp_path)
    names: dict = {}
    with plugins.use_temporarily([]), quiet():
        for code in re.findall(r"^```python\n(.*?)^```", code_of_page, re.MULTILINE | re.DOTALL):
            exec(re.sub(r"\"max_steps\": \d+", '"max_steps": 2', code), names)
    assert all(Path(name).is_file() for name in pictures)
    assert set(re.findall(r"\(pictures/(.*?)\)", text)) <= {
        path.name for path in (DOCS / "pictures").iterdir()
    }


PAGES = ["from_pictures_to_samples", "your_own_quantizer"]


def notebook(page):
    """The notebook that the site has."""
    pytest.importorskip("jupytext")
    spec = importlib.util.spec_from_file_location("notebooks", DOCS / "notebooks.py")
    notebooks = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(notebooks)
    assert page in notebooks.TUTORIALS
    return notebooks.notebook(page)


@pytest.mark.parametrize("page", PAGES)
def test_notebook_has_the_code_and_pictures_of_the_page(page):
    made = notebook(page)
    code = re.findall(r"^```python\n(.*?)\n```", (DOCS / f"{page}.md").read_text("utf-8"), re.M | re.S)
    assert [cell.source for cell in made.cells if cell.cell_type == "code"] == code
    assert "pictures/" not in "".join(cell.source for cell in made.cells if cell.cell_type != "code")


@pytest.mark.nightly
@pytest.mark.parametrize("page", PAGES)
def test_notebook_runs(page, tmp_path, monkeypatch):
    """The kernel is another process, in an empty folder, that needs nothing from elsewhere."""
    nbclient, made = pytest.importorskip("nbclient"), notebook(page)
    for cell in made.cells:
        cell.source = re.sub(r"\"max_steps\": \d+", '"max_steps": 2', cell.source)
    monkeypatch.setenv("PYTHONPATH", str(DOCS.parent))
    client = nbclient.NotebookClient(
        made, timeout=300, kernel_name="python3", resources={"metadata": {"path": str(tmp_path)}}
    )
    client.execute()
    outputs = [output for cell in made.cells for output in cell.get("outputs", ())]
    assert not [output for output in outputs if output.output_type == "error"]
    assert (tmp_path / "runs").is_dir()
