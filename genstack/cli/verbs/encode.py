"""Encode images once, for priors to train on their codes.

genstack encode runs/flowers --data.source DIR --views ten-crop --out codes/flowers
"""

import time
from pathlib import Path
from typing import Any, Literal

from jsonargparse import Namespace

from genstack.atomic import begun, shared
from genstack.checkpoints.model_file import load
from genstack.cli.next_steps import next_command
from genstack.cli.parsing.device import choose
from genstack.cli.parsing.parser import Parser
from genstack.cli.parsing.place import images_of
from genstack.cli.progress_bar import bar
from genstack.data import ImageData
from genstack.data.codes.encoding import Encoding
from genstack.data.codes.header import Header
from genstack.data.codes.views import VIEWS
from genstack.data.image_data import AS_IS
from genstack.dist import Process
from genstack.errors import UserError

HELP = """Encode images with a compressor, once, into a folder that priors train on instead of the images.

What is there already is kept, so that an interrupted encoding goes on when the command is repeated. Started
by torchrun or srun, several processes share the work. `--data.batch_size` views are encoded at a time."""


def parser() -> Parser:
    """The command line."""
    words = Parser("genstack encode", HELP)
    words.add_option("run", str, "folder of a compressor's or a prior's run, or a published file")
    words.add_option("out", str, "folder for the codes")
    words.add_option(
        "views",
        Literal["center", "flip", "ten-crop"],
        "what of each image is encoded: its middle (center), that and its mirror image (flip), or ten crops: "
        "the middle and four corners of 1.1 times the size, each mirrored too (ten-crop)",
        "center",
    )
    words.add_option("images_per_shard", int, "images in one file, whose codes appear together", 4096)
    words.add_option("device", str, "auto, cpu, cuda or mps", "auto")
    words.add_class(ImageData, "data", otherwise="the compressor's run")
    return words


def run(arguments: list[str]) -> int | None:
    """The verb."""
    words = parser()
    settings = words.parse(arguments, inherited(arguments))
    encode(settings, words.build(settings).data)
    return None


def encode(settings: Namespace, data: ImageData) -> None:
    """Encode; what killed processes had begun to write is removed."""
    if data.augmentation != AS_IS:
        raise UserError("genstack encode: each image is encoded as --views says; leave out data.augmentation")
    if not settings.out:
        raise UserError("--out is empty; name a folder for the codes")
    with shared(folder := Path(settings.out), begun(folder)):
        work(settings, data, folder)


def work(settings: Namespace, data: ImageData, folder: Path) -> None:
    """Make this process's share of the codes, and the header once all of them are there."""
    process = Process.from_environment()
    model = load(Path(settings.run)).to(choose(settings.device, process.local_rank))
    encoding = Encoding(model, data, folder, VIEWS[settings.views], settings.images_per_shard)
    absent = {*encoding.missing}
    missing = [number for number in process.share(range(encoding.header.count)) if number in absent]
    begun = time.monotonic()
    with bar() as progress:
        images = sum(len(encoding.numbers(number)) for number in missing)
        task = progress.add_task(folder.name, total=images, visible=bool(missing))
        written = encoding.write(missing, lambda few: progress.advance(task, few))
    if written:
        speed = written / (time.monotonic() - begun)
        print(
            f"{written} images encoded, {speed:.3g} a second ({speed * len(encoding.header.views):.3g} views)"
        )
    left = len(encoding.missing)
    if left:
        print(
            f"{encoding.header.count - left} of {encoding.header.count} shards are there; "
            f"other processes are at the rest, or were stopped: then repeat the command"
        )
        return
    header = encoding.finish()
    command = f"{next_command(model, settings.run)} --data.source {folder}"
    print("\n".join([*told(header, folder), f"Next:  {command}"]))


def inherited(arguments: list[str]) -> dict[str, Any]:
    """The data of the compressor's run, as validation sees it, unless something else is said."""
    found = parser().peek(arguments, "run")
    if found is None or {"-h", "--help"} & {*arguments}:
        return {}
    data = images_of(Path(found))
    return {"data": {name: value for name, value in data.items() if name != "augmentation"}}


def told(header: Header, folder: Path) -> list[str]:
    """What there is, in a line or two."""
    images = sum(entry.images for entry in header.shards)
    codes = images * len(header.views) * header.layout.length
    size = sum(path.stat().st_size for path in folder.glob("*.safetensors"))
    each = size / max(1, images)
    lines = [
        f"{folder} is complete: {images} images, {header.views_of_each}, as "
        f"{header.layout.length} codes of {header.layout.codebook_size} ({header.dtype})",
        f"{size / 1e6:.4g} MB, {each:.4g} bytes an image with labels and names; as int64 the codes alone "
        f"would take {8 * codes / 1e6:.4g} MB",
    ]
    return lines + [f"{header.skipped} images could not be read"] * bool(header.skipped)
