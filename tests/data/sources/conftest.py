"""One small example of every kind of source, made of the same pictures: the laws hold for each of them."""

import json
import tarfile
from collections.abc import Callable, Mapping
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

COUNT = 6


def picture(number: int) -> Image.Image:
    """Pictures of unequal sizes that can be told apart."""
    chance = np.random.default_rng(number)
    return Image.fromarray(chance.integers(0, 256, (20 + number, 31, 3), np.uint8))


def png(number: int) -> bytes:
    """The file of a picture."""
    file = BytesIO()
    picture(number).save(file, format="PNG")
    return file.getvalue()


def tar(path: Path, members: Mapping[str, bytes], layout: int = tarfile.USTAR_FORMAT) -> None:
    """A tar file as Python writes it."""
    with tarfile.open(path, "w", format=layout) as file:
        for name, data in members.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            file.addfile(member, BytesIO(data))


def folder(root: Path) -> Path:
    for number in range(COUNT):
        path = root / "set" / f"class {number % 2}" / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        picture(number).save(path)
    return root / "set"


def manifest(root: Path) -> Path:
    paths = sorted(folder(root).rglob("*.png"), key=lambda path: int(path.stem))
    lines = [
        {
            "path": str(path.relative_to(root / "set")),
            "label": path.parent.name,
            "caption": f"picture {path.stem}",
            "condition_image": str(path.relative_to(root / "set")),
        }
        for path in paths
    ]
    (root / "set" / "list.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return root / "set" / "list.jsonl"


def shards(root: Path) -> str:
    for shard in range(2):
        members = {}
        for number in range(shard * 3, shard * 3 + 3):
            name = f"{number:04d}"
            members |= {
                f"{name}.png": png(number),
                f"{name}.cls": str(number % 2).encode(),
                f"{name}.txt": f"picture {number}".encode(),
                f"{name}.condition.png": png(number),
            }
        tar(root / f"{shard}.tar", members)
    return str(root / "{0..1}.tar")


def table() -> dict:
    return {
        "image": [{"bytes": png(number), "path": None} for number in range(COUNT)],
        "label": [number % 2 for number in range(COUNT)],
        "caption": [f"picture {number}" for number in range(COUNT)],
        "condition_image": [{"bytes": png(number), "path": None} for number in range(COUNT)],
    }


def parquet(root: Path) -> str:
    import pyarrow
    from pyarrow.parquet import write_table

    write_table(pyarrow.table(table()), root / "images.parquet", row_group_size=4)
    return str(root / "images.parquet")


def saved(root: Path) -> str:
    import datasets

    datasets.disable_progress_bars()
    features = datasets.Features(
        image=datasets.Image(),
        label=datasets.ClassLabel(names=["one", "other"]),
        caption=datasets.Value("string"),
        condition_image=datasets.Image(),
    )
    datasets.Dataset.from_dict(table(), features=features).save_to_disk(root / "saved")
    return f"hf:{root / 'saved'}"


#: What `data.source` may say to mean each kind, made in an empty folder. A new kind adds its own line.
EXAMPLES: dict[str, Callable[[Path], str]] = {
    "DigitsSource": lambda root: "digits",
    "FolderSource": lambda root: str(folder(root)),
    "HubSource": saved,
    "ManifestSource": lambda root: str(manifest(root)),
    "ParquetSource": parquet,
    "WebDatasetSource": shards,
    "ShapesSource": lambda root: "shapes:30",
    "TorchvisionSource": lambda root: "torchvision:FakeData",
}


@pytest.fixture
def example(tmp_path: Path) -> Callable[[str], str]:
    """The name of an example of a kind."""
    return lambda kind: EXAMPLES[kind](tmp_path)
