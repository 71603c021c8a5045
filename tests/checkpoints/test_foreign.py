"""Files of strangers: damaged, hostile or merely old. Nothing in them runs; what is read is what torch reads.

`tests/golden/hostile` has files whose payload would create a file PWNED where the test stands.
"""

import argparse
import contextlib
import io
import os
import pickle
import re
import tracemalloc
import zipfile
from collections import OrderedDict
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from genstack.checkpoints.damage import damage_errors
from genstack.checkpoints.foreign import read
from genstack.checkpoints.pickles import Inert, unpickle
from genstack.checkpoints.published import load
from genstack.cli.main import main
from genstack.errors import UserError

GOLDEN = Path(__file__).parents[1] / "golden"
HOSTILE = GOLDEN / "hostile"
KINDS = (".pt", ".pth", ".ckpt", ".safetensors", ".npy", ".npz")
FILES = sorted(path.name for path in HOSTILE.iterdir() if path.suffix in KINDS)
MEGABYTE = 2**20

#: What the message about a refused file says.
REFUSED = {
    "header_cut.safetensors": "damaged or incomplete",
    "header_longer_than_file.safetensors": "damaged or incomplete",
    "header_not_json.safetensors": "damaged or incomplete",
    "legacy_truncated.pt": "damaged or incomplete",
    "negative_shape.safetensors": "damaged or incomplete",
    "object_array_exec.npy": "not a checkpoint",
    "object_array_exec.npz": "not a checkpoint",
    "offsets_outside.safetensors": "damaged or incomplete",
    "offsets_overlap.safetensors": "damaged or incomplete",
    "only_seven_bytes.safetensors": "damaged or incomplete",
    "pickle_exec_plain.pth": "not a checkpoint of torch",
    "shape_disagrees.safetensors": "damaged or incomplete",
    "tensor_negative_offset.pt": "offset -2",
    "tensor_out_of_bounds.pt": "exceeds its storage",
    "tensor_storage_missing.pt": "damaged or incomplete",
    "tensor_storage_too_short.pt": "4096 numbers",
    "tensor_stride_zero_4TB.pt": "repeats the 4 numbers",
    "truncated.safetensors": "damaged or incomplete",
    "zip_truncated.pt": "damaged or incomplete",
}


def every_tensor(path):
    """All tensors of a file."""
    return {name: tensor.clone() for name, tensor in read(path).tensors().items()}


@pytest.fixture(autouse=True)
def empty(tmp_path, monkeypatch):
    """An empty folder to stand in, in which nothing may appear."""
    folder = tmp_path / "here"
    folder.mkdir()
    monkeypatch.chdir(folder)
    yield folder
    assert not list(folder.iterdir())


def test_there_are_hostile_files():
    assert len(FILES) > 25
    assert set(REFUSED) <= set(FILES)


@pytest.mark.parametrize("name", FILES)
def test_hostile_files_run_nothing_and_need_little_memory(name):
    tracemalloc.start()
    try:
        if name in REFUSED:
            with pytest.raises(UserError, match=REFUSED[name]) as error:
                every_tensor(HOSTILE / name)
            assert name in str(error.value)
            assert "\n" not in str(error.value)
        elif "exec" in name:  # refused, or read without the payload
            try:
                assert all(
                    isinstance(tensor, torch.Tensor) for tensor in every_tensor(HOSTILE / name).values()
                )
            except UserError as error:
                assert name in str(error)
        else:
            assert len(every_tensor(HOSTILE / name)) >= 47
        assert tracemalloc.get_traced_memory()[1] < 4 * MEGABYTE
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("name", [name for name in FILES if name != "tiny_complete.pt"])
def test_command_line_reports_one_line(name, empty, capsys):
    assert main(["import", str(HOSTILE / name), "--out", "run"]) == 2
    captured = capsys.readouterr()
    assert name in captured.err
    assert captured.err.count("\n") == 1
    assert captured.out == ""


