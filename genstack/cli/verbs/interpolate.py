"""Interpolate between two pictures in a compressor's latents.

genstack interpolate runs/flowers A.png B.png --out sheet.png
"""

from pathlib import Path

from jaxtyping import Float
from torch import Tensor

from genstack.checkpoints.model_file import load
from genstack.cli.parsing.device import choose_device
from genstack.cli.parsing.paths import Place, Trained, check_sheet_or_folder, is_sheet
from genstack.data.images import save_all, write
from genstack.data.sheet import sheet
from genstack.data.transforms import load as read
from genstack.errors import UserError
from genstack.model import Model

COLUMNS = 16  # images in a row of the sheet, at most


def interpolate(
    run: Trained,
    first: Place,
    last: Place,
    count: int = 8,
    out: Place = "interpolation.png",
    device: str = "auto",
) -> None:
    """Interpolate between two pictures in a compressor's latents, and write a sheet or a folder of images.

    Both ends are reconstructions of the pictures. Latents are mixed before quantization.

    Args:
        run: folder of a compressor's or a prior's run, or a published file.
        first: first picture; scaled and cropped as in training.
        last: last picture.
        count: number of images, both ends included.
        out: PNG file of a sheet, or a folder for a file per image.
        device: auto, cpu, cuda or mps.
    """
    check_count(count)
    target = check_sheet_or_folder(out, [""], count)
    model = load(Path(run)).to(choose_device(device))
    images = interpolate_files(model, Path(first), Path(last), count)
    if is_sheet(target):
        write(sheet(images, columns=min(count, COLUMNS)), target)
    else:
        save_interpolation(model, images, target)
    print(f"{count} images from {first} to {last}: {out}")


def interpolate_files(model: Model, first: Path, last: Path, count: int) -> Float[Tensor, "count c H W"]:
    """Interpolate between two pictures."""
    check_count(count)
    one, other = (read(file, model.preprocessing) for file in (first, last))
    return model.interpolate(one, other, count).cpu()


def check_count(count: int) -> None:
    """Raise a UserError without two ends."""
    if count < 2:
        raise UserError(f"count must be at least 2, both ends included; got {count}")


def save_interpolation(model: Model, images: Float[Tensor, "count c H W"], folder: Path) -> list[Path]:
    """Write each image as a file, with its settings; return the files."""
    settings = {"count": len(images), "model": model.fingerprint}
    return save_all(images, folder, model.preprocessing, settings)
