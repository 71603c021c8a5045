"""The page in a real Chromium: every tab, on a phone and on a desktop, without a network."""

import io
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import urllib.error
import urllib.request
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from genstack.cli.main import main
from genstack.web.runs import open_runs
from genstack.web.server import launch
from genstack.web.workspace import Workspace

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
ABSENT = [
    *(f"{name}: pip install {name}" for name in ("gradio", "playwright") if find_spec(name) is None),
    *["a browser: apt-get install chromium"] * (CHROMIUM is None),
]
pytestmark = [
    pytest.mark.nightly,
    pytest.mark.skipif(bool(ABSENT), reason=f"needs {', '.join(ABSENT)}"),
    pytest.mark.filterwarnings("default"),
]
SECONDS = 60_000  # milliseconds that anything may take, on a machine that has other work
WIDTHS = (360, 1280)


@dataclass
class Server:
    """A page that is served by the command, and its temporary folder."""

    process: subprocess.Popen
    address: str
    folder: Path

    def stop(self, number: signal.Signals = signal.SIGTERM) -> int:
        assert self.process.stdout is not None
        self.process.send_signal(number)
        try:
            return self.process.wait(timeout=4 * SECONDS / 1000)  # closing takes two seconds of a core
        finally:
            self.process.kill()  # one that hangs fails this test only
            self.process.stdout.close()


