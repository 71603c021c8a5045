"""The readers of strangers' files, each as a function of bytes, with inputs to begin from.

A reader gives what the file holds or raises a UserError of one line. `fuzz.py` looks for bytes with which it
does anything else; `test_inputs.py` keeps trying those that once did.
"""

import io
import json
import struct
import tarfile
import tempfile
import zipfile
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from safetensors.torch import save_file

from genstack.checkpoints import model_file, published
from genstack.checkpoints.damage import damage_errors
from genstack.checkpoints.foreign import File, read
from genstack.checkpoints.import_options import ImportOptions
from genstack.cli.parsing import recipes
from genstack.cli.verbs.train import STAGES
from genstack.compressor import Autoencoder, Convolutional
from genstack.compressor.quantizers import MultiScale, VectorQuantizer
from genstack.conditions import ClassLabels
from genstack.data import images, tar_shard
from genstack.data.codes import header as headers
from genstack.data.codes import shard as shards
from genstack.data.codes.views import View
from genstack.data.images import Preprocessing
from genstack.data.sources import CODES
from genstack.description import part_classes
from genstack.model import Model
from genstack.prior import Autoregressive
from genstack.training.run import Run
from genstack.transformer import Backbone

TESTS = Path(__file__).parents[1]
GOLDEN, HOSTILE, CONFIGS = TESTS / "golden", TESTS / "golden" / "hostile", TESTS.parent / "configs"
SMALL = 2**16  # bytes of a file to begin from, at most
MOST_NUMBERS = 2**22  # in the tensors of a table of shapes, at most; a file would have to hold them


@dataclass(frozen=True)
class Target:
    """A reader.

    Args:
        read: opens bytes as a file in a folder that it may write into.
        seeds: inputs to begin from.
        text: whether inputs are JSON, which is better changed value by value.
        words: names that mean something there.
    """

    read: Callable[[bytes, Path], object]
    seeds: Callable[[], list[bytes]]
    text: bool = False
    words: tuple[str, ...] = ()


def wrote(folder: Path, name: str, content: bytes) -> Path:
    """A file with this content."""
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


def small(*patterns: str) -> list[bytes]:
    """Contents of golden and hostile files that are not large."""
    found = [path for pattern in patterns for path in sorted(GOLDEN.glob(pattern)) if path.is_file()]
    return [path.read_bytes() for path in found if path.stat().st_size <= SMALL]


def every_tensor(path: Path) -> None:
    """Read all numbers of a file."""
    for tensor in read(path).tensors().values():
        tensor.clone()


def checkpoint(content: bytes, folder: Path) -> None:
    """A whole file of torch."""
    every_tensor(wrote(folder, "file.ckpt", content))


def checkpoints() -> list[bytes]:
    """Old and new files, with views, and with what only a pickle can say."""
    state = {"a": torch.arange(12.0).reshape(3, 4), "b": torch.arange(6)[::2], "c": torch.ones(2).bfloat16()}
    found = [*small("hostile/*.pt", "hostile/*.pth", "hostile/*.ckpt")]
    for new in (True, False):
        file = io.BytesIO()
        torch.save(
            {"state_dict": state, "module": torch.nn.Linear(2, 2)}, file, _use_new_zipfile_serialization=new
        )
        found.append(file.getvalue())
    return found


def pickled(content: bytes, folder: Path) -> None:
    """The pickle inside a file of torch, beside two storages; checksums are right, as an attacker's are."""
    path = folder / "file.pt"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", content)
        for key in range(3):
            archive.writestr(f"archive/data/{key}", bytes(48))
    every_tensor(path)


def pickles() -> list[bytes]:
    """The pickles inside of files of torch."""
    found = []
    for content in checkpoints():
        try:
            with zipfile.ZipFile(io.BytesIO(content)) as archive:
                names = [name for name in archive.namelist() if name.endswith("data.pkl")]
                found += [archive.read(name) for name in names]
        except zipfile.BadZipFile:
            continue
    return found


