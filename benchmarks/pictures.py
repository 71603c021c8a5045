"""Fetch public sets of real pictures from package indexes and write them as folders to train and measure on.

    python benchmarks/pictures.py --out DIR [--only clipart emoji photos stamps]

- clipart: drawings of Debian's `openclipart-png` (public domain); its top folders are classes.
- emoji: drawings of npm's `openmoji` (CC BY-SA 4.0), with captions; its groups are classes.
- photos: crops of 23 photographs of Debian's `mate-backgrounds` and `plasma-workspace-wallpapers`.
- stamps: drawings and cut-out photographs of Debian's `tuxpaint-stamps-default` (GPL-2), with captions.

Debian's packages need `apt-get` and `dpkg`; emoji and stamps need `npm` and `pip install resvg-py`. Each
set becomes `DIR/SET/train` and `DIR/SET/held_out`: a folder for each class, PNG files of `--side` pixels,
on white. The lists `train.csv` and `held_out.csv` beside them hold path, label and caption. Near-duplicates
never straddle the two sides: pictures form a group if their grey thumbnails correlate, if their names
differ in a number only, or if they are skin tones of one emoji. A hash of the group picks its side, and a
group keeps eight pictures. Photographs are held out whole.

    genstack train compressor --data.source DIR/clipart/train --data.labels folder --data.resolution 64 ...
    genstack evaluate RUN --source DIR/clipart/held_out
"""

import argparse
import csv
import json
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from io import BytesIO
from pathlib import Path

import numpy as np
from PIL import Image
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components

SMALLEST = 48  # pixels of the longer side, below which a drawing is left out
LONGEST = 2.5  # ratio of sides, above which it is left out
LARGEST = 2**25  # pixels, above which it is left out
ALIKE = 0.95  # correlation of thumbnails from which on pictures are near-duplicates
THUMBNAIL = 16  # pixels a side
CROPS = 200  # of each photograph
SCALES = (1.0, 5.0)  # pixels of a photograph that become one of a crop, along each side
MOST = 8  # pictures of a group of drawings
PHOTOGRAPHS = (
    *("BytheWater", "ColdRipple", "ColorfulCups", "DarkestHour", "EveningGlow", "FallenLeaf"),
    *("Grey", "Kite", "OneStandsOut", "Path", "summer_1am"),
)


@dataclass(frozen=True)
class Picture:
    """One picture of a set.

    Args:
        name: unique in its set; becomes the file's name.
        label: its class, or "".
        caption: English, or "".
        group: pictures with the same group lie on the same side of the split.
        image: square, RGB, on white.
    """

    name: str
    label: str
    caption: str
    group: str
    image: Image.Image


def clipart(folder: Path, side: int) -> Iterator[Picture]:
    """Drawings of the Open Clip Art Library, classes as there."""
    root = debian("openclipart-png", folder) / "usr/share/openclipart/png"
    for file in sorted(root.rglob("*.png")):
        name = file.relative_to(root).with_suffix("").as_posix()
        label = name.split("/")[0]
        if label in ("special", "unsorted"):
            continue
        group = "cards" if "/cards/" in name else re.sub(r"\d+", "", name)
        if image := square(Image.open(file), side):
            yield Picture(name.replace("/", "-"), label, "", group, image)


def emoji(folder: Path, side: int) -> Iterator[Picture]:
    """Emoji of OpenMoji in their groups, each with its short name."""
    subprocess.run(["npm", "pack", "--silent", "openmoji"], cwd=folder, check=True, stdout=subprocess.DEVNULL)
    shutil.unpack_archive(next(folder.glob("openmoji-*.tgz")), folder, filter="data")
    for each in json.loads((folder / "package/data/openmoji.json").read_text()):
        file = folder / f"package/color/svg/{each['hexcode']}.svg"
        image = square(drawn(file, side), side)
        if image:
            base = each["skintone_base_hexcode"] or each["hexcode"]
            yield Picture(each["hexcode"], each["group"], each["annotation"], base, image)


