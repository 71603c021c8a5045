"""Time of a training step against the number of processes, over loopback; prints a table.

    python benchmarks/processes.py [COUNT ...]

A VQ-VAE (configs/compressor/vqvae.yaml) at 32 px, 4 images a step in each process, by gloo. The processor
time of a step is that of all threads of the first process, median of all steps but the first two; on a
machine with fewer free cores than processes the clock says little.
"""

import json
import os
import subprocess
import sys
import tempfile
import time
from itertools import pairwise
from pathlib import Path
from statistics import median

import pytorch_lightning as pl
import torch

ROOT = Path(__file__).parents[1]
STEPS, IMAGES = 8, 4
RECIPE = "--config configs/compressor/vqvae.yaml --data.source shapes:200 --data.resolution 32"
WORDS = f"{RECIPE} --trainer.accelerator cpu --trainer.max_steps {STEPS}"


class Clock(pl.Callback):
    """Seconds of the processor, and of the clock, at the end of each step."""

    def __init__(self) -> None:
        self.times: list[tuple[float, float]] = []

    def on_train_batch_end(self, *_: object) -> None:
        self.times.append((time.process_time(), time.monotonic()))


def work(count: int, strategy: str) -> None:
    """In each process: some steps; the first one tells."""
    from genstack.cli.parsing.stages import STAGES, build_training
    from genstack.cli.quiet import quiet
    from genstack.training.loggers import Logging
    from genstack.training.run import Run

    torch.set_num_threads(1)
    stage = STAGES["compressor"]
    words = (
        f"{WORDS} --data.batch_size {IMAGES * count} --trainer.devices {count} --trainer.strategy {strategy}"
    )
    parts, training = build_training(stage, stage.parse(words.split()), Run(Path()))
    clock = Clock()
    with tempfile.TemporaryDirectory() as folder:
        trainer = parts.trainer.trainer(Path(folder), [clock], Logging(images=0))
        trainer.limit_val_batches = 0
        with quiet():
            trainer.fit(training)
    weights = sum(parameter.numel() for parameter in training.model.parameters())
    each = (
        [after - before for before, after in pairwise(times)][1:] for times in zip(*clock.times, strict=True)
    )
    if trainer.is_global_zero:
        print(json.dumps([*map(median, each), weights]))


def measured(count: int, strategy: str) -> list[float]:
    """Processor time and clock of a step, and weights."""
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(count)]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo", "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [*launch, __file__, "work", str(count), strategy],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise SystemExit(done.stderr[-3000:])
    return json.loads(done.stdout.splitlines()[-1])


def main() -> None:
    """A line for each number of processes and strategy."""
    if sys.argv[1:2] == ["work"]:
        work(int(sys.argv[2]), sys.argv[3])
        return
    counts = [int(word) for word in sys.argv[1:]] or [1, 2]
    print("| processes | strategy | s of a processor | of one process | s by the clock | MB of gradients |")
    print("|---|---|---|---|---|---|")
    alone = None
    for count in counts:
        for strategy in ("auto",) if count == 1 else ("ddp", "fsdp"):
            processor, clock, weights = measured(count, strategy)
            alone = alone or processor
            share, size = processor / alone, 4 * weights / 1e6
            print(
                f"| {count} | {strategy} | {processor:.2f} | {share:.2f} | {clock:.2f} | {size:.1f} |",
                flush=True,
            )


if __name__ == "__main__":
    main()