def tensors(content: bytes, folder: Path) -> None:
    """The header of a safetensors file, before zeros as far as its offsets reach."""
    try:
        described = json.loads(content)
        ends = [entry["data_offsets"][1] for name, entry in described.items() if name != "__metadata__"]
        size = min(max(0, *ends, 0), 4096)
        content = struct.pack("<Q", len(content)) + content + bytes(size)
    except (ValueError, KeyError, TypeError, AttributeError, IndexError, RecursionError):
        pass
    path = wrote(folder, model_file.TENSORS, content)
    try:
        every_tensor(path)
    finally:
        model_file.load(folder)


def tensor_headers() -> list[bytes]:
    """Headers, and whole small files."""
    found = small("hostile/*.safetensors")
    for file in ("rosinality_vqvae2", "taming_vqgan"):
        content = (GOLDEN / f"{file}.safetensors").read_bytes()
        described = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])
        found.append(json.dumps(dict(list(described.items())[:6])).encode())
    return [
        *found,
        b'{"__metadata__": {"genstack": "{}"}, "a": {"dtype": "F32", "shape": [2, 3], '
        b'"data_offsets": [0, 24]}}',
    ]


@cache
def models() -> tuple[Model, ...]:
    """Small models whose descriptions are changed."""
    network = Convolutional(dim=6, width=4, multipliers=(1, 2), blocks=1, attention=(1,))
    one = Autoencoder(3, network, VectorQuantizer(16, 4)).eval()
    prior = Autoregressive(one.layout(8, 12), ClassLabels(("cat", "dog")), Backbone(24, 2, 3)).eval()
    other = Autoencoder(1, network, MultiScale((1, 2, 4), 16, 4)).eval()
    return Model(one, Preprocessing(3, 8, 12), ("cat", "dog"), prior), Model(other, Preprocessing(1, 8, 8))


def description(content: bytes, folder: Path) -> None:
    """The description of a model, in front of the tensors of a good one."""
    state = {name: value.contiguous() for name, value in models()[0].modules().state_dict().items()}
    save_file(state, folder / model_file.TENSORS, {"genstack": content.decode(errors="replace")})
    model_file.load(folder)


def descriptions() -> list[bytes]:
    """Descriptions of small models."""
    return [model_file.described_text(model).encode() for model in models()]


def shapes(content: bytes, folder: Path) -> None:
    """Names and shapes of tensors that another project could have written, all zero; a file holds as many."""
    try:
        said = json.loads(content)
        stored = {name: blank(tuple(shape)) for name, shape in said.items() if name != "config"}
        config = said.get("config", {})
    except (ValueError, TypeError, AttributeError, RecursionError):
        return
    if sum(each.numel() for each in stored.values()) > MOST_NUMBERS:
        return
    path, count = folder / "file", len(said)
    file = File(path, stored, config if isinstance(config, dict) else {})
    with damage_errors(path):
        kind, prefix = published.recognise(file.names())
        sides = tuple(range(1, 1 + count % 8))
        every = {
            "resolution": "64,64",
            "heads": 1 + count % 4,
            "classes": count % 3,
            "scales": ",".join(map(str, sides)),
        }
        kind.read(
            replace(file, prefix=prefix),
            ImportOptions(**{name: value for name, value in every.items() if name in kind.options}),
        )


def blank(shape: tuple[int, ...]) -> torch.Tensor:
    """A tensor of zeros."""
    if not all(type(side) is int and 0 <= side < 2**40 for side in shape) or len(shape) > 8:
        raise ValueError("no shape that a file could have")
    return torch.zeros(shape)


def tables() -> list[bytes]:
    """Names and shapes in the golden files."""
    names = ("*.safetensors", "*.ckpt", "*.pt", "*.pth", "openai_dvae", "diffusers_*")
    found = []
    for path in (path for name in names for path in sorted(GOLDEN.glob(name)) if path.suffix != ".npz"):
        if path.name.endswith(".safetensors") or path.is_dir() or path.suffix in (".ckpt", ".pt", ".pth"):
            file = read(path)
            said: dict[str, Any] = {name: list(each.shape) for name, each in file.tensors().items()}
            found.append(json.dumps(said | ({"config": dict(file.config)} if file.config else {})).encode())
    return found


