"""Time and memory of a training step against the size of the codebook, for each kind of symbols.

    OMP_NUM_THREADS=1 python benchmarks/symbols.py

One transformer (4 layers, 128 wide) over 64 codes, batches of 8, float32; steps of all kinds take turns.
"""

import gc
import time
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
        (Softmax(), (10, 14, 16)),
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


def main() -> None:
    torch.set_num_threads(1)
    cases = [Case(symbols, bits) for symbols, bits in CASES]
    gc.disable()
    for _ in range(ROUNDS + 1):
        for case in cases:
            case.step()
    smallest = median(cases[0].times[1:])
    print("| symbols | codebook | weights | time of a step |\n|---|---|---|---|")
    for (symbols, bits), case in zip(CASES, cases, strict=True):
        ratio = median(case.times[1:]) / smallest
        print(f"| `{type(symbols).__name__}` | 2^{bits} | {case.weights / 1e6:.2f} M | {ratio:.2f} |")


if __name__ == "__main__":
    main()
