"""The command and the lines of Python that a page shows make the pictures that it shows."""

import json
import shlex
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from genstack.cli.main import main
from genstack.data.images import CHUNK
from genstack.errors import UserError
from genstack.web.decoding import Decoding
from genstack.web.interpolation import Interpolation
from genstack.web.job import Job, constructor, literal, new_folder, option
from genstack.web.reconstruction import PICTURE, Reconstruction
from genstack.web.runs import OpenRun
from genstack.web.samples import Samples, inpainting, outpainting, prepare, write_mask

NUMBERS = {"count": 3, "seed": 5}


@pytest.fixture
def workspace(tmp_path: Path) -> Path:
    (tmp_path / "workspace").mkdir()
    return tmp_path / "workspace"


def pixels(file: Path) -> np.ndarray:
    with Image.open(file) as image:
        return np.asarray(image)


def samples(saved: Path, workspace: Path, run: str, **settings: Any) -> Samples:
    return Samples(
        OpenRun(saved / run), new_folder(workspace, "sample", run, settings), {**settings, **NUMBERS}
    )


def with_caption_file(saved: Path, workspace: Path) -> Job:
    job = samples(saved, workspace, "captions", captions=workspace)
    (job.folder / "captions.txt").write_text('a "red" apple\nit\'s a pear\n', encoding="utf-8")
    return Samples(job.run, job.folder, {**NUMBERS, "captions": job.folder / "captions.txt"})


def with_condition_image(saved: Path, workspace: Path) -> Job:
    job = samples(saved, workspace, "images")
    (job.folder / "condition").mkdir()
    prepare(job.run.model, workspace.parent / "picture.jpg", job.folder / "condition" / "edges.png")
    return Samples(job.run, job.folder, {**NUMBERS, "condition_images": job.folder / "condition"})


def edited(saved: Path, workspace: Path, run: str) -> Job:
    job = samples(saved, workspace, run, classes="dog")
    prepare(job.run.model, workspace.parent / "picture.jpg", job.folder / "picture.png")
    painted = np.zeros((160, 240), dtype=np.uint8)
    painted[:70, 100:] = 200
    write_mask(painted, job.run.model.preprocessing, job.folder / "mask.png")
    return inpainting(job, job.folder / "picture.png", job.folder / "mask.png")


def extended(saved: Path, workspace: Path) -> Job:
    job = samples(saved, workspace, "plain")
    prepare(job.run.model, workspace.parent / "picture.jpg", job.folder / "picture.png")
    return outpainting(job, job.folder / "picture.png", (4, 0, 8, 12))


def between(saved: Path, workspace: Path) -> Job:
    run, folder = OpenRun(saved / "compressor"), new_folder(workspace, "interpolate")
    places = folder / "first.png", folder / "last.png"
    prepare(run.model, workspace.parent / "picture.jpg", places[0])
    Image.new("RGB", (24, 16), "red").save(places[1])
    return Interpolation(run, folder, {"count": 4}, places)


def decoded(saved: Path, workspace: Path) -> Job:
    run, folder = OpenRun(saved / "compressor"), new_folder(workspace, "decode")
    prepare(run.model, workspace.parent / "picture.jpg", folder / "picture.png")
    return Decoding(run, folder, {"change": ("3=8", "20=0")}, (folder / "picture.png",))


def reconstructed(saved: Path, workspace: Path, run: str) -> Job:
    job = Reconstruction(OpenRun(saved / run), new_folder(workspace, "reconstruct"), {})
    source = job.folder / "source"
    prepare(job.run.model, workspace.parent / "picture.jpg", source / PICTURE)
    return Reconstruction(job.run, job.folder, {"source": source, "count": 1})


JOBS = {
    "classes": lambda saved, space: samples(saved, space, "classes", classes="a, b,#2,dog", top_k=3),
    "caption": lambda saved, space: samples(saved, space, "captions", caption='-it\'s a $HOME "cat"'),
    "captions": with_caption_file,
    "condition image": with_condition_image,
    "coordinates": lambda saved, space: samples(saved, space, "coordinates", coordinates="0,0,0.5,0.5"),
    "options": lambda saved, space: samples(
        saved, space, "masked", preset="pretty", guidance=3.0, guidance_interval=(0.1, 0.9), steps=2
    ),
    "vae": lambda saved, space: samples(saved, space, "vae", temperature=0.7),
    "inpainting": lambda saved, space: edited(saved, space, "masked"),
    "outpainting": extended,
    "interpolation": between,
    "decoding": decoded,
    "reconstruction": lambda saved, space: reconstructed(saved, space, "compressor"),
    "reconstruction by a vae": lambda saved, space: reconstructed(saved, space, "vae"),
}


@pytest.mark.parametrize("name", JOBS)
def test_command_and_python_make_the_same_pictures(name, saved, workspace, picture, tmp_path, monkeypatch):
    """Both are run where the archive is unpacked without its pictures."""
    job = JOBS[name](saved, workspace)
    inputs = {file.relative_to(workspace): file.read_bytes() for file in job.folder.rglob("*.*")}
    shares: list[float] = []
    *_, files = job.make(shares.append)
    assert shares == sorted(shares) and 0 <= shares[0] <= shares[-1] <= 1
    expected = {file.relative_to(workspace): file for file in files}
    assert expected and not expected.keys() & inputs.keys()
    for road in ("command", "python"):
        (tmp_path / road).mkdir()
        monkeypatch.chdir(tmp_path / road)
        for place, content in inputs.items():
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_bytes(content)
        if road == "command":
            program, *words = shlex.split(job.command)
            for _ in range(2):  # where the pictures of the archive lie, too
                assert program == "genstack" and not main([*words, "--device", "cpu"])
        else:
            exec(job.python, {})
        for again, shown in expected.items():
            assert np.array_equal(pixels(again), pixels(shown))
            assert road == "python" or again.read_bytes() == shown.read_bytes(), "settings are lost"


