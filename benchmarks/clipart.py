"""Write the data of the model in the package: clip art with captions, each drawing in up to twelve hues.

    python benchmarks/pictures.py --out DIR --only clipart
    python benchmarks/clipart.py --source DIR/clipart --out DIR/captioned
    python benchmarks/clipart.py --samples SAMPLES    # share with the right colours

The drawings are in the public domain. Captions come from titles and keywords in the files of Debian's
`openclipart-svg`. Names of collections and authors are removed, and Italian and French words translated by
`clipart.yaml`. Colours are measured in the picture: "a red apple". A quarter of the pictures is named by its
kind, where a keyword says that: "a green bird" in place of "a green duck". Flags, maps, icon themes and
ornaments are left out.

`train.csv` lacks every picture with the colour and the noun of one of `UNSEEN`, so that these captions ask
for what no training caption says; `unseen.txt` lists them. `held_out.csv` has whole drawings, as
`pictures.py` splits them.
"""

import argparse
import csv
import html
import json
import re
import tempfile
from collections import Counter
from collections.abc import Sequence
from hashlib import blake2b
from pathlib import Path

import numpy as np
import yaml
from pictures import debian
from PIL import Image
from scipy.ndimage import label

TURNS = range(0, 360, 30)  # degrees of hue
COLOURED = 0.03  # share of pixels with a hue, below which a drawing is not turned
WORDS: dict[str, str] = yaml.safe_load(Path(__file__).with_suffix(".yaml").read_text())
UNSEEN = [f"{'an' if text[0] in 'aeiou' else 'a'} {text}" for text in WORDS["unseen"].split(", ")]
PALETTE = set(WORDS["palette"].split())
#: Nouns by keyword, and translations by word; _ is a space.
KINDS, TRANSLATIONS = (
    {key: value.replace("_", " ") for key, value in (pair.split("=") for pair in WORDS[name].split())}
    for name in ("kinds", "translations")
)

#: Drawings that are left out, by their names.
LEFT_OUT = re.compile(
    r"-theme-|^computer-.*(icons-hotel|buttons|diagram|mime)|-led-|-flags-|signalflag|semaphore|resistor|-label|"
    r"^geography-(?!.*(globe|saturn|moon|sun|astronomy|earth))|bullet_hole|fan_?art|segmented|sexy|-bb_|citation|"
    r"^shapes-.*(corner|lower|upper|left_|right_|frame|border|flourish|tribal)|people_juliane|elips|rectg|round_|"
    r"stared|sailing|boating_rules|knot|package_handling|magnet"
)
#: Titles of collections, not of drawings: the name of the file is read instead.
COLLECTION = re.compile(
    r"aiga|etiquette|road signs|iconset|sub?ission|sibmission|clipart|advertising|arrows|theme|collection|"
    r"svg|sallite|bullet hole|rpg map|^people$|^card$|body part|gramastar|untitled|^image|^drawing|rollandin|"
    r"^architetto|chess pieces|homes|^candy$|balloons-aj|illustration",
    re.IGNORECASE,
)
LONGEST = 5  # words of a title


def colour(picture: Image.Image) -> str:
    """Name the colours of what stands on the white ground; "" for none that lead."""
    hue, saturation, value = np.moveaxis(np.array(picture.convert("HSV")).astype(int), -1, 0)
    bright = (saturation < 13) & (value > 242)
    regions, _ = label(bright)
    edge = {*regions[0], *regions[-1], *regions[:, 0], *regions[:, -1]} - {0}
    inside = ~np.isin(regions, list(edge))
    degrees = hue * 360 / 256
    bounds = [15, 42, 68, 165, 200, 258, 312, 345]
    names = np.array(["red", "orange", "yellow", "green", "turquoise", "blue", "purple", "pink", "red"])
    named = names[np.digitize(degrees, bounds)].astype(object)
    named[(named == "orange") & (value < 160)] = "brown"
    named[(named == "red") & (saturation < 120) & (value > 180)] = "pink"
    faint = (saturation < 50) | (value < 50)
    named[faint] = np.where(value[faint] < 70, "black", np.where(value[faint] > 215, "white", "grey"))
    count = Counter(named[inside].tolist())
    total = sum(count.values())
    if not total:
        return ""
    hues = Counter({name: number for name, number in count.items() if name not in ("black", "white", "grey")})
    strong = sum(hues.values())
    if strong < 0.15 * total:
        limits = {"grey": 0.45, "black": 0.7, "white": 0.85}
        return next(
            (name for name, least in limits.items() if count[name] > least * total), "black and white"
        )
    (first, most), (second, next_most) = [*hues.most_common(2), ("", 0)][:2]
    if most > 0.6 * strong:
        return first
    if most + next_most > 0.7 * strong and next_most > 0.25 * strong:
        return " and ".join(sorted((first, second)))
    return "colourful"


def words(text: str) -> list[str]:
    """Lower-case words without digits."""
    return re.findall(r"[^\W\d_]+", html.unescape(html.unescape(text)).lower().replace("_", " "))