@pytest.mark.parametrize("old", [False, True])
def test_tensors_equal_those_of_torch(tmp_path, old):
    """Views, shared and empty ones, every type; beside objects of classes that are not there."""
    long = torch.randn(6, 5)
    state = OrderedDict(
        whole=long,
        view=long[1:4, ::2].T,
        scalar=torch.tensor(3.5),
        empty=torch.empty(0, 3),
        parameter=torch.nn.Parameter(torch.randn(2)),
        **{
            str(dtype): torch.arange(5).to(dtype)
            for dtype in (torch.float64, torch.float16, torch.bfloat16, torch.int64, torch.uint8, torch.bool)
        },
    )
    state["old._metadata"] = torch.ones(1)
    path = tmp_path / "file.pt"
    content = {"state_dict": state, "args": argparse.Namespace(depth=3), "keys": {argparse.Namespace: 1}}
    torch.save(content, path, _use_new_zipfile_serialization=not old)
    found = every_tensor(path)
    assert found.keys() == state.keys()
    for name, tensor in state.items():
        assert found[name].dtype == tensor.dtype
        assert torch.equal(found[name], tensor)
    data = read(path).data
    assert isinstance(data["args"], Inert) and data["args"].state == {"depth": 3}
    assert data["args"].name == "argparse.Namespace"


def test_pickled_module_has_torchs_tensor_names(tmp_path):
    module = torch.nn.Sequential(torch.nn.Conv2d(2, 3, 3), torch.nn.Sequential(torch.nn.BatchNorm2d(3)))
    torch.save(module, tmp_path / "module.pkl")
    found = every_tensor(tmp_path / "module.pkl")
    assert found.keys() == module.state_dict().keys()
    assert all(torch.equal(found[name], value) for name, value in module.state_dict().items())


def test_pickled_module_of_a_missing_package():
    tensors = every_tensor(GOLDEN / "openai_dvae" / "decoder.pkl")
    assert "blocks.group_1.block_1.res_path.conv_1.w" in tensors
    with pytest.raises(UserError, match=r"one half of DALL-E.*, and give the folder"):
        load(GOLDEN / "openai_dvae" / "decoder.pkl")


def test_names_of_distributed_training_lose_their_prefix(tmp_path):
    torch.save({"module.a": torch.ones(1), "module.b": torch.ones(2)}, tmp_path / "file.pt")
    assert set(every_tensor(tmp_path / "file.pt")) == {"a", "b"}


@pytest.mark.parametrize("protocol", range(6))
@pytest.mark.parametrize(
    "data",
    [
        [1, -(2**80), 2.5, True, None, "ö", b"\x00", (1,), (1, 2, 3, 4), [[]], {"a": {"b": ()}}],
        {"text": "x" * 300, "many": list(range(300)), 7: [1.0]},
    ],
)
def test_plain_data_round_trips(protocol, data):
    found = unpickle(io.BytesIO(pickle.dumps(data, protocol)))
    if protocol < 3:  # bytes are a call of codecs.encode there
        data = [item for item in data if not isinstance(item, bytes)] if isinstance(data, list) else data
        found = [item for item in found if not isinstance(item, Inert)] if isinstance(found, list) else found
    assert found == data


def laughs(depth):
    """Lists of lists, doubling in each step; small as a pickle, endless to walk through without care."""
    nested = [1]
    for _ in range(depth):
        nested = [nested, nested]
    return nested


def deep(depth):
    """A list in a list in a list."""
    return pickle.PROTO + b"\x04" + b"]" * depth + b"a" * (depth - 1) + b"."


