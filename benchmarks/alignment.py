"""Measure what aligning latents with a frozen classifier (`configs/compressor/va_vae.yaml`) costs and gives.

    python benchmarks/alignment.py DIR --steps 120

DIR has one folder of images per class. The recipe is trained with and without alignment, with two seeds. A
ridge regression then tells the classes of held-out images from their latents.
"""

import argparse
import json
import tempfile
import time
from pathlib import Path

import torch
from torch.nn.functional import one_hot

import genstack
from genstack.cli.main import main
from genstack.data import ImageData
from genstack.model import Model

FLAGS = {
    "data.resolution": "32",
    "data.limit": "1000",
    "data.validation": "0.2",
    "data.batch_size": "8",
    "model.adversary": "null",
    "model.perceptual": "null",
    "model.compressor.network.width": "16",
    "model.compressor.network.blocks": "1",
    "model.compressor.network.multipliers": "1,2,2",
    "model.ema": "0.98",
    "trainer.validate_every": "50%",
    "trainer.accelerator": "cpu",
    "log.images": "0",
}
SHOWN = ("PSNR", "LPIPS-Alex", "rKID-EffLite0")
RIDGE = 1e-2  # of the mean variance
BATCH = 64


def latents(model: Model, data: ImageData, indices: list[int]) -> tuple[torch.Tensor, torch.Tensor]:
    """Latents of images, and their labels."""
    samples = data.samples(indices)
    found, labels = [], []
    for first in range(0, len(indices), BATCH):
        batches = [samples[0, index] for index in range(first, min(first + BATCH, len(indices)))]
        images = torch.cat([batch.images for batch in batches])
        found.append(model.compressor.encode(images).flatten(1))
        labels.append(torch.cat([batch.inputs.labels for batch in batches]))
    return torch.cat(found), torch.cat(labels)


@torch.no_grad()
def probe(folder: Path, source: str) -> float:
    """Share of held-out images whose class a ridge regression on latents tells."""
    model = genstack.load(folder)
    data = ImageData(source=source, resolution=(32, 32), validation=0.2, limit=1000)
    (known, labels), (held_out, expected) = (
        latents(model, data, list(part)) for part in (data.split.training, data.split.validation)
    )
    mean, deviation = known.mean(0), known.std(0).clamp(min=1e-6)
    known, held_out = ((each - mean) / deviation for each in (known, held_out))
    known, held_out = (
        torch.cat([each, torch.ones(len(each), 1)], dim=1).double() for each in (known, held_out)
    )
    gram = known.T @ known + RIDGE * len(known) * torch.eye(known.shape[1], dtype=torch.float64)
    weights = torch.linalg.solve(gram, known.T @ one_hot(labels).double())
    return float(((held_out @ weights).argmax(1) == expected).double().mean())


def measure(source: str, seed: int, steps: int, flags: list[str], folder: Path) -> dict[str, float]:
    """Train a compressor, and measure it on held-out images."""
    begin = time.process_time()
    words = [
        "train",
        "compressor",
        "--config",
        "configs/compressor/va_vae.yaml",
        "--data.source",
        source,
        *(word for name, value in FLAGS.items() for word in (f"--{name}", value)),
    ]
    words += ["--model.seed", str(seed), "--trainer.max_steps", str(steps), "--runs", str(folder), *flags]
    main([*words, "--name", "run"])
    minutes = (time.process_time() - begin) / 60
    main(["evaluate", str(folder / "run"), "--lpips", "alex", "--device", "cpu"])
    card = json.loads((folder / "run" / "evaluation" / "card.json").read_text(encoding="utf-8"))
    found = {entry["name"]: entry["value"] for entry in card["numbers"] if entry["name"] in SHOWN}
    return found | {"probe": probe(folder / "run", source), "minutes": minutes}


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("source")
    parser.add_argument("--steps", type=int, default=120)
    parser.add_argument("--weight", default="0.1")
    given = parser.parse_args()
    torch.set_num_threads(1)
    for seed in range(2):
        for name, flags in (
            ("without", ["--model.alignment", "null"]),
            ("aligned", ["--model.alignment.weight", given.weight]),
        ):
            with tempfile.TemporaryDirectory() as folder:
                numbers = measure(given.source, seed, given.steps, flags, Path(folder))
            print(name, seed, {key: round(value, 4) for key, value in numbers.items()}, flush=True)
