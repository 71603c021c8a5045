"""Files appear whole or not at all; a disk that is full is told with the name of the file."""

import subprocess
import sys

import pytest
import torch
from safetensors.torch import save_file

from genstack.atomic import atomic_path, new_folder, shared_folder, temporary_files

WRITERS = {
    "python": lambda path: path.write_bytes(bytes(10_000)),
    "safetensors": lambda path: save_file({"a": torch.zeros(10_000)}, path),
}


@pytest.mark.parametrize("writer", WRITERS)
def test_full_disk_keeps_the_old_file_and_names_it(writer, full_disk, tmp_path):
    place = tmp_path / "file"
    with atomic_path(place) as partial:
        partial.write_bytes(b"before")
    with pytest.raises(OSError) as error, full_disk(3000), atomic_path(place) as partial:
        WRITERS[writer](partial)
    assert str(place) in f"{error.value.filename} {error.value}"
    assert place.read_bytes() == b"before" and list(tmp_path.iterdir()) == [place]


def test_folder_does_not_appear_on_a_full_disk(full_disk, tmp_path):
    place = tmp_path / "folder"
    with pytest.raises(OSError, match="folder"), full_disk(3000), new_folder(place) as partial:
        WRITERS["safetensors"](partial / "inside")
    assert list(tmp_path.iterdir()) == []


def test_other_errors_are_not_changed(tmp_path):
    with pytest.raises(ConnectionResetError, match="the server"), atomic_path(tmp_path / "file"):
        raise ConnectionResetError(104, "the server has left")


AT_WORK = """
import sys
from pathlib import Path
from genstack.atomic import atomic_path, shared_folder, temporary_files
folder = Path(sys.argv[1])
with shared_folder(folder, temporary_files(folder)), atomic_path(folder / "file"):
    print("writing", flush=True)
    sys.stdin.read()
"""


def test_leftovers_are_removed_once_no_process_writes(tmp_path):
    """SIGKILL in the middle of a file; as long as its writer lives, the file stays."""
    folder = tmp_path / "folder"
    with subprocess.Popen(
        [sys.executable, "-c", AT_WORK, str(folder)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as other:
        assert other.stdout.readline() == b"writing\n"
        with shared_folder(folder, temporary_files(folder)):
            left = list(folder.iterdir())
            assert len(left) == 1 and left == list(temporary_files(folder, "file"))
        other.kill()
        other.wait()
    assert list(folder.iterdir()) == left
    (folder / "kept").touch()
    with shared_folder(folder, temporary_files(folder)):
        assert [path.name for path in folder.iterdir()] == ["kept"]


def test_empty_new_folder_is_removed(tmp_path):
    with pytest.raises(KeyError), shared_folder(tmp_path / "folder", []):
        raise KeyError
    assert list(tmp_path.iterdir()) == []


def test_existing_empty_folder_is_kept(tmp_path):
    with pytest.raises(KeyError), shared_folder(tmp_path, []):
        raise KeyError
    assert tmp_path.is_dir()