def noun(file: Path) -> tuple[str, list[str]]:
    """The cleaned title of a drawing and its keywords."""
    text = file.read_text(errors="replace")
    title, creator = (
        match.group(1) if (match := re.search(pattern, text, re.DOTALL)) else ""
        for pattern in (r"<dc:title>(.*?)</dc:title>", r"<dc:creator>.*?<dc:title>(.*?)</dc:title>")
    )
    keywords = re.findall(
        r"<rdf:li>(.*?)</rdf:li>", "".join(re.findall(r"<dc:subject>.*?</dc:subject>", text, re.DOTALL))
    )
    collection = not title.strip() or COLLECTION.search(title)
    cleaned = words(file.stem if collection else title)
    authors = words(creator)
    while len(cleaned) > 1 and any(
        author == cleaned[-1] or (collection and author.startswith(cleaned[-1])) for author in authors
    ):
        cleaned.pop()
    cleaned = [
        word
        for each in cleaned
        if each not in PALETTE
        for word in TRANSLATIONS.get(each, each).split(" ")
        if word
    ]
    if "guillou" in creator.lower():
        cleaned = ["warning", "sign"]
    elif "aiga" in f"{title}{file.stem}".lower() and cleaned:
        cleaned.append("sign")
    while cleaned and cleaned[0] in ("and", "the", "a", "an", "of", "with", "in"):
        cleaned.pop(0)
    while cleaned and cleaned[-1] in ("and", "the", "a", "an", "of", "with", "in", "on"):
        cleaned.pop()
    return " ".join(cleaned[:LONGEST]), keywords


def caption(colours: str, thing: str) -> str:
    """Both with an article."""
    text = f"{colours} {thing}".strip()
    return (
        text
        if thing.endswith("s") and not thing.endswith("ss")
        else f"{'an' if text[0] in 'aeiou' else 'a'} {text}"
    )


def kind(place: str) -> bool:
    """True for a quarter of all pictures: their caption names the kind."""
    return blake2b(place.encode(), digest_size=1).digest()[0] < 64


def unseen(captions: Sequence[str]) -> bool:
    """True if one of the captions has the colour and the last word of one of `UNSEEN`."""
    pairs = [(each.split()[1], each.split()[-1]) for each in UNSEEN]
    return any(
        first in text.split() and (last in text.split() or f"{last}s" in text.split())
        for text in captions
        for first, last in pairs
    )


def right_colours(folder: Path) -> float:
    """The share of samples in whose pictures `colour` names the colours that their caption begins with."""
    right = []
    for line in (folder / "samples.jsonl").read_text().splitlines():
        sample = json.loads(line)
        named = colour(Image.open(folder / sample["file"]).convert("RGB"))
        right.append(sample["caption"].partition(" ")[2].startswith(f"{named} "))
    return sum(right) / len(right)


def main() -> None:
    """Write both sides of the split, or measure samples."""
    arguments = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    arguments.add_argument("--source", type=Path, help="the clip art of pictures.py")
    arguments.add_argument("--out", type=Path, help="folder that is written")
    arguments.add_argument("--side", type=int, default=64, help="of the pictures, in pixels")
    arguments.add_argument("--samples", type=Path, help="folder of samples: print the share of right colours")
    given = arguments.parse_args()
    if given.samples:
        print(f"{right_colours(given.samples):.1%} of the samples have the colours of their caption")
        return
    if not given.source or not given.out:
        arguments.error("expected --source and --out, or --samples")
    given.out.mkdir(parents=True, exist_ok=True)
    (given.out / "unseen.txt").write_text("\n".join(UNSEEN) + "\n")
    with tempfile.TemporaryDirectory(dir=given.out) as folder:
        root = debian("openclipart-svg", Path(folder)) / "usr/share/openclipart/svg"
        drawings = {
            file.relative_to(root).with_suffix("").as_posix().replace("/", "-"): file
            for file in root.rglob("*.svg")
        }
        for part in ("train", "held_out"):
            with (given.source / f"{part}.csv").open() as file:
                paths = [row["path"] for row in csv.DictReader(file)]
            (given.out / part).mkdir(exist_ok=True)
            rows = []
            for path in paths:
                name = Path(path).stem
                if LEFT_OUT.search(name) or name not in drawings:
                    continue
                title, keywords = noun(drawings[name])
                kinds = [KINDS[word] for word in keywords if word in KINDS and KINDS[word] not in title]
                things = [thing for thing in (title, *kinds[:1]) if len(thing) > 2]
                if not things:
                    continue
                whole = Image.open(given.source / path).convert("RGB")
                plain = np.array(
                    whole.resize((given.side, given.side), Image.Resampling.LANCZOS).convert("HSV")
                )
                hues = ((plain[..., 1] > 70) & (plain[..., 2] > 60)).mean() > COLOURED
                for turn in TURNS if hues else TURNS[:1]:
                    turned = plain.copy()
                    turned[..., 0] += np.uint8(round(turn * 256 / 360))  # wraps around
                    picture = Image.fromarray(turned, "HSV").convert("RGB")
                    captions = [caption(colour(picture), thing) for thing in things]
                    if part == "train" and unseen(captions):
                        continue
                    place = f"{part}/{name}-{turn}.png"
                    picture.save(given.out / place)
                    rows.append((place, captions[-1 if kind(place) else 0]))
            with (given.out / f"{part}.csv").open("w", newline="") as file:
                csv.writer(file).writerows([("path", "caption"), *rows])
            print(f"{part}: {len(rows):,} pictures with {len({text for _, text in rows}):,} captions")


if __name__ == "__main__":
    main()
