"""Images a second for the training of a prior: encoded on the fly, or read from an archive of codes.

    python benchmarks/codes.py [--resolution 64]

Pictures are JPEG files of 1.5 times the resolution, the compressor is that of configs/compressor/vqgan.yaml
with fresh weights. Rounds alternate; medians are printed, and the bytes of the archive.
"""

import argparse
import tempfile
import time
from collections.abc import Callable
from itertools import islice
from pathlib import Path
from statistics import median

import torch
from PIL import Image

from genstack.compressor import Autoencoder
from genstack.compressor.networks.convolutional import Convolutional
from genstack.compressor.quantizers.vq import VectorQuantizer
from genstack.data import ImageData
from genstack.data.codes.data import CodeData
from genstack.data.codes.encoding import Encoding
from genstack.data.codes.views import VIEWS
from genstack.data.images import Preprocessing, to_uint8
from genstack.model import Model

IMAGES, BATCH, BATCHES, ROUNDS = 96, 32, 2, 3


def main() -> None:
    """Two lines."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--resolution", type=int, default=64)
    side = parser.parse_args().resolution
    torch.set_num_threads(1)
    network = Convolutional(width=64, multipliers=(1, 1, 2, 4), attention=(3,))
    compressor = Autoencoder(3, network, VectorQuantizer(1024)).eval().requires_grad_(False)
    model = Model(compressor, Preprocessing(3, side, side))
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "pictures").mkdir()
        shapes = ImageData("shapes", side * 3 // 2, validation=0.0).examples("training", IMAGES).images
        for number, image in enumerate(to_uint8(shapes).numpy()):
            Image.fromarray(image).save(folder / "pictures" / f"{number}.jpg", quality=90)
        images = ImageData(str(folder / "pictures"), side, batch_size=BATCH)
        encoding = Encoding(model, images, folder / "codes", VIEWS["flip"], 4096)
        encoding.write(encoding.missing)
        encoding.finish()
        codes = CodeData(ImageData(str(folder / "codes"), side, batch_size=BATCH), model)
        speeds: dict[str, list[float]] = {"on the fly": [], "from an archive": []}
        for _ in range(ROUNDS):
            speeds["on the fly"].append(speed(images, compressor.encode, BATCHES))
            speeds["from an archive"].append(speed(codes, compressor.encode, 200))
        size = sum(path.stat().st_size for path in (folder / "codes").glob("*.safetensors"))
    length = encoding.header.layout.length
    for way, found in speeds.items():
        print(f"{way}: {median(found):,.4g} images/s ({min(found):,.4g} to {max(found):,.4g})")
    print(f"{size / IMAGES:.0f} bytes an image, two views of {length} codes; as int64 {2 * length * 8}")


def speed(data: ImageData | CodeData, encode: Callable, batches: int) -> float:
    """Images a second, of batches that are read and become codes."""
    loader = iter(data.training_loader())
    next(loader).posterior(encode)
    begun = time.monotonic()
    for batch in islice(loader, batches):
        with torch.no_grad():
            batch.posterior(encode)
    return BATCH * batches / (time.monotonic() - begun)


if __name__ == "__main__":
    main()
