"""Checkpoints in parts: a folder counts once all of it is there, and half a copy is refused."""

import pytest

from genstack.errors import UserError
from genstack.training.sharded_checkpoint import REST, begin, finish, newest, read_rest


def test_folders_appear_whole(tmp_path):
    """Until one has its last file and its name, the one before it counts; after that it does."""
    place = tmp_path / "last.ckpt"
    first = begin(place)
    (first / "part.safetensors").write_bytes(b"one")
    assert newest(place) is None
    finish(first, place, {"global_step": 1})
    assert newest(place).name == "last-00000001.ckpt"
    second = begin(place)
    (second / "part.safetensors").write_bytes(b"two")
    assert newest(place).name == "last-00000001.ckpt"
    finish(second, place, {"global_step": 2})
    assert [path.name for path in tmp_path.iterdir()] == ["last-00000002.ckpt"]
    assert read_rest(newest(place))["global_step"] == 2


def test_half_a_copy_is_refused(tmp_path):
    folder = begin(tmp_path / "last.ckpt")
    (folder / "part.safetensors").write_bytes(b"content")
    finish(folder, tmp_path / "last.ckpt", {})
    there = newest(tmp_path / "last.ckpt")
    (there / "part.safetensors").write_bytes(b"cont")
    with pytest.raises(UserError, match=r"part\.safetensors is missing or cut off"):
        read_rest(there)
    (there / REST).unlink()
    assert newest(tmp_path / "last.ckpt") is None
