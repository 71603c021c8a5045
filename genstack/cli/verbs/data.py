"""Check images before training.

genstack data check DIR
"""

import shlex
from pathlib import Path
from typing import Any, Literal

from genstack import plugins
from genstack.checkpoints.model_file import load
from genstack.cli.parsing.paths import Place, Trained, check_png
from genstack.data import ImageData
from genstack.data.images import write
from genstack.data.inspection import contact_sheet, inspect_images
from genstack.data.transforms import Augmentation
from genstack.errors import UserError

EXAMPLE = Augmentation(crop="random", zoom=(1.0, 1.2), flip=0.5, rotate=10.0, shift=0.1)


def check(
    source: Place,
    resolution: int | str | None = None,
    channels: Literal[1, 3, 4] | None = None,
    labels: Literal["own", "folder", "none"] = "own",
    window: tuple[float, float] | None = None,
    background: tuple[int, int, int] | None = None,
    run: Trained = "",
    out: Place = "data-check.png",
) -> None:
    """Read every image of a source, list problems, and write a contact sheet of preprocessed images.

    Args:
        source: anything that `--data.source` takes, such as a folder of pictures.
        resolution: side of the images that the model sees, or height and width: 64 (the default), or 48,64.
        channels: 1 for grey, 3 for colour (the default), 4 for colour and transparency.
        labels: source of class labels: own (the source's), folder (first-level folders), or none.
        window: 16-bit values that map to black and white; null for the whole range.
        background: red, green and blue, 0 to 255, behind transparent pictures; white by default.
        run: run or published file whose resolution, channels, window and background are used.
        out: PNG file of the contact sheet, each image above an augmented version.
    """
    target = check_png(out)
    settings: dict[str, Any] = {
        "resolution": resolution,
        "channels": channels,
        "window": window,
        "background": background,
    }
    given = {name: value for name, value in settings.items() if value is not None}
    if run and given:
        raise UserError(f"--{next(iter(given))} comes from --run {run}; leave out one of them")
    if run:
        data = ImageData.for_model(load(Path(run)).preprocessing, source, labels)
    else:
        data = ImageData(source, labels=labels, **given)
    found = inspect_images(data)
    print("\n".join([data.report(), *found.lines()]))
    if not found.readable:
        raise UserError(f"no image of {source} can be read; the reasons are above")
    write(contact_sheet(data, found.readable, EXAMPLE), target)
    print(f"{out} shows the images as a model sees them, each above an augmented version")
    if not run:
        print(f"Next:  genstack plan {shlex.quote(source)}{plugins.flags()}")
