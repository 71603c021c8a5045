"""Go from one picture to another through a compressor's latents.

genstack interpolate runs/flowers A.png B.png --out sheet.png
"""

from pathlib import Path

from genstack.atomic import replacing
from genstack.checkpoints.model_file import load
from genstack.cli.parsing.device import choose
from genstack.data.framing import load as read
from genstack.data.sheet import sheet
from genstack.errors import UserError

COLUMNS = 16  # images in a row of the sheet, at most


def interpolate(
    run: str, first: str, last: str, count: int = 8, out: str = "interpolation.png", device: str = "auto"
) -> None:
    """Go from one picture to another through a compressor's latents, and write a sheet of the way.

    The ends are the reconstructions of the two pictures. With codes, latents are mixed before quantization.

    Args:
        run: folder of a compressor's or a prior's run, or a published file.
        first: picture to begin with; scaled and cropped as in training.
        last: picture to end with.
        count: images on the way, both ends included.
        out: PNG file of the sheet.
        device: auto, cpu, cuda or mps.
    """
    if count < 2:
        raise UserError(f"count {count} is too small; both ends are counted, so use 2 or more")
    model = load(Path(run)).to(choose(device))
    one, other = (read(Path(name), model.preprocessing) for name in (first, last))
    images = model.interpolate(one, other, count).cpu()
    with replacing(Path(out)) as path:
        sheet(images, columns=min(count, COLUMNS)).save(path, format="PNG")
    print(f"{count} images from {first} to {last}: {out}")
