"""Files appear whole or not at all; a disk that is full is told with the name of the file."""

import pytest
import torch
from safetensors.torch import save_file

from genstack.atomic import appearing, replacing

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