@pytest.mark.parametrize(
    "content",
    [
        pickle.dumps(laughs(100)),
        deep(2_000),
        b"\x80\x04" + b"r" + (2**32 - 1).to_bytes(4, "little") + b".",  # a far place in the memo
        b"\x80\x04]r" + (2**32 - 1).to_bytes(4, "little") + b".",
        b"\x80\x05\x96" + (2**60).to_bytes(8, "little") + b".",  # a long array of bytes
        b"\x80\x04\x8d" + (2**62).to_bytes(8, "little") + b".",  # a long text
        b"\x80\x04\x8a\xff" + b"\xff" * 255 + b".",
        b"\x80\x02(" + b"I" + b"9" * 100_000 + b"\n.",
        b"\x80\x04})" + b"\x85" * 200_000 + b"K\x01s.",  # hashing this key would overflow C's stack
        b"\x80\x04})" + b"q\x00h\x00\x86" * 100 + b"K\x01s.",  # and that one would take for ever
        b"\x80\x04\x8f()" + b"q\x00h\x00\x86" * 100 + b"\x90.",
    ],
    ids=[
        "laughs",
        "deep",
        "memo",
        "memo of a list",
        "bytes",
        "text",
        "number",
        "digits",
        "deep key",
        "laughing key",
        "laughing set",
    ],
)
def test_hostile_pickles_need_little_memory(content, tmp_path):
    path = tmp_path / "file.pt"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", content)
    tracemalloc.start()
    try:
        with pytest.raises(UserError):
            every_tensor(path)
        assert tracemalloc.get_traced_memory()[1] < 100 * MEGABYTE
    finally:
        tracemalloc.stop()


class SetState:
    """Pickles as a tensor that is given another tensor's state, which torch would let it resize with."""

    def __reduce__(self):
        return (
            torch._utils._rebuild_tensor_v2,
            (torch.ones(2).storage(), 0, (2,), (1,), False, {}),
            (1, 2, 3, 4),
        )


@pytest.mark.filterwarnings("ignore:TypedStorage is deprecated")
def test_tensors_take_no_state(tmp_path):
    torch.save({"a": SetState()}, tmp_path / "file.pt")
    assert torch.equal(every_tensor(tmp_path / "file.pt")["a"], torch.ones(2))


def test_torchscript_is_not_run(tmp_path, monkeypatch):
    """`torch.load` hands a zip with `constants.pkl` to `torch.jit.load`."""
    monkeypatch.delattr(torch.jit, "load")
    with zipfile.ZipFile(tmp_path / "file.pt", "w") as archive:
        for name in ("constants.pkl", "data.pkl"):
            archive.writestr(f"archive/{name}", pickle.dumps(()))
    with pytest.raises(UserError, match="is not a checkpoint of a model"):
        every_tensor(tmp_path / "file.pt")


def test_numbers_that_do_not_match_their_checksum_are_refused(tmp_path):
    torch.save({"a": torch.full((64,), 7.0), "b": torch.ones(3)}, tmp_path / "file.pt")
    content = (tmp_path / "file.pt").read_bytes()
    place = content.index(torch.tensor(7.0).numpy().tobytes() * 64)
    (tmp_path / "file.pt").write_bytes(content[:place] + b"\1" + content[place + 1 :])
    with pytest.raises(UserError, match="does not match its checksum"):
        every_tensor(tmp_path / "file.pt")


def test_only_tensors_that_are_read_take_memory(tmp_path):
    """Each kind of file has 128 megabytes, of which ten numbers are read."""
    state = {"a": torch.zeros(2**24), "b": torch.ones(2**24)}
    torch.save(state, tmp_path / "new.pt")
    torch.save(state, tmp_path / "old.pt", _use_new_zipfile_serialization=False)
    save_file(state, tmp_path / "file.safetensors")
    for file in ("new.pt", "old.pt", "file.safetensors"):
        before = resident()
        assert read(tmp_path / file).data["b"][-10:].sum() == 10
        assert resident() - before < 20 * MEGABYTE