def settings(content: bytes, folder: Path) -> None:
    """A file of settings, and the same as the configuration of a run, down to the types of its values."""
    said = recipes.read(wrote(folder, "recipe.yaml", content))
    for parser in parsers():
        parser.parse_saved(said, "recipe.yaml")
    wrote(folder, "config.yaml", content)
    Run(folder).config()


@cache
def parsers() -> tuple[Any, ...]:
    """The command lines of both stages."""
    return tuple(stage.parser for stage in STAGES.values())


def recipe_files() -> list[bytes]:
    """Recipes, and YAML that would like to run something."""
    return [path.read_bytes() for path in sorted(CONFIGS.rglob("*.yaml"))] + small("hostile/*.yaml")


@cache
def archive() -> tuple[headers.Header, bytes]:
    """The header of an archive of codes, and its one shard."""
    model = models()[0]
    views = (View(1.0, (0.5, 0.5), False), View(1.0, (0.5, 0.5), True))
    begun = headers.Header(
        "c" * 64, model.layout, model.preprocessing, ("cat", "dog"), views, "shapes", 5, "k", 8
    )
    keys, ends = shards.pack(["one", "two", "three", "four", "five"])
    arrays = {
        "codes": np.zeros((5, 2, model.layout.length), begun.storage.dtype),
        "labels": np.array([0, 1, 0, 1, 0], np.int32),
        "sides": np.full((5, 2), 9, np.int32),
        "keys": keys,
        "key_ends": ends,
    }
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder) / "000000.safetensors"
        shards.write(place, arrays, begun.plan, {})
        return begun, place.read_bytes()


def code_header(content: bytes, folder: Path) -> None:
    """The header of an archive of codes, and a shard under it."""
    made = headers.read(wrote(folder, CODES, content))
    assert len(made.plan) == 32
    shards.Shard(wrote(folder, "000000.safetensors", archive()[1]), made).verify("")


def code_headers() -> list[bytes]:
    """A header before and after its shards."""
    begun = archive()[0]
    said = {"format_version": 2, **headers.to_json(begun)}
    whole = said | {"shards": [{"images": 5, "checksum": "c" * 32}]}
    return [json.dumps(said).encode(), json.dumps(whole).encode()]


def code_shard(content: bytes, folder: Path) -> None:
    """A shard of codes, by somebody who can reckon its checksum."""
    one = shards.Shard(wrote(folder, "000000.safetensors", content), archive()[0])
    one.checksum = shards.checksum(one.arrays, one.header.plan, one.skipped)
    one.verify(one.checksum)
    assert len(one.keys(range(len(one)))) == len(one.captions(range(len(one))))


def tar(content: bytes, folder: Path) -> None:
    """A tar file of pictures; where its first byte is even, header checksums are put right."""
    content = summed(content[1:]) if content[:1] and content[0] % 2 == 0 else content[1:]
    path = wrote(folder, "0.tar", content)
    rows, omitted, _ = tar_shard.index(path, len(content))
    found = tar_shard.Shard(path, "0", tar_shard.summarize(rows, "0", omitted), rows)
    for row in range(len(rows)):
        for part in tar_shard.PARTS:
            found.part(row, part)
        found.key(row)


def summed(content: bytes) -> bytes:
    """A tar file whose headers have the checksums that they should."""
    data = bytearray(content)
    for start in range(0, len(data) - 511, 512):
        if data[start + 257 : start + 262] == b"ustar":
            data[start + 148 : start + 156] = b" " * 8
            data[start + 148 : start + 156] = b"%06o\0 " % sum(data[start : start + 512])
    return bytes(data)


def tars() -> list[bytes]:
    """Tar files in each of the three layouts."""
    found = []
    for layout in (tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT):
        file = io.BytesIO()
        with tarfile.open(fileobj=file, mode="w", format=layout) as archive:
            long = "x" * 120 + "ü" if layout != tarfile.USTAR_FORMAT else "x"
            for name, data in {
                "a.png": b"p" * 9,
                "a.cls": b"3",
                f"{long}.png": b"q" * 600,
                f"{long}.json": b'{"label": 1, "caption": "c"}',
                "b.txt": b"t",
            }.items():
                member = tarfile.TarInfo(name)
                member.size = len(data)
                archive.addfile(member, io.BytesIO(data))
        found.append(b"\0" + file.getvalue()[:6144])
    return found


