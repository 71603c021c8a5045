"""Look through images before training.

genstack data check DIR
"""

from pathlib import Path
from typing import Literal

from genstack.data import ImageData
from genstack.data.framing import Augmentation
from genstack.data.images import write
from genstack.data.survey import contact_sheet, survey
from genstack.errors import UserError

VARIED = Augmentation(crop="random", zoom=(1.0, 1.2), flip=0.5, rotate=10.0, shift=0.1)


def check(
    source: str,
    resolution: int | str = 64,
    channels: Literal[1, 3, 4] = 3,
    labels: Literal["own", "folder", "none"] = "own",
    window: tuple[float, float] | None = None,
    out: str = "data-check.png",
) -> None:
    """Read every image of a source, say what is there and what is wrong, and draw what a model will see.

    Args:
        source: a folder of pictures, `digits`, `shapes`, `shapes:pairs`, or `torchvision:NAME`.
        resolution: side of the images that the model sees, or height and width: 64, or 48,64.
        channels: 1 grey, 3 colour, 4 colour and transparency.
        labels: where classes come from: own (the source's), folder (first-level folders), or none.
        window: lowest and highest value of 16-bit files, to be black and white; null for all there can be.
        out: PNG file of the contact sheet, each image above an augmented variation of it.
    """
    data = ImageData(source, resolution, channels, labels, window=window)
    found = survey(data)
    print("\n".join([data.report(), *found.lines()]))
    if not found.readable:
        raise UserError(f"no image of {source} can be read; the reasons are listed above")
    write(contact_sheet(data, found.readable, VARIED), Path(out))
    print(f"{out} shows what a model sees, and below each image an augmented variation of it")
