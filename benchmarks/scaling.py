"""Time of a VQ-VAE training step against codes, resolution and width; prints a table.

    python benchmarks/scaling.py

Seconds of the processor, not of the clock, of forward and backward pass of one image on one thread;
the settings alternate, medians of two rounds. The settings around which one is varied: 1,024 codes, 64 px,
width 32, the network of configs/compressor/vqgan.yaml.
"""

import time
from statistics import median

import torch

from genstack.compressor import Autoencoder
from genstack.compressor.networks.convolutional import Convolutional
from genstack.compressor.quantizers.vq import VectorQuantizer

BATCH, ROUNDS = 1, 2
SETTINGS = [(1024, 64, 32), (256, 64, 32), (4096, 64, 32), (16384, 64, 32)]
SETTINGS += [(1024, 32, 32), (1024, 128, 32), (1024, 64, 16), (1024, 64, 64)]


def main() -> None:
    """One line for each setting."""
    torch.set_num_threads(1)
    compressors = {(codes, width): made(codes, width) for codes, _, width in SETTINGS}
    taken: dict[tuple[int, int, int], list[float]] = {setting: [] for setting in SETTINGS}
    for round_ in range(1 + ROUNDS):
        for codes, side, width in SETTINGS:
            images = torch.rand(BATCH, 3, side, side) * 2 - 1
            begun = time.process_time()
            reconstruction = compressors[codes, width](images)
            loss = (reconstruction.images - images).abs().mean()
            (loss + torch.stack(list(reconstruction.losses.values())).sum()).backward()
            if round_:  # the first one warms up
                taken[codes, side, width].append(time.process_time() - begun)
    base = median(taken[SETTINGS[0]])
    print("| codes | side | width | M weights | s a step | of the first |\n|---|---|---|---|---|---|")
    for (codes, side, width), times in taken.items():
        weights = sum(weight.numel() for weight in compressors[codes, width].parameters()) / 1e6
        share = median(times) / base
        print(f"| {codes} | {side} | {width} | {weights:.1f} | {median(times):.2f} | {share:.2f} |")


def made(codes: int, width: int) -> Autoencoder:
    """A compressor of this size."""
    torch.manual_seed(0)
    network = Convolutional(width=width, multipliers=(1, 1, 2, 4), attention=(3,))
    return Autoencoder(3, network, VectorQuantizer(codes, codebook_init=None))


if __name__ == "__main__":
    main()
