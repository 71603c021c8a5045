"""Reconstruct images with a compressor, and measure PSNR.

genstack reconstruct runs/flowers --count 16 --out reconstructions.png
"""

from dataclasses import replace
from itertools import chain
from pathlib import Path

import torch

from genstack.checkpoints.model_file import load
from genstack.cli.parsing.device import choose_device
from genstack.cli.parsing.edit import parse_size
from genstack.cli.parsing.paths import Place, Trained
from genstack.cli.parsing.stages import run_data
from genstack.data import ImageData
from genstack.data.images import write
from genstack.data.sheet import sheet
from genstack.errors import UserError
from genstack.evaluation.reference import ReferenceSet
from genstack.losses.fidelity import psnr
from genstack.training.run import CONFIG


def reconstruct(
    run: Trained,
    source: Place = "",
    count: int = 16,
    size: str = "",
    out: Place = "reconstructions.png",
    device: str = "auto",
) -> None:
    """Reconstruct images with a compressor, write a sheet of pairs, and print PSNR.

    Args:
        run: folder of a compressor's or a prior's run, or a published file.
        source: folder or built-in set to reconstruct; the run's held-out images by default.
        count: number of images.
        size: height and width, as in 64x96, for networks of any size; with --source. The model's by default.
        out: PNG file of the sheet, each image beside its reconstruction.
        device: auto, cpu, cuda or mps.
    """
    if count < 1:
        raise UserError(f"count must be at least 1, got {count}")
    if size and not source:
        raise UserError("--size needs images of a size of your choice; add --source")
    model = load(Path(run)).to(choose_device(device))
    if source:
        preprocessing = model.preprocessing
        height, width = parse_size(size) or (preprocessing.height, preprocessing.width)
        model.compressor.layout(height, width)  # refuses sizes that do not fit
        data = ImageData.for_model(replace(preprocessing, height=height, width=width), source)
    elif (Path(run) / CONFIG).is_file():
        data = run_data(Path(run))
    else:
        raise UserError(f"{run} was not trained here and has no held-out images; add --source")
    reference = ReferenceSet(data, "all" if source else "validation", count)
    images = reference.batch(range(len(reference))).images
    reconstructions = model.reconstruct(images).cpu()
    closeness = psnr(images, reconstructions)
    pairs = torch.stack(list(chain(*zip(images, reconstructions, strict=True))))
    write(sheet(pairs, columns=min(8, len(pairs))), Path(out))
    mean, worst = closeness.mean(), closeness.min()
    print(f"PSNR {mean:.2f} dB over {len(images)} images, worst {worst:.2f} dB; {out} shows them")
