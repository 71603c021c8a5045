"""Sharded checkpoints are complete or absent."""

import pytest

from genstack.errors import UserError
from genstack.training.sharded_checkpoint import REST, newest, publish, read_rest


def write(folder, step):
    """Write a checkpoint of one shard."""
    partial = folder / ".partial.writing"
    partial.mkdir()
    (partial / "part.safetensors").write_bytes(b"content")
    assert newest(folder) is None or newest(folder).name != f"last-{step:08d}.ckpt"
    publish(partial, folder / f"last-{step:08d}.ckpt", {"global_step": step, "state_dict": {}})
    return newest(folder)


def test_checkpoint_replaces_the_previous_one(tmp_path):
    assert write(tmp_path, 9).name == "last-00000009.ckpt"
    assert write(tmp_path, 10).name == "last-00000010.ckpt"
    assert [path.name for path in tmp_path.iterdir()] == ["last-00000010.ckpt"]
    assert read_rest(newest(tmp_path))["global_step"] == 10


def test_incomplete_copies_are_rejected(tmp_path):
    folder = write(tmp_path, 3)
    (folder / "part.safetensors").write_bytes(b"cont")
    with pytest.raises(UserError, match=r"part\.safetensors is missing or truncated"):
        read_rest(folder)
    (folder / REST).unlink()
    assert newest(tmp_path) is None
