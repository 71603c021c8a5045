"""Layout of the page in a headless browser at the widths of a phone and a desktop."""

import re
import shutil
import subprocess
from html import escape
from pathlib import Path

import pytest

from genstack.cli.main import main

BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
#: A frame as wide as the screen, since browsers without a window refuse to be as narrow as a phone. It says
#: how wide the page came out, what stands out of it, and how many pictures are blank and words too small.
FRAME = """<!doctype html><iframe width={width} height=800 srcdoc="{page}"></iframe><p></p><script>
document.querySelector("iframe").onload = event => {{
  const page = event.target.contentDocument, every = [...page.querySelectorAll("main *, header *")];
  const free = every.filter(one => !one.closest(".scroll, svg"));
  const out = free.filter(one => one.getBoundingClientRect().right > {width} + 0.5);
  const blank = [...page.images].filter(one => one.naturalWidth === 0);
  const small = every.filter(one => parseFloat(page.defaultView.getComputedStyle(one).fontSize) < 11);
  document.querySelector("p").textContent = [page.documentElement.scrollWidth, out.map(one => one.tagName),
    blank.length, small.length, page.images.length].join(";");
}};
</script>"""


@pytest.mark.slow
@pytest.mark.skipif(BROWSER is None, reason="no browser here: apt-get install chromium")
@pytest.mark.parametrize("width", [360, 1280])
@pytest.mark.parametrize("kind", ["run", "comparison"])
def test_page_fits_the_screen(trained, tmp_path: Path, width: int, kind: str):
    page, frame = tmp_path / "page.html", tmp_path / "frame.html"
    runs = [str(trained.prior)] + [str(trained.compressor)] * (kind == "comparison")
    assert main(["report", *runs, "--out", str(page), "--samples", "6"]) is None
    frame.write_text(
        FRAME.format(width=width, page=escape(page.read_text(encoding="utf-8"))), encoding="utf-8"
    )
    flags = [
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--disable-background-networking",
        "--hide-scrollbars",
        "--dump-dom",
    ]
    profile = f"--user-data-dir={tmp_path / 'profile'}"
    shown = subprocess.run(
        [str(BROWSER), *flags, profile, frame.as_uri()],
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    ).stdout
    told = re.search(r"<p>(\d+);([^;]*);(\d+);(\d+);(\d+)</p>", shown)
    assert told is not None, shown[-500:]
    wide, out, blank, small, pictures = told.groups()
    assert (int(wide), out, blank, small) == (width, "", "0", "0")
    assert int(pictures) >= 10
