"""Draw images from a trained prior.

genstack sample runs/flowers-prior --count 64 --seed 0 --out samples/
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path

import torch
from PIL import Image
from rich.progress import track

from genstack.atomic import replacing
from genstack.checkpoints.files import TENSORS, load
from genstack.data.framing import load as read
from genstack.data.images import save
from genstack.data.sheet import sheet
from genstack.errors import UserError
from genstack.facts import Facts, Wishes
from genstack.model import Model
from genstack.prior import Condition, SamplingOptions

CHUNK = "genstack"  # the text chunk of a PNG that says how it was drawn
SHEET = 64  # images on the sheet, at most


def sample(  # noqa: PLR0913, PLR0917  # one argument per flag
    run: str,
    count: int = 16,
    seed: int = 0,
    out: str = "samples",
    classes: str = "",
    temperature: float = 1.0,
    top_k: int = 0,
    top_p: float = 1.0,
    guidance: float = 1.0,
    batch_size: int = 32,
    device: str = "auto",
) -> None:
    """Draw images from a trained prior, as PNG files, with a sheet of them beside the folder.

    Args:
        run: folder of a prior's run.
        count: number of images in all.
        seed: of the set; image i of a seed is the same whatever the batch size and the number of images.
        out: folder for the images, `00000.png` and on, and `samples.jsonl`; what is there already is kept.
        classes: class names or labels like `#3`, separated by commas, drawn in turn; all if left out.
        temperature: 1 as learned, below 1 safer, above 1 more varied, 0 takes the most likely code each time.
        top_k: draw from the k most likely codes only; 0 for all.
        top_p: draw from the smallest set of codes that has at least this probability; 1 for all.
        guidance: strength of classifier-free guidance towards the class; 1 for none, 0 ignores the class.
        batch_size: images drawn at a time.
        device: auto, cpu, cuda or mps.
    """
    options = SamplingOptions(temperature, top_k, top_p, guidance)
    if count < 1 or batch_size < 1:
        raise UserError(f"count {count} and batch_size {batch_size} must both be at least 1")
    model = load(Path(run)).to(choose(device))
    if model.prior is None:
        raise UserError(
            f"{run} is a compressor; train a prior on it: python train.py prior "
            f"--compressor {run} --config configs/prior/autoregressive.yaml"
        )
    wanted = tuple(name.strip() for name in classes.split(",") if name.strip())
    facts = model.prior.condition.choose(Wishes(wanted), count)
    with (Path(run) / TENSORS).open("rb") as file:
        fingerprint = hashlib.file_digest(file, "sha256").hexdigest()[:16]
    samples = Samples(model, model.prior.condition, fingerprint, facts, options, seed, Path(out).resolve())
    new = samples.draw(batch_size)
    print(f"{count} images in {out} ({new} new); {samples.write_sheet()} shows them")


def choose(device: str) -> str:
    """The device to run on."""
    if device == "auto":
        return "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:  # unknown, or this torch was built without it
        raise UserError(f"device {device} is not there; use auto, cpu, cuda or mps") from error
    return device


@dataclass
class Samples:
    """A set of images to draw.

    Args:
        model: with a prior.
        condition: of the prior.
        fingerprint: of the model's file.
        facts: what steers every image.
        options: how codes are drawn.
        seed: of the set.
        folder: where the images go.
    """

    model: Model
    condition: Condition
    fingerprint: str
    facts: Facts
    options: SamplingOptions
    seed: int
    folder: Path

    @cached_property
    def told(self) -> Sequence[Mapping[str, str]]:
        """What steers every image, in words."""
        return self.condition.tell(self.facts)

    def draw(self, batch_size: int) -> int:
        """Draw the images that are not there yet; the number of these."""
        missing = [index for index in range(len(self.facts)) if not self.drawn(index)]
        batches = [missing[first : first + batch_size] for first in range(0, len(missing), batch_size)]
        for batch in track(batches, "sampling", disable=not batches):
            images = self.model.sample(self.facts[batch], self.options, self.seed, batch)
            for index, image in zip(batch, images, strict=True):
                save(image.cpu(), self.path(index), self.model.preprocessing, {CHUNK: self.card(index)})
        lines = "".join(self.card(index) + "\n" for index in range(len(self.facts)))
        with replacing(self.folder / "samples.jsonl") as path:
            path.write_text(lines, encoding="utf-8")
        return len(missing)

    def path(self, index: int) -> Path:
        """File of an image."""
        return self.folder / f"{index:05d}.png"

    def card(self, index: int) -> str:
        """How an image is drawn, as JSON: what its PNG carries, and its line in samples.jsonl."""
        drawn = {
            "file": self.path(index).name,
            "seed": self.seed,
            "index": index,
            **self.told[index],
            **asdict(self.options),
        }
        return json.dumps(drawn | {"model": self.fingerprint}, ensure_ascii=False)

    def drawn(self, index: int) -> bool:
        """Whether an image is there already.

        Raises:
            UserError: there is another image in its place.
        """
        if not self.path(index).exists():
            return False
        with Image.open(self.path(index)) as picture:
            found = picture.info.get(CHUNK)
        if found != self.card(index):
            raise UserError(
                f"{self.path(index)} is another image, or drawn with other settings; choose another --out"
            )
        return True

    def write_sheet(self) -> Path:
        """The first images on one sheet, each over what steers it, beside the folder."""
        path = self.folder.with_name(self.folder.name + ".png")
        shown = range(min(SHEET, len(self.facts)))
        pictures = torch.stack([read(self.path(index), self.model.preprocessing) for index in shown])
        names = [", ".join(self.told[index].values()) for index in shown]
        with replacing(path) as partial:
            sheet(pictures, columns=8, labels=names if any(names) else None).save(partial, format="PNG")
        return path
