"""Time and memory of a training step against the size of the codebook, for each kind of symbols.

    OMP_NUM_THREADS=1 python benchmarks/symbols.py

One transformer (4 layers, 128 wide) over 64 codes, batches of 8, float32; steps of all kinds take turns.
Memory is the peak of two steps in a process of their own, above that before the prior is built (Linux only).
"""

import gc
import multiprocessing
import time
from pathlib import Path
from statistics import median

import torch

from genstack.conditions import Unconditional
from genstack.layout import CodeLayout
from genstack.prior import Autoregressive
from genstack.prior.masked_bits import MaskedBits
from genstack.prior.symbols import Bits, Softmax
from genstack.transformer import Backbone

ROUNDS = 7
CASES = [
    (symbols, bits)
    for symbols, sizes in (
        (Softmax(), (10, 12, 14, 16)),
        (Bits(), (10, 16, 32, 62)),
        (MaskedBits(), (10, 16, 32, 62)),
    )
    for bits in sizes
]


class Case:
    """A prior and its optimizer, with random codes."""

    def __init__(self, symbols, bits):
        layout = CodeLayout((64, 64), 2**bits, ((8, 8),))
        self.prior = Autoregressive(layout, Unconditional(), Backbone(128, 4, 4), symbols=symbols)
        self.optimizer = torch.optim.AdamW(self.prior.parameters())
        self.codes = torch.randint(2**bits, (8, 64))
        self.times: list[float] = []

    @property
    def weights(self) -> int:
        return sum(weight.numel() for weight in self.prior.parameters())

    def step(self) -> None:
        start = time.perf_counter()
        self.optimizer.zero_grad()
        self.prior.loss(self.codes, torch.zeros(8, dtype=torch.int64)).backward()
        self.optimizer.step()
        self.times.append(time.perf_counter() - start)


def peak_memory(case: tuple) -> float:
    """Peak memory of two steps, in MB; to be run in a process of its own."""
    torch.set_num_threads(1)
    status = Path("/proc/self/status")
    Path("/proc/self/clear_refs").write_text("5")  # resets the peak
    before = read_kilobytes(status.read_text(), "VmRSS")
    made = Case(*case)
    for _ in range(2):
        made.step()
    return (read_kilobytes(status.read_text(), "VmHWM") - before) / 1024


def read_kilobytes(status: str, name: str) -> int:
    """A number of /proc/self/status."""
    return int(next(line for line in status.splitlines() if line.startswith(f"{name}:")).split()[1])


def main() -> None:
    with multiprocessing.get_context("fork").Pool(1, maxtasksperchild=1) as pool:
        peaks = pool.map(peak_memory, CASES, chunksize=1)
    torch.set_num_threads(1)
    cases = [Case(symbols, bits) for symbols, bits in CASES]
    gc.disable()
    for _ in range(ROUNDS + 1):
        for case in cases:
            case.step()
    smallest = median(cases[0].times[1:])
    print("| symbols | codebook | weights | memory | time of a step |\n|---|---|---|---|---|")
    for (symbols, bits), case, peak in zip(CASES, cases, peaks, strict=True):
        name, ratio = type(symbols).__name__, median(case.times[1:]) / smallest
        print(f"| `{name}` | 2^{bits} | {case.weights / 1e6:.2f} M | {peak:.0f} MB | {ratio:.2f} |")


if __name__ == "__main__":
    main()
