"""Measure what aligning latents with a frozen classifier costs and gives (`configs/compressor/va_vae.yaml`).

    OMP_NUM_THREADS=1 python benchmarks/alignment.py DIR --steps 300

DIR has one folder of images per class. A small KL autoencoder of 32 px images is trained with and without
alignment, with two seeds. A ridge regression then tells the classes of held-out images from their latents.
Features of images are computed once, so there is no augmentation. Perceptual loss and adversary are left out.
"""

import argparse
import time

import torch
from torch.nn.functional import one_hot

from genstack.compressor import Autoencoder, Convolutional
from genstack.compressor.gaussian import Gaussian
from genstack.data import ImageData
from genstack.losses.alignment import Alignment
from genstack.losses.efficientnet import EfficientNetLite0
from genstack.losses.features import ImageFeatures
from genstack.losses.fidelity import psnr
from genstack.losses.perceptual import LPIPS

SIZE, BATCH, IMAGES, SHARE = 32, 16, 1000, 0.2
RIDGE = 0.1  # of the mean variance
MAP = 2  # of the classifier


class Known:
    """Features of images that were computed before, in place of the network.

    Args:
        maps: feature map of each training image.
    """

    def __init__(self, maps: torch.Tensor):
        self.maps, self.chosen = maps, torch.empty(0, dtype=torch.int64)

    def __call__(self, images: torch.Tensor) -> ImageFeatures:
        return ImageFeatures([self.maps[self.chosen]] * (MAP + 1), images.mean((2, 3)), None)


def read(data: ImageData, numbers: list[int]) -> tuple[torch.Tensor, torch.Tensor]:
    """Images, and their labels."""
    samples = data.samples(numbers)
    batches = [samples[0, number] for number in range(len(numbers))]
    images = torch.cat([batch.images for batch in batches])
    return images, torch.cat([batch.inputs.labels for batch in batches])


def train(images: torch.Tensor, maps: torch.Tensor, weight: float, seed: int, steps: int) -> Autoencoder:
    """Train a compressor; a weight of 0 leaves alignment out."""
    torch.manual_seed(seed)
    network = Convolutional(
        dim=8, width=16, multipliers=(1, 2, 2), blocks=1, attention=(), middle_attention=False, double=True
    )
    model = Autoencoder(3, network, Gaussian(8, divergence_weight=1e-4, free_bits=0.1))
    alignment = Alignment(model.latent_channels, EfficientNetLite0(size=128), weight, map=MAP)
    known = alignment.frozen = Known(maps)  # type: ignore[assignment]
    optimizer = torch.optim.AdamW([*model.parameters(), *alignment.parameters()], 2e-3, betas=(0.9, 0.99))
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 2e-3, total_steps=steps)
    for _ in range(steps):
        known.chosen = torch.randint(len(images), (BATCH,))
        batch = images[known.chosen]
        found = model(batch)
        loss = (found.images - batch).abs().mean() + sum(found.losses.values())
        if weight:
            assert found.latents is not None
            loss = loss + weight * alignment(found.latents, batch)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    return model.eval()


def probe(known: torch.Tensor, labels: torch.Tensor, held_out: torch.Tensor, expected: torch.Tensor) -> float:
    """Share of held-out images whose class a ridge regression tells."""
    mean, deviation = known.mean(0), known.std(0).clamp(min=1e-6)
    sides = [(each - mean) / deviation for each in (known, held_out)]
    train_side, test_side = (torch.cat([each, torch.ones(len(each), 1)], dim=1).double() for each in sides)
    penalty = RIDGE * len(known) * torch.eye(train_side.shape[1], dtype=torch.float64)
    target = train_side.T @ one_hot(labels).double()
    weights = torch.linalg.solve(train_side.T @ train_side + penalty, target)
    return float(((test_side @ weights).argmax(1) == expected).double().mean())


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("source")
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--weights", type=float, nargs="+", default=[0.0, 0.1, 1.0])
    given = parser.parse_args()
    torch.set_num_threads(1)
    data = ImageData(
        source=given.source, resolution=(SIZE, SIZE), limit=IMAGES, validation=SHARE, labels="folder"
    )
    images, labels = read(data, list(data.split.training))
    held_out, expected = read(data, list(data.split.validation))
    network, lpips = EfficientNetLite0(size=128).build(), LPIPS()
    with torch.no_grad():
        maps = torch.cat([network(part).maps[MAP] for part in images.split(BATCH)])
    print(f"{len(images)} images, {len(held_out)} held out, {int(labels.max()) + 1} classes", flush=True)
    for seed in range(2):
        for weight in given.weights:
            begin = time.process_time()
            model = train(images, maps, weight, seed, given.steps)
            with torch.no_grad():
                output = model(held_out).images.clamp(-1, 1)
                distance = lpips.distances(output, held_out).mean()
                latents = [model.encode(each).flatten(1) for each in (images, held_out)]
            share = probe(latents[0], labels, latents[1], expected)
            print(
                f"weight {weight}, seed {seed}: PSNR {psnr(held_out, output).mean():.2f}, "
                f"LPIPS-Alex {distance:.4f}, classes {share:.3f}, {time.process_time() - begin:.0f} s",
                flush=True,
            )