def serve(folder: Path, *runs: str) -> Server:
    """Start `genstack web` and wait for its address."""
    temporary = folder / "tmp"
    temporary.mkdir(exist_ok=True)
    environment = os.environ | {
        "TMPDIR": str(temporary),
        "OMP_NUM_THREADS": "1",
        "PYTHONPATH": str(Path.cwd()),
    }
    process = subprocess.Popen(
        [sys.executable, "-m", "genstack.cli.main", "web", *runs, "--device", "cpu"],
        cwd=folder,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert process.stdout is not None
    lines = []
    for line in process.stdout:
        lines.append(line)
        if found := re.match(r"(http://[\d.:]+)/? shows .*; Ctrl-C closes it", line):
            return Server(process, found[1], temporary)
    raise AssertionError("".join(lines))


@pytest.fixture(scope="module")
def server(saved: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A page of small runs, of which one has logged a training."""
    folder = tmp_path_factory.mktemp("server")
    for name in ("classes", "masked", "captions"):
        shutil.copytree(saved / name, folder / name)
    log(folder / "classes", 1)
    sheet = folder / "classes" / "images"
    sheet.mkdir()
    Image.new("RGB", (40, 20), "red").save(sheet / "00000010.png")
    Image.new("RGB", (40, 20), "blue").save(sheet / "codes-00000010.png")
    running = serve(folder, "classes", "masked", "captions")
    yield running
    running.stop()


def log(run: Path, steps: int) -> None:
    lines = [{"step": step, "train/loss": 1 / step, "val/usage": step / 100} for step in range(1, steps + 1)]
    (run / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        running = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield running
        running.close()


class Page:
    """A page in the browser: its requests, and its visible tab."""

    def __init__(self, browser: Any, address: str, width: int):
        self.page = browser.new_page(viewport={"width": width, "height": 900}, accept_downloads=True)
        self.page.set_default_timeout(SECONDS)
        self.requests: list[str] = []
        self.problems: list[str] = []
        self.page.on("request", lambda request: self.requests.append(request.url))
        self.page.on("console", lambda one: self.problems.append(one.text) if one.type == "error" else None)
        self.page.goto(address)
        self.page.get_by_role("tab").first.wait_for()

    def tab(self, name: str) -> None:
        """Open a tab, which may be in the menu of those that do not fit."""
        found = self.page.get_by_role("tab", name=name, exact=True).locator("visible=true")
        menus = self.visible(".overflow-menu > button")
        for menu in [] if found.count() else menus.all():
            menu.click()
            found = self.visible(".overflow-dropdown button").filter(has_text=re.compile(f"^\\s*{name}\\s*$"))
            if found.count():
                break
            menu.click()
        found.last.click()
        self.page.wait_for_timeout(500)

    def visible(self, selector: str) -> Any:
        return self.page.locator(selector).locator("visible=true")

    def button(self, name: str) -> Any:
        return self.page.get_by_role("button", name=name).locator("visible=true")

    def upload(self, button: str, file: Path) -> None:
        with self.page.expect_file_chooser() as chooser:
            self.button(button).first.click()
        chooser.value.set_files(str(file))

    def pictures(self, count: int) -> None:
        """Wait for the end of sampling, and for the pictures."""
        self.button("Save with settings").last.wait_for()
        self.page.wait_for_function(
            "count => [...document.querySelectorAll('.pictures img')].filter("
            "one => one.offsetParent && one.naturalWidth).length >= count",
            arg=count,
        )

    def archive(self) -> zipfile.ZipFile:
        with self.page.expect_download() as download:
            self.button("Save with settings").last.click()
        return zipfile.ZipFile(io.BytesIO(Path(download.value.path()).read_bytes()))

    def message(self) -> str:
        toast = self.page.locator("[data-testid=toast-text]").last
        toast.wait_for()
        return toast.inner_text()


@pytest.fixture(params=WIDTHS)
def page(request: pytest.FixtureRequest, browser: Any, server: Server) -> Iterator[Page]:
    """The page on a phone and on a desktop; it stays within the screen, and asks no other host."""
    opened = Page(browser, server.address, request.param)
    yield opened
    wide = opened.page.evaluate("document.documentElement.scrollWidth")
    opened.page.close()
    others = [
        url for url in opened.requests if not url.startswith((server.address, "data:", "blob:", "about:"))
    ]
    assert not others and not opened.problems
    assert wide == request.param


def content(archive: zipfile.ZipFile, name: str) -> np.ndarray:
    (found,) = [each for each in archive.namelist() if each.endswith(name)]
    with Image.open(io.BytesIO(archive.read(found))) as image:
        return np.asarray(image)


def test_samples_are_made_again_by_the_command_and_by_python(page, server, tmp_path, monkeypatch):
    page.tab("classes")
    page.tab("Sample")
    page.page.get_by_label("Pictures").locator("visible=true").fill("3")
    page.button("Sample").first.click()
    page.pictures(3)
    source = page.visible(".pictures img").first.get_attribute("src")
    with urllib.request.urlopen(source) as answer, Image.open(io.BytesIO(answer.read())) as image:
        assert json.loads(image.info["genstack"])["index"] == 0, "a picture that is saved has its settings"
    page.page.get_by_text("The same by command or in Python").locator("visible=true").click()
    shown = page.visible(".cm-content").first.inner_text()
    archive = page.archive()
    command, python = (
        next(archive.read(name).decode() for name in archive.namelist() if name.endswith(ending))
        for ending in ("command.sh", "again.py")
    )
    assert shown.split() == command.split()
    for road in ("command", "python"):
        (tmp_path / road).mkdir()
        monkeypatch.chdir(tmp_path / road)
        (tmp_path / road / "classes").symlink_to(server.folder.parent / "classes")
        if road == "command":
            assert not main([*shlex.split(command)[1:], "--device", "cpu"])
        else:
            exec(python, {})
        for index in range(3):
            (file,) = Path().glob(f"*/samples/0000{index}.png")
            with Image.open(file) as image:
                assert np.array_equal(np.asarray(image), content(archive, f"0000{index}.png"))


def test_a_sample_is_used_in_the_other_tabs(page):
    page.tab("captions")
    page.tab("Sample")
    page.page.get_by_label("Caption").locator("visible=true").fill("cat\ndog")
    page.button("Sample").first.click()
    page.pictures(8)
    page.visible(".pictures button.thumbnail-item").nth(1).click()
    page.button("Use this picture in the other tabs").click()
    page.page.get_by_text("The picture is in the other tabs.").wait_for()
    page.tab("Codes")
    page.page.get_by_text("A picture is 24 codes of 9, 0 changed.").locator("visible=true").wait_for()
    page.tab("Extend")
    page.visible(".preview img").wait_for()


def test_other_files_are_not_served(server):
    """Neither those of the machine, nor those of the folder in which the page was started."""
    for file in ("/etc/passwd", server.folder.parent / "classes" / "model.safetensors"):
        with pytest.raises(urllib.error.HTTPError) as refused:
            urllib.request.urlopen(f"{server.address}/gradio_api/file={file}")
        assert refused.value.code in (403, 404)


def test_a_painted_part_is_sampled_anew(page, picture):
    page.tab("masked")
    page.tab("Inpaint")
    page.upload("Choose a picture", picture)
    canvas = page.visible("canvas").first
    canvas.wait_for()
    page.page.wait_for_timeout(2000)  # the editor fits the picture
    box = canvas.bounding_box()
    x, y = box["x"] + box["width"] * 0.5, box["y"] + box["height"] * 0.5
    page.page.mouse.move(x - 15, y)
    page.page.mouse.down()
    for step in range(6):
        page.page.mouse.move(x - 15 + 5 * step, y + 2 * step)
    page.page.mouse.up()
    page.page.wait_for_timeout(1000)
    page.button("Sample the painted part").click()
    page.pictures(4)
    archive = page.archive()
    mask, before, after = (content(archive, name) for name in ("mask.png", "/picture.png", "00000.png"))
    assert 0 < (mask > 0).mean() < 0.5
    assert np.array_equal(before[mask == 0], after[mask == 0])
    assert not np.array_equal(before[mask > 0], after[mask > 0])


def test_a_picture_is_extended(page, picture):
    page.tab("masked")
    page.tab("Extend")
    page.upload("Choose a picture", picture)
    page.visible(".pictures img").first.wait_for()
    page.button("Sample around the picture").click()
    page.pictures(4)
    archive = page.archive()
    before, after = content(archive, "/picture.png"), content(archive, "00000.png")
    assert after.shape == (16, 36, 3) and np.array_equal(after[:, :24], before)


def test_the_way_between_two_pictures(page, picture, tmp_path):
    Image.new("RGB", (30, 30), "red").save(tmp_path / "red.png")
    page.tab("masked")
    page.tab("Interpolate")
    page.upload("Choose the first", picture)
    page.upload("Choose the last", tmp_path / "red.png")
    page.page.wait_for_timeout(2000)
    page.button("Move between them").click()
    page.pictures(12)
    archive = page.archive()
    assert sum(re.search(r"/\d{5}\.png$", name) is not None for name in archive.namelist()) == 12


def test_codes_are_changed_by_clicks(page, picture):
    page.tab("masked")
    page.tab("Codes")
    page.upload("Choose a picture", picture)
    canvas = page.visible(".codes img").first
    canvas.wait_for()
    box = canvas.bounding_box()
    canvas.click(position={"x": box["width"] * 0.6, "y": box["height"] * 0.3})
    page.page.get_by_text("position").locator("visible=true").last.wait_for()
    page.visible(".choices button.thumbnail-item").nth(3).click()
    changes = page.page.get_by_label("Changes").locator("visible=true")
    page.page.wait_for_function("one => one.value.includes('=')", arg=changes.element_handle())
    position, _, code = changes.input_value().partition("=")
    assert int(position) == 9 and int(code) < 9
    page.page.wait_for_timeout(2000)
    archive = page.archive()
    command = next(archive.read(name).decode() for name in archive.namelist() if name.endswith("command.sh"))
    assert f"--change {changes.input_value()}" in command


def test_two_runs_are_compared(page):
    page.tab("Compare samples")
    page.page.get_by_label("Pictures").locator("visible=true").fill("2")
    page.button("Sample both").click()
    page.button("Save with settings").nth(1).wait_for()
    page.pictures(4)


def test_reconstructions_of_two_runs_are_compared(page, picture):
    page.tab("Compare reconstructions")
    page.upload("Choose a picture", picture)
    page.visible(".preview img").wait_for()
    page.button("Reconstruct by both").click()
    page.button("Save with settings").nth(1).wait_for()
    page.pictures(5)
    assert page.page.get_by_text("PSNR").locator("visible=true").count() == 2
    names = {Path(name).name for name in page.archive().namelist()}
    assert names == {"picture.png", "00000.png", "command.sh", "again.py"}


def test_a_training_is_followed(page, server):
    run = server.folder.parent / "classes"
    log(run, 1)
    page.tab("classes")
    page.tab("Training")
    frame = page.page.frame_locator("iframe[title=training]").first
    frame.get_by_text("step 1.", exact=False).first.wait_for()
    assert frame.locator("img").count() == 2
    log(run, 7)
    frame.get_by_text("at step 7.").wait_for()


def test_a_wrong_upload_is_one_sentence(page, tmp_path):
    wrong = tmp_path / "notes.png"
    wrong.write_text("no picture")
    page.tab("masked")
    page.tab("Extend")
    page.upload("Choose a picture", wrong)
    assert page.message() == "notes.png cannot be read as a picture: cannot identify image file."


def test_a_wrong_setting_is_one_sentence(page):
    page.tab("masked")
    page.tab("Extend")
    page.button("Sample around the picture").click()
    assert page.message() == "Choose a picture first."


@pytest.mark.parametrize(
    ("typed", "message"),
    [
        ("2.5", "Pictures must be a whole number, got 2.5."),
        ("65", "Count must be at most 64 on this page, got 65."),
        ("-1", "Count must be at least 1, got -1."),
    ],
)
def test_a_wrong_number_is_one_sentence(page, typed, message):
    page.tab("masked")
    page.tab("Sample")
    page.page.get_by_label("Pictures").locator("visible=true").fill(typed)
    page.button("Sample").first.click()
    assert page.message() == message


def test_a_prompt_that_the_other_run_cannot_read_is_refused(page):
    page.tab("Compare samples")
    page.page.get_by_role("combobox", name="and", exact=True).locator("visible=true").click()
    page.page.get_by_role("option", name="captions").click()
    page.page.get_by_role("combobox", name="Classes").locator("visible=true").click()
    page.page.get_by_role("option", name="cat", exact=True).click()
    page.page.keyboard.press("Escape")
    page.button("Sample both").click()
    assert page.message() == "The run captions reads captions: leave classes empty, or choose another run."


def test_a_page_that_is_slow_to_answer_is_served(saved, tmp_path, monkeypatch):
    """Gradio would ask its own page and give up after 3 seconds."""
    monkeypatch.setattr("gradio.networking.url_ok", lambda url: False)
    blocks, address = launch(open_runs([str(saved / "plain")], "cpu"), Workspace(tmp_path), "127.0.0.1", 0)
    blocks.close(verbose=False)
    assert re.match(r"http://127\.0\.0\.1:\d+", address)


@pytest.fixture
def slow(tmp_path) -> Iterator[Server]:
    """A page whose pictures take seconds."""
    running = serve(tmp_path, "clipart")
    yield running
    if running.process.poll() is None:
        running.stop(signal.SIGKILL)


def begin(browser: Any, server: Server, count: int) -> Page:
    page = Page(browser, server.address, 1280)
    page.page.get_by_label("Pictures").locator("visible=true").fill(str(count))
    page.button("Sample").first.click()
    return page


def test_a_second_user_waits_and_the_first_can_stop(browser, slow):
    first = begin(browser, slow, 64)
    first.visible(".status").get_by_text("sampling").wait_for()
    second = begin(browser, slow, 1)
    second.visible(".status").get_by_text("queue").wait_for()
    assert not second.visible(".pictures img").count()
    first.button("Stop").click()
    second.pictures(1)
    for page in (first, second):
        assert not page.problems
        page.page.close()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_closing_leaves_nothing(browser, slow, number):
    """Even while it samples."""
    page = begin(browser, slow, 64)
    page.visible(".status").get_by_text("sampling").wait_for()
    (workspace,) = slow.folder.glob("genstack-web-*")
    port = int(slow.address.rpartition(":")[2])
    listening = [line for line in sockets() if line[1] == port]
    assert listening and {host for host, _ in listening} == {"0100007F"}, "it listens on loopback only"
    children = Path(f"/proc/{slow.process.pid}/task/{slow.process.pid}/children").read_text()
    assert children == ""
    assert slow.stop(number) == 0
    assert not workspace.exists() and not [line for line in sockets() if line[1] == port]
    page.page.close()


def sockets() -> list[tuple[str, int]]:
    """Addresses, in hexadecimal, and ports that listen."""
    lines = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    places = [line[1].split(":") for line in lines if line[3] == "0A"]
    return [(host, int(port, 16)) for host, port in places]
