"""Files appear whole or not at all; a disk that is full is told with the name of the file."""

import subprocess
import sys

import pytest
import torch
from safetensors.torch import save_file

from genstack.atomic import appearing, begun, replacing, shared

WRITERS = {
    "python": lambda path: path.write_bytes(bytes(10_000)),
    "safetensors": lambda path: save_file({"a": torch.zeros(10_000)}, path),
}


@pytest.mark.parametrize("writer", WRITERS)
def test_a_full_disk_names_the_file_and_leaves_the_one_before(writer, full_disk, tmp_path):
    place = tmp_path / "file"
    with replacing(place) as partial:
        partial.write_bytes(b"before")
    with pytest.raises(OSError) as error, full_disk(3000), replacing(place) as partial:
        WRITERS[writer](partial)
    assert str(place) in f"{error.value.filename} {error.value}"
    assert place.read_bytes() == b"before" and list(tmp_path.iterdir()) == [place]


def test_a_folder_that_does_not_fit_does_not_appear(full_disk, tmp_path):
    place = tmp_path / "folder"
    with pytest.raises(OSError, match="folder"), full_disk(3000), appearing(place) as partial:
        WRITERS["safetensors"](partial / "inside")
    assert list(tmp_path.iterdir()) == []


def test_other_errors_stay_what_they_are(tmp_path):
    with pytest.raises(ConnectionResetError, match="the server"), replacing(tmp_path / "file"):
        raise ConnectionResetError(104, "the server has left")


AT_WORK = """
import sys
from pathlib import Path
from genstack.atomic import begun, replacing, shared
folder = Path(sys.argv[1])
with shared(folder, begun(folder)), replacing(folder / "file"):
    print("writing", flush=True)
    sys.stdin.read()
"""


def test_what_killed_processes_left_goes_once_nobody_else_is_at_work(tmp_path):
    """SIGKILL in the middle of a file; as long as its writer lives, the file stays."""
    folder = tmp_path / "folder"
    with subprocess.Popen(
        [sys.executable, "-c", AT_WORK, str(folder)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as other:
        assert other.stdout.readline() == b"writing\n"
        with shared(folder, begun(folder)):
            left = list(folder.iterdir())
            assert len(left) == 1 and left == list(begun(folder, "file"))
        other.kill()
        other.wait()
    assert list(folder.iterdir()) == left
    (folder / "kept").touch()
    with shared(folder, begun(folder)):
        assert [path.name for path in folder.iterdir()] == ["kept"]


def test_a_folder_into_which_nothing_came_is_not_left(tmp_path):
    with pytest.raises(KeyError), shared(tmp_path / "folder", []):
        raise KeyError
    assert list(tmp_path.iterdir()) == []


def test_an_empty_folder_that_was_there_stays(tmp_path):
    with pytest.raises(KeyError), shared(tmp_path, []):
        raise KeyError
    assert tmp_path.is_dir()