def picture(content: bytes, folder: Path) -> None:
    """A picture; where its first byte is even, the checksums in a PNG are put right."""
    channels = (1, 3, 4)[content[0] % 3] if content else 3
    content = checked(content[1:]) if content[:1] and content[0] % 2 == 0 else content[1:]
    path = wrote(folder, "a.png", content)
    images.read(path, channels)
    images.read(content, channels, raw=True, name="a.png")


def checked(content: bytes) -> bytes:
    """A PNG whose chunks have the checksums that they should."""
    if content[:8] != b"\x89PNG\r\n\x1a\n":
        return content
    data, place = bytearray(content), 8
    while place + 12 <= len(data):
        size = int.from_bytes(data[place : place + 4], "big")
        end = place + 8 + size
        if end + 4 > len(data):
            break
        data[end : end + 4] = zlib.crc32(data[place + 4 : end]).to_bytes(4, "big")
        place = end + 4
    return bytes(data)


def pictures() -> list[bytes]:
    """Pictures of every kind that is read."""
    found = small("hostile/*.png", "hostile/*.jpg", "hostile/*.gif", "images/*.png", "images/*.jpg")
    values = np.random.default_rng(0).integers(0, 255, (5, 7, 3), np.uint8)
    for kind, mode in (
        ("WEBP", "RGB"),
        ("TIFF", "RGB"),
        ("TIFF", "I;16"),
        ("BMP", "RGB"),
        ("GIF", "P"),
        ("TIFF", "F"),
        ("JPEG", "L"),
        ("PNG", "LA"),
        ("PNG", "1"),
    ):
        file = io.BytesIO()
        made = Image.fromarray(values)
        made = Image.new(mode, (7, 5), 9) if mode in ("I;16", "F") else made.convert(mode)
        made.save(file, kind)
        found.append(file.getvalue())
    return [bytes([number % 6]) + content for number, content in enumerate(found) if len(content) < 8192]


def diffusers(content: bytes, folder: Path) -> None:
    """The settings of a model of diffusers."""
    weights = GOLDEN / "diffusers_vqmodel_lookup" / "diffusion_pytorch_model.safetensors"
    link = folder / weights.name
    if not link.exists():
        link.symlink_to(weights)
    wrote(folder, "config.json", content)
    published.load(folder)


def configs() -> list[bytes]:
    """Settings of models of diffusers."""
    return [path.read_bytes() for path in sorted(GOLDEN.glob("diffusers_*/config.json"))]


KEYS = ("class", "class_path", "init_args", "config", "module.", "state_dict", "model_ema.", "quantize.")
TARGETS: Mapping[str, Target] = {
    "checkpoint": Target(checkpoint, checkpoints, words=("state_dict", "torch._utils", "OrderedDict")),
    "pickle": Target(pickled, pickles, words=("torch._utils\n_rebuild_tensor_v2", "torch\nFloatStorage")),
    "safetensors": Target(tensors, tensor_headers, True, ("F32", "BF16", "data_offsets", "__metadata__")),
    "description": Target(description, descriptions, True, (*KEYS, *part_classes())),
    "shapes": Target(shapes, tables, True, KEYS),
    "settings": Target(settings, recipe_files, False, (*KEYS, *part_classes())),
    "codes": Target(code_header, code_headers, True, KEYS),
    "shard": Target(code_shard, lambda: [archive()[1]], words=("data_offsets", "key_ends", "U16", "I64")),
    "tar": Target(tar, tars, words=("ustar", "path=", "size=", "GNU.sparse.major=1")),
    "picture": Target(picture, pictures, words=("IHDR", "IDAT", "tRNS", "PLTE", "Exif", "acTL")),
    "diffusers": Target(diffusers, configs, True, ("norm_num_groups", "act_fn")),
}