def stamps(folder: Path, side: int) -> Iterator[Picture]:
    """Stamps of Tux Paint, classes as there, each with its English caption."""
    root = debian("tuxpaint-stamps-default", folder) / "usr/share/tuxpaint/stamps"
    files = [*sorted(root.rglob("*.png")), *sorted(root.rglob("*.svg"))]
    for file in {file.with_suffix(""): file for file in files}.values():  # SVG where a stamp has both
        text = file.with_suffix(".txt")
        if not text.exists():  # a mirrored variant
            continue
        name = file.relative_to(root).with_suffix("").as_posix()
        caption = text.read_text(errors="replace").split("\n")[0].strip()
        if image := square(drawn(file, side) if file.suffix == ".svg" else Image.open(file), side):
            group = re.sub(r"\d+", "", name)
            yield Picture(name.replace("/", "-"), name.split("/")[0], caption, group, image)


def photos(folder: Path, side: int) -> Iterator[Picture]:
    """Crops of photographs, of many sizes."""
    mate = debian("mate-backgrounds", folder) / "usr/share/backgrounds/mate/nature"
    plasma = debian("plasma-workspace-wallpapers", folder) / "usr/share/wallpapers"
    files = {file.stem: file for file in sorted(mate.glob("*.jpg"))}
    for name in PHOTOGRAPHS:
        files[name] = max((plasma / name / "contents/images").iterdir(), key=lambda file: file.stat().st_size)
    for number, (name, file) in enumerate(files.items()):
        picture = Image.open(file).convert("RGB")
        generator = np.random.default_rng([0, number])
        for count in range(CROPS):
            cut = round(side * generator.uniform(SCALES[0], min(SCALES[1], min(picture.size) / side)))
            left, top = (int(generator.integers(length - cut + 1)) for length in picture.size)
            box = (left, top, left + cut, top + cut)
            crop = picture.resize((side, side), Image.Resampling.LANCZOS, box)
            yield Picture(f"{name}-{count:03d}", "", "", name, crop)


#: Name, what reads it, and the share of its groups that is held out.
SETS: dict[str, tuple[Callable[[Path, int], Iterator[Picture]], float]] = {
    "clipart": (clipart, 0.1),
    "emoji": (emoji, 0.1),
    "photos": (photos, 0.25),
    "stamps": (stamps, 0.1),
}


def debian(package: str, folder: Path) -> Path:
    """Fetch a package of Debian and return the folder with its files."""
    subprocess.run(["apt-get", "download", "-q", package], cwd=folder, check=True, stdout=subprocess.DEVNULL)
    unpacked = folder / package
    subprocess.run(["dpkg", "-x", next(folder.glob(f"{package}_*.deb")), unpacked], check=True)
    return unpacked


def drawn(file: Path, side: int) -> Image.Image | None:
    """The picture that an SVG file describes; None where it names no size."""
    try:
        import resvg_py
    except ImportError:
        sys.exit("drawing SVG files needs resvg-py: pip install resvg-py")
    try:
        return Image.open(BytesIO(bytes(resvg_py.svg_to_bytes(svg_path=str(file), width=2 * side))))
    except ValueError:
        return None


