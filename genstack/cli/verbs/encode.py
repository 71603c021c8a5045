"""Encode images to an archive of codes, so that priors train faster.

genstack encode runs/flowers --data.source DIR --views ten-crop --out codes/flowers
"""

import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from genstack.atomic import shared_folder, temporary_files
from genstack.checkpoints.model_file import load
from genstack.cli.commands import ENCODE
from genstack.cli.next_steps import next_command
from genstack.cli.parsing.device import choose_device
from genstack.cli.parsing.layers import Layers
from genstack.cli.parsing.parser import Parser, to_dataclass
from genstack.cli.parsing.paths import Place, Trained, data_settings
from genstack.cli.progress_bar import bar
from genstack.data import ImageData
from genstack.data.codes.encoding import Encoding
from genstack.data.codes.header import Header
from genstack.data.codes.views import VIEWS
from genstack.data.image_data import AS_IS
from genstack.dist import Process
from genstack.errors import UserError


@dataclass(frozen=True)
class Request:
    """Encode images once; priors then train on the codes instead of the images.

    Repeating the command continues an interrupted encoding. Processes started by torchrun or srun share the
    work. `--data.batch-size` views are encoded at a time.

    Args:
        run: folder of a compressor's or a prior's run, or a published file.
        out: folder for the codes.
        views: views of each image: the center crop (center), also its mirror image (flip), or the center and
            corner crops of an image enlarged by 1.1, each mirrored too (ten-crop).
        images_per_shard: number of images per file.
        device: auto, cpu, cuda or mps.
    """

    run: Trained
    out: Place
    views: Literal["center", "flip", "ten-crop"] = "center"
    images_per_shard: int = 4096
    device: str = "auto"


def run(arguments: list[str]) -> int | None:
    """Run a command line."""
    parser = Parser(ENCODE)
    settings = parser.parse(arguments, inherited_settings)
    encode(to_dataclass(Request, settings), parser.build(settings).data)
    return None


def encode(request: Request, data: ImageData) -> None:
    """Encode images; remove unfinished files of killed processes first."""
    if data.augmentation != AS_IS:
        raise UserError("genstack encode: --views sets the crops; leave out data.augmentation")
    with shared_folder(folder := Path(request.out), temporary_files(folder)):
        encode_share(request, data, folder)


def encode_share(request: Request, data: ImageData, folder: Path) -> None:
    """Encode this process's share, and write the header once all shards exist."""
    process = Process.from_environment()
    model = load(Path(request.run)).to(choose_device(request.device, process.local_rank))
    print("".join(f"{line}\n" for line in data.unread), end="", file=sys.stderr)
    encoding = Encoding(model, data, folder, VIEWS[request.views], request.images_per_shard)
    absent = {*encoding.missing}
    missing = [number for number in process.share(range(encoding.header.count)) if number in absent]
    start = time.monotonic()
    with bar() as progress:
        images = sum(len(encoding.numbers(number)) for number in missing)
        task = progress.add_task(folder.name, total=images, visible=bool(missing))
        written = encoding.write(missing, lambda few: progress.advance(task, few))
    if written:
        speed = written / (time.monotonic() - start)
        views = speed * len(encoding.header.views)
        print(f"{written} images encoded, {speed:.3g} a second ({views:.3g} views)")
    left = len(encoding.missing)
    if left:
        print(
            f"{encoding.header.count - left} of {encoding.header.count} shards exist; other processes encode "
            f"the rest. If they were stopped, repeat the command"
        )
        return
    header = encoding.finish()
    command = f"{next_command(model, request.run)} --data.source {folder}"
    print("\n".join([*summary(header, folder), f"Next:  {command}"]))


def inherited_settings(given: Layers) -> dict[str, Any]:
    """Return the data settings of the compressor's run, without augmentation."""
    place = given.get("run")
    if place is None:
        return {}
    data = data_settings(Path(place))
    return {"data": {name: value for name, value in data.items() if name != "augmentation"}}


def summary(header: Header, folder: Path) -> list[str]:
    """Describe the number and size of the codes."""
    images = sum(entry.images for entry in header.shards)
    size = sum(path.stat().st_size for path in folder.glob("*.safetensors"))
    each = size / max(1, images)
    lines = [
        f"{folder} is complete: {images} images, {header.views_of_each}, as "
        f"{header.layout.representation} ({header.storage.dtype})",
        f"{size / 1e6:.4g} MB, {each:.4g} bytes an image with labels and names",
    ]
    return lines + [f"{header.skipped} images could not be read"] * bool(header.skipped)
