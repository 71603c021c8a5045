"""Arrays in .npz files are those that numpy writes and reads; damaged and hostile files are refused."""

import tracemalloc
from pathlib import Path

import numpy as np
import pytest

from genstack.data.npz import map_arrays, write_arrays, write_pieces
from genstack.errors import UserError
from genstack.evaluation.adm import NpzFile

HOSTILE = Path(__file__).parents[1] / "golden" / "hostile"
IMAGES = np.random.default_rng(0).integers(0, 256, (5, 4, 6, 3), dtype=np.uint8)


def test_pieces_are_read_by_numpy_and_mapped_by_us(tmp_path):
    path = tmp_path / "images.npz"
    write_pieces(path, "arr_0", IMAGES.shape, "uint8", iter(IMAGES))
    assert np.array_equal(np.load(path)["arr_0"], IMAGES)
    found = map_arrays(path, ("arr_0", "mu"))
    assert found.keys() == {"arr_0"}
    assert isinstance(found["arr_0"], np.memmap)
    assert np.array_equal(found["arr_0"], IMAGES)


def test_one_piece_is_in_memory_at_a_time(tmp_path):
    """Of 38 megabytes of images, written by `write_pieces` and read by ADM's evaluation."""
    count, shape = 200, (256, 256, 3)
    pieces = (np.full(shape, number, np.uint8) for number in range(count))
    tracemalloc.start()
    try:
        write_pieces(tmp_path / "images.npz", "arr_0", (count, *shape), "uint8", pieces)
        file = NpzFile(tmp_path / "images.npz")
        for first in range(0, count, 4):
            images = file.images(range(first, first + 4))
            assert round(float((images[3, 0, 0, 0] + 1) * 127.5)) == first + 3
        assert tracemalloc.get_traced_memory()[1] < 8 * 256 * 256 * 3
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize(
    "save", [np.savez, np.savez_compressed, lambda path, **given: write_arrays(path, given)]
)
def test_arrays_that_numpy_wrote_are_mapped(save, tmp_path):
    given = {"arr_0": IMAGES, "turned": np.asfortranarray(np.eye(3) + 1), "none": np.zeros((0, 4))}
    save(tmp_path / "arrays.npz", **given)
    found = map_arrays(tmp_path / "arrays.npz", given)
    assert all(
        np.array_equal(found[name], value) and found[name].dtype == value.dtype
        for name, value in given.items()
    )


def test_what_is_no_array_is_refused(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names = [name.removesuffix(".npy") for name in np.load(HOSTILE / "object_array_exec.npz").files]
    with pytest.raises(UserError, match="holds objects, which could run code"):
        map_arrays(HOSTILE / "object_array_exec.npz", names)
    assert not Path("PWNED").exists()
    write_pieces(tmp_path / "short.npz", "arr_0", (6, 4, 6, 3), "uint8", iter(IMAGES))
    (tmp_path / "text.npz").write_text("text")
    whole = tmp_path / "whole.npz"
    write_pieces(whole, "arr_0", IMAGES.shape, "uint8", iter(IMAGES))
    (tmp_path / "cut.npz").write_bytes(whole.read_bytes()[:200])
    for name in ("short", "text", "cut"):
        with pytest.raises(UserError, match=r"damaged or no \.npz file"):
            map_arrays(tmp_path / f"{name}.npz", ("arr_0",))
    with pytest.raises(UserError, match="not found"):
        map_arrays(tmp_path / "nowhere.npz", ("arr_0",))
