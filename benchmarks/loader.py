"""Images a second of the loader beside those of a training step: is decoding the bottleneck?

    python benchmarks/loader.py [--images 192] [--side 256] [--rounds 3]

JPEG files of grain on smooth colours (quality 90) are read from a folder and from a shard, flipped and
cropped at random, by 0, 1 and 2 workers. The step is that of a compressor of the benchmark's own size,
without an adversary. The last line says what JPEG's own shrinking (`draft`) would save and how far off it is.
"""

import argparse
import io
import tarfile
import tempfile
import time
import warnings
from itertools import islice
from pathlib import Path
from statistics import median

import numpy as np
import torch
from PIL import Image

from genstack.compressor import Autoencoder, Convolutional
from genstack.compressor.quantizers import VectorQuantizer
from genstack.data import ImageData
from genstack.data.images import pixels
from genstack.data.transforms import Augmentation, crop_and_resize

VARIED = Augmentation(crop="random", zoom=(1.0, 1.2), flip=0.5)
BATCH = 8


def jpeg(number: int, side: int) -> bytes:
    """A picture with large shapes and fine grain, as photographs have."""
    chance = np.random.default_rng(number)
    coarse = Image.fromarray(chance.integers(0, 256, (9, 9, 3), np.uint8)).resize((side, side), 3)
    grain = chance.normal(0, 6, (side, side, 3))
    picture = Image.fromarray((np.asarray(coarse) + grain).clip(0, 255).astype(np.uint8))
    file = io.BytesIO()
    picture.save(file, format="JPEG", quality=90)
    return file.getvalue()


def write(root: Path, count: int, side: int) -> tuple[str, str]:
    """The same pictures as a folder and as a shard."""
    (root / "folder").mkdir()
    with tarfile.open(root / "0.tar", "w") as shard:
        for number in range(count):
            data = jpeg(number, side)
            (root / "folder" / f"{number}.jpg").write_bytes(data)
            member = tarfile.TarInfo(f"{number}.jpg")
            member.size = len(data)
            shard.addfile(member, io.BytesIO(data))
    return str(root / "folder"), str(root / "0.tar")


def loading(source: str, side: int, workers: int, batches: int) -> float:
    """Images a second, after the workers have started."""
    data = ImageData(source, side, batch_size=BATCH, workers=workers, augmentation=VARIED)
    stream = iter(data.training_loader())
    list(islice(stream, 2 + 2 * workers))  # what was read ahead is not counted
    begun = time.perf_counter()
    list(islice(stream, batches))
    return batches * BATCH / (time.perf_counter() - begun)


def training(side: int) -> float:
    """Images a second of forward and backward."""
    network = Convolutional(dim=64, width=64, multipliers=(1, 2, 4), blocks=2, attention=())
    compressor = Autoencoder(3, network, VectorQuantizer(1024, 8))
    images = torch.rand(2, 3, side, side) * 2 - 1
    times = []
    for _ in range(2):
        begun = time.perf_counter()
        (compressor(images).images - images).abs().mean().backward()
        times.append(time.perf_counter() - begun)
    return len(images) / min(times)


def draft(side: int) -> tuple[float, float, float]:
    """Time of a whole reading over that of a draft, and their mean and largest difference, of 255."""
    data = jpeg(0, 4 * side)
    seconds, seen = [], []
    for shrink in (False, True):
        begun = time.perf_counter()
        picture = Image.open(io.BytesIO(data))
        if shrink:
            picture.draft("RGB", (side, side))
        seen.append(crop_and_resize(pixels(picture, 3) * 2 - 1, (side, side)))
        seconds.append(time.perf_counter() - begun)
    apart = (seen[0] - seen[1]).abs() * 127.5
    return seconds[0] / seconds[1], apart.mean().item(), apart.max().item()


def main() -> None:
    """Print the tables."""
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--images", type=int, default=192)
    arguments.add_argument("--side", type=int, default=256)
    arguments.add_argument("--rounds", type=int, default=3)
    given = arguments.parse_args()
    warnings.simplefilter("ignore")
    with tempfile.TemporaryDirectory() as name:
        sources = write(Path(name), given.images, given.side)
        print(f"{given.images} JPEG files of {given.side} px, images a second, median of {given.rounds}")
        for workers in (0, 1, 2):
            rates = [
                median(loading(source, given.side, workers, 8) for _ in range(given.rounds))
                for source in sources
            ]
            print(f"workers {workers}: folder {rates[0]:7.1f}, shard {rates[1]:7.1f}")
    print(f"training step: {training(given.side):7.2f}")
    print(
        "draft at a quarter: {:.1f} times as quick, mean {:.2f}, largest {:.1f} of 255".format(
            *draft(given.side)
        )
    )


if __name__ == "__main__":
    main()
