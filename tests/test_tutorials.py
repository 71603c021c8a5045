"""The code of the tutorials runs as it stands, with few steps."""

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
    quiet()
    names: dict = {}
    with plugins.using([]):
        for code in re.findall(r"^```python\n(.*?)^```", code_of_page, re.MULTILINE | re.DOTALL):
            exec(re.sub(r"\"max_steps\": \d+", '"max_steps": 2', code), names)
    assert all(Path(name).is_file() for name in pictures)
    assert set(re.findall(r"\(pictures/(.*?)\)", text)) <= {
        path.name for path in (DOCS / "pictures").iterdir()
    }