def square(picture: Image.Image | None, side: int) -> Image.Image | None:
    """A picture on white, its margins cut, in the middle of a square; None for icons, strips and posters."""
    if picture is None or picture.width * picture.height > LARGEST:
        return None
    picture = picture.convert("RGBA")
    flat = Image.new("RGB", picture.size, "white")
    flat.paste(picture, mask=picture)
    box = Image.eval(flat, lambda value: 255 - value).getbbox()
    if box is None:
        return None
    flat = flat.crop(box)
    if max(flat.size) < SMALLEST or max(flat.size) > LONGEST * min(flat.size):
        return None
    inner = round(side * 15 / 16)
    flat = flat.resize(
        [max(1, round(length * inner / max(flat.size))) for length in flat.size], Image.LANCZOS
    )
    framed = Image.new("RGB", (side, side), "white")
    framed.paste(flat, ((side - flat.width) // 2, (side - flat.height) // 2))
    return framed


def groups(pictures: Sequence[Picture]) -> list[str]:
    """For each picture the first name of its group of near-duplicates."""
    first = {picture.group: number for number, picture in reversed(list(enumerate(pictures)))}
    rows = [np.arange(len(pictures))]
    columns = [np.array([first[picture.group] for picture in pictures])]
    thumbnails = np.stack([thumbnail(picture.image) for picture in pictures])
    for begin in range(0, len(thumbnails), 1024):
        alike = np.argwhere(thumbnails[begin : begin + 1024] @ thumbnails.T > ALIKE)
        rows.append(alike[:, 0] + begin)
        columns.append(alike[:, 1])
    row, column = np.concatenate(rows), np.concatenate(columns)
    graph = coo_matrix((np.ones(len(row)), (row, column)), (len(pictures), len(pictures)))
    _, numbers = connected_components(graph, directed=False)
    names: dict[int, str] = {}
    return [names.setdefault(number, pictures[place].name) for place, number in enumerate(numbers)]


def thin(pictures: Sequence[Picture], groups: Sequence[str]) -> list[tuple[Picture, str]]:
    """Pictures and their groups, at most `MOST` of each group, spread over it."""
    members: dict[str, list[Picture]] = {}
    for picture, group in zip(pictures, groups, strict=True):
        members.setdefault(group, []).append(picture)
    return [
        (each, group) for group, those in members.items() for each in those[:: 1 + (len(those) - 1) // MOST]
    ]


def thumbnail(image: Image.Image) -> np.ndarray:
    """Grey values of a small copy, without their mean and of length 1."""
    small = image.convert("L").resize((THUMBNAIL, THUMBNAIL), Image.BOX)
    values = np.asarray(small, dtype=np.float32).flatten()
    values -= values.mean()
    return values / max(float(np.linalg.norm(values)), 1e-6)


def held_out(group: str, share: float) -> bool:
    """True for about this share of groups, whatever the other ones are."""
    number = int.from_bytes(blake2b(group.encode(), digest_size=8).digest(), "big")
    return number < share * 2**64


def write(pictures: Iterable[tuple[Picture, bool]], folder: Path) -> dict[str, int]:
    """Write files and lists of pictures, each with True if it is held out; count those of each side."""
    lists: dict[str, list[tuple[str, str, str]]] = {"train": [], "held_out": []}
    for picture, away in pictures:
        part = "held_out" if away else "train"
        path = Path(part, picture.label, f"{picture.name}.png")
        if (folder / path).exists():
            raise ValueError(f"two pictures are named {path}")
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        picture.image.save(folder / path)
        lists[part].append((path.as_posix(), picture.label, picture.caption))
    for part, rows in lists.items():
        with (folder / f"{part}.csv").open("w", newline="") as file:
            table = csv.writer(file)
            kept = [0, *(column for column in (1, 2) if any(row[column] for row in rows))]
            for row in [("path", "label", "caption"), *rows]:
                table.writerow([row[column] for column in kept])
    return {part: len(rows) for part, rows in lists.items()}


def main() -> None:
    """Fetch, split and write each set."""
    arguments = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    arguments.add_argument("--out", type=Path, required=True, help="folder that the sets are written to")
    arguments.add_argument("--only", nargs="+", choices=list(SETS), default=list(SETS), help="some of them")
    arguments.add_argument("--side", type=int, default=128, help="of the pictures, in pixels")
    given = arguments.parse_args()
    given.out.mkdir(parents=True, exist_ok=True)
    Image.MAX_IMAGE_PIXELS = None  # `square` leaves out what is too large
    for name in given.only:
        if (given.out / name).exists():
            print(f"{name}: {given.out / name} is there already")
            continue
        read, share = SETS[name]
        with tempfile.TemporaryDirectory(dir=given.out) as folder:
            pictures = list(read(Path(folder), given.side))
            if name == "photos":
                kept = [(picture, picture.group) for picture in pictures]
            else:
                kept = thin(pictures, groups(pictures))
            written = Path(folder) / name
            counts = write([(picture, held_out(group, share)) for picture, group in kept], written)
            written.rename(given.out / name)
        print(f"{name}: {counts}, {len({group for _, group in kept}):,} groups", flush=True)


if __name__ == "__main__":
    main()
