"""Reconstruct images with a compressor, and measure PSNR.

genstack reconstruct runs/flowers --count 16 --out reconstructions.png
"""

from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import Literal

import torch
from jaxtyping import Float
from PIL.Image import Image
from torch import Tensor

from genstack.checkpoints.model_file import load
from genstack.cli.parsing.device import choose_device
from genstack.cli.parsing.edit import parse_size
from genstack.cli.parsing.paths import Place, Trained, check_sheet_or_folder, is_sheet
from genstack.data import ImageData
from genstack.data.images import save_all, write
from genstack.data.sheet import sheet
from genstack.errors import UserError
from genstack.evaluation.reference import ReferenceSet
from genstack.losses.fidelity import psnr
from genstack.model import Model
from genstack.training.files import CONFIG

FOLDERS = ("images", "reconstructions")  # in the folder of --out


def reconstruct(
    run: Trained,
    source: Place = "",
    count: int = 16,
    size: str = "",
    out: Place = "reconstructions.png",
    device: str = "auto",
) -> None:
    """Reconstruct images with a compressor, write a sheet or folders of both, and print PSNR.

    Args:
        run: folder of a compressor's or a prior's run, or a published file.
        source: folder or built-in set to reconstruct; the run's held-out images by default.
        count: number of images.
        size: height and width, as in 64x96, for networks of any size; with --source. The model's by default.
        out: PNG file of a sheet, each image beside its reconstruction; or a folder, in which `images` and
            `reconstructions` get a file of each.
        device: auto, cpu, cuda or mps.
    """
    if count < 1:
        raise UserError(f"count must be at least 1, got {count}")
    target = check_sheet_or_folder(out, FOLDERS, count)
    if size and not source:
        raise UserError("--size needs images of a size of your choice; add --source")
    model = load(Path(run)).to(choose_device(device))
    if source:
        preprocessing = model.preprocessing
        height, width = parse_size(size) or (preprocessing.height, preprocessing.width)
        model.compressor.layout(height, width)  # refuses sizes that do not fit
        data = ImageData.for_model(replace(preprocessing, height=height, width=width), source)
    elif (Path(run) / CONFIG).is_file():
        from genstack.cli.parsing.stages import run_data  # imports all of training, which takes seconds

        data = run_data(Path(run))
    else:
        raise UserError(f"{run} was not trained here and has no held-out images; add --source")
    images, reconstructions = reconstruct_images(model, data, "all" if source else "validation", count)
    if is_sheet(target):
        write(make_sheet(images, reconstructions), target)
    else:
        save_pairs(model, images, reconstructions, target)
    closeness = psnr(images, reconstructions)
    mean, worst = closeness.mean(), closeness.min()
    print(f"PSNR {mean:.2f} dB over {len(images)} images, worst {worst:.2f} dB; {out} has them")


def reconstruct_images(
    model: Model, data: ImageData, split: Literal["validation", "all"], count: int
) -> tuple[Float[Tensor, "b c H W"], Float[Tensor, "b c H W"]]:
    """Return the first images of a split, and their reconstructions."""
    reference = ReferenceSet(data, split, count)
    images = reference.batch(range(len(reference))).images
    return images, model.reconstruct(images).cpu()


def save_pairs(
    model: Model, images: Float[Tensor, "b c H W"], reconstructions: Float[Tensor, "b c H W"], folder: Path
) -> list[Path]:
    """Write images and reconstructions into two folders, with their settings; return all files."""
    pairs = zip(FOLDERS, (images, reconstructions), strict=True)
    settings = {"model": model.fingerprint}
    return [
        file for name, part in pairs for file in save_all(part, folder / name, model.preprocessing, settings)
    ]


def make_sheet(images: Float[Tensor, "b c H W"], reconstructions: Float[Tensor, "b c H W"]) -> Image:
    """Draw each image beside its reconstruction."""
    pairs = torch.stack(list(chain(*zip(images, reconstructions, strict=True))))
    return sheet(pairs, columns=min(8, len(pairs)))