def resident() -> int:
    """Bytes of memory in use."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def test_a_compressed_member_is_refused(tmp_path):
    """Ten megabytes of zeros are ten kilobytes as a zip; torch never compresses."""
    path = tmp_path / "bomb.pt"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data.pkl", bytes(10 * MEGABYTE))
    with pytest.raises(UserError, match="compressed"):
        read(path)


def test_too_many_shared_tensors_are_rejected(tmp_path):
    numbers = torch.zeros(1000)
    torch.save({f"name{index}": numbers[:] for index in range(2000)}, tmp_path / "shared.pt")
    with pytest.raises(UserError, match="times as many bytes as the file"):
        read(tmp_path / "shared.pt")


@pytest.fixture(scope="module")
def good(tmp_path_factory):
    """Good files of each kind, by name."""
    folder = tmp_path_factory.mktemp("good")
    state = {"weight": torch.randn(4, 3), "bias": torch.arange(5), "view": torch.randn(6)[::2]}
    torch.save({"state_dict": state, "args": argparse.Namespace(a=1)}, folder / "zip.pt")
    torch.save(state, folder / "legacy.pt", _use_new_zipfile_serialization=False)
    save_file({name: value.contiguous() for name, value in state.items()}, folder / "file.safetensors")
    return folder


@pytest.mark.filterwarnings("ignore:invalid escape sequence")  # Python, of a changed byte within quotes
@pytest.mark.parametrize("name", ["zip.pt", "legacy.pt", "file.safetensors"])
@settings(max_examples=60, deadline=2000, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_changed_bytes_are_read_or_refused(good, name, data):
    """Whatever becomes of a file's bytes: its tensors, or one clear line, soon and with little memory."""
    content = bytearray((good / name).read_bytes())
    places = st.integers(0, len(content) - 1)
    for place, value in data.draw(st.lists(st.tuples(places, st.integers(0, 255)), min_size=1, max_size=6)):
        content[place] = value
    if data.draw(st.booleans()):
        start = data.draw(places)
        del content[start : start + data.draw(st.integers(0, 40))]
    path = good / f"changed-{name}"
    path.write_bytes(bytes(content))
    tracemalloc.start()
    try:
        assert all(isinstance(tensor, torch.Tensor) for tensor in every_tensor(path).values())
    except UserError as error:
        assert path.name in str(error)
    finally:
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert peak < 4 * MEGABYTE


@pytest.mark.filterwarnings("ignore:invalid escape sequence")
@settings(max_examples=150, deadline=2000)
@given(st.binary(max_size=200))
def test_random_bytes_are_read_or_rejected(content):
    with contextlib.suppress(UserError), damage_errors(Path("file")):
        unpickle(io.BytesIO(b"\x80\x04" + content))


def test_a_folder_without_weights(tmp_path):
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(UserError, match=r"holds no model; expected a run, a folder of diffusers"):
        read(tmp_path)


def test_a_folder_or_zip_with_a_checkpoint_names_it(tmp_path):
    torch.save({"a": torch.ones(2)}, tmp_path / "model.ckpt")
    with pytest.raises(UserError, match=r"give a file of it, such as .*model\.ckpt"):
        read(tmp_path)
    with zipfile.ZipFile(tmp_path / "vq-f8.zip", "w") as archive:
        archive.write(tmp_path / "model.ckpt", "model.ckpt")
    with pytest.raises(UserError, match=r"one data\.pkl; unpack it and give model\.ckpt$"):
        read(tmp_path / "vq-f8.zip")


@pytest.mark.parametrize("name", ["model.safetensors", "model.bin"])
def test_a_pointer_of_git_lfs_is_not_the_file(tmp_path, name):
    (tmp_path / name).write_text("version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12\n")
    with pytest.raises(UserError, match="it is a pointer of Git LFS"):
        read(tmp_path / name)


@pytest.mark.parametrize("content", ["{", "[]", '{"a": ' * 100_000])
def test_invalid_config_json_is_rejected(tmp_path, content):
    (tmp_path / "config.json").write_text(content)
    save_file({"a": torch.ones(1)}, tmp_path / "diffusion_pytorch_model.safetensors")
    with pytest.raises(UserError, match=r"config\.json"):
        read(tmp_path)


def test_safetensors_are_as_the_library_reads_them():
    path = GOLDEN / "taming_vqgan.safetensors"
    found, expected = every_tensor(path), load_file(path)
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], value) for name, value in expected.items())
    assert re.match(r"encoder\.|decoder\.|quant", next(iter(found)))