@pytest.mark.parametrize("name", ["classes", "interpolation", "decoding"])
def test_pictures_hold_their_settings(name, saved, workspace, picture):
    job = JOBS[name](saved, workspace)
    *_, files = job.make(lambda progress: None)
    for file in files:
        with Image.open(file) as image:
            assert json.loads(image.info[CHUNK])["model"] == job.run.model.fingerprint


def test_a_reconstruction_is_shown_beside_its_picture(saved, workspace, picture):
    job = reconstructed(saved, workspace, "compressor")
    ((before, after),) = job.make(lambda progress: None)
    assert pixels(before).shape == pixels(after).shape == (16, 24, 3)
    error = np.square(pixels(before) / 255.0 - pixels(after) / 255.0).mean()
    assert float(job.note.split()[1]) == pytest.approx(-10 * np.log10(error), abs=0.02)


def test_an_archive_holds_everything(saved, workspace, picture):
    job = edited(saved, workspace, "classes")
    list(job.make(lambda progress: None))
    with zipfile.ZipFile(job.archive()) as archive:
        names = {Path(name).relative_to(job.folder.name).as_posix() for name in archive.namelist()}
        assert archive.read(f"{job.folder.name}/again.py").decode() == job.python
        assert archive.read(f"{job.folder.name}/command.sh").decode() == job.command + "\n"
    pictures = {f"samples/0000{index}.png" for index in range(3)}
    assert names == {*pictures, "samples/samples.jsonl", "picture.png", "mask.png", "again.py", "command.sh"}


def test_a_job_names_the_files_that_its_command_reads(saved, workspace, picture):
    folder = (job := edited(saved, workspace, "classes")).folder.name
    assert job.inputs == [f"{folder}/picture.png", f"{folder}/mask.png"]
    assert samples(saved, workspace, "captions", caption="a red apple").inputs == []
    assert with_caption_file(saved, workspace).inputs[0].endswith("/captions.txt")


def test_samples_are_shown_as_they_come(saved, workspace, monkeypatch):
    monkeypatch.setattr("genstack.web.samples.BATCH_SIZE", 2)
    job, shares = samples(saved, workspace, "plain"), []
    assert [len(files) for files in job.make(shares.append)] == [2, 3]
    assert shares == sorted(shares)
    assert [len(files) for files in job.make(shares.append)] == [3], "nothing is sampled twice"


def test_an_error_of_the_report_ends_sampling(saved, workspace):
    job = samples(saved, workspace, "plain")

    def stop(progress: float) -> None:
        raise InterruptedError

    with pytest.raises(InterruptedError):
        list(job.make(stop))
    assert not list(job.out.glob("*.png"))


def test_a_prior_that_does_not_see_what_is_kept_says_so(saved, workspace, picture):
    assert "sees only earlier codes" in edited(saved, workspace, "classes").note
    assert edited(saved, workspace, "masked").note == ""


def test_too_many_pictures_are_refused(saved, workspace, picture):
    many = samples(saved, workspace, "plain")
    with pytest.raises(UserError, match="count must be at most 64 on this page, got 65"):
        list(Samples(many.run, many.folder, {"count": 65}).make(lambda progress: None))
    way = between(saved, workspace)
    with pytest.raises(UserError, match="count must be at most 32 on this page, got 33"):
        list(Interpolation(way.run, way.folder, {"count": 33}, way.places).make(lambda progress: None))


def test_nothing_to_sample_is_refused(saved, workspace, picture):
    job = samples(saved, workspace, "plain")
    with pytest.raises(UserError, match="nothing to sample: choose how far"):
        outpainting(job, picture, (0, 0, 0, 0))
    with pytest.raises(UserError, match="nothing is painted"):
        write_mask(np.zeros((8, 8)), job.run.model.preprocessing, job.folder / "mask.png")


def test_a_thin_stroke_marks_its_pixels(saved, workspace):
    run = OpenRun(saved / "plain")
    painted = np.zeros((16 * 8, 24 * 8))
    painted[8 * 3 : 8 * 4, 8 * 5 : 8 * 9] = 1
    write_mask(painted, run.model.preprocessing, workspace / "mask.png")
    assert np.argwhere(pixels(workspace / "mask.png")).tolist() == [[3, column] for column in range(5, 9)]


@pytest.mark.parametrize(
    "value", ["it's", 'a "b"', "\\", "é\n", 3, 0.5, None, (1,), (1.5, "x"), (), ("a", ("b",))]
)
def test_values_are_written_as_python(value):
    assert eval(literal(value)) == value


def test_defaults_are_left_out(saved):
    from genstack.prior import SamplingOptions

    options = SamplingOptions(temperature=0.5, guidance_interval=(0.1, 1.0))
    assert eval(constructor(options)) == options
    assert constructor(options) == "SamplingOptions(temperature=0.5, guidance_interval=(0.1, 1.0))"


@pytest.mark.parametrize("value", ["a b", "it's $HOME", "-x", "--y=1", "", "3"])
def test_options_are_quoted_for_a_shell(value):
    words = shlex.split(option(f"--name={value}"))
    assert words in (["--name", value], [f"--name={value}"])
    assert words[0] == "--name" or value.startswith("-")
