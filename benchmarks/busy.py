"""Time of common work beside other programs, over that on quiet cores.

    python benchmarks/busy.py [quantizer sampling loader demo] [--rounds 3]

Each work runs in processes of its own, with torch's default threads: on quiet cores, then beside one program
that keeps a core busy; quantizers also beside three. Aims: at most 2.2 times the time of quiet cores and 1.3
times its processor time; a quantizer is never slower than the full matrix of distances. All take ten
minutes on two quiet cores, most of it the demo. Other programs make the numbers worthless.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median

PROGRAM = [sys.executable, "-c", "while True: pass"]
#: Works by name of the table: words for `--alone`, and the numbers of other programs.
TABLES = {
    "quantizer": [
        (f"{name}, 2,048 latents, {rows:,} rows of 8", [name, str(rows)], (0, 1, 3))
        for rows in (16384, 1024)
        for name in ("genstack", "full matrix")
    ],
    "sampling": [("sampling 4 x 256 codes, 8 layers x 384", ["sampling"], (0, 1))],
    "loader": [
        (f"loader, 64 JPEG files of 256 px, {count} workers", ["loader", str(count)], (0, 1))
        for count in (0, 1)
    ],
    "demo": [("genstack demo", ["demo"], (0, 1))],
}


@contextmanager
def other_programs(count: int) -> Iterator[None]:
    """Keep as many programs busy."""
    programs = [subprocess.Popen(PROGRAM) for _ in range(count)]
    try:
        yield
    finally:
        for program in programs:
            program.kill()
            program.wait()


def measure_once(work: Callable[[], object]) -> tuple[float, float]:
    """Time and processor time of a work, child processes included; the latter in steps of 10 ms."""
    used, begun = os.times(), time.perf_counter()
    work()
    wall, now = time.perf_counter() - begun, os.times()
    return wall, sum(now[:4]) - sum(used[:4])


def measure(work: Callable[[], object], repeats: int) -> tuple[float, float]:
    """Medians of both times, after a first call."""
    work()
    wall, processor = zip(*(measure_once(work) for _ in range(repeats)), strict=True)
    return median(wall), median(processor)


def alone(words: list[str]) -> tuple[float, float]:
    """Measure a work in this process."""
    name, *numbers = words
    import torch

    if name == "sampling":
        import sampling

        from genstack.prior import SamplingOptions, image_seeds

        prior, condition = sampling.autoregressive(), torch.zeros(4, dtype=torch.int64)
        with torch.inference_mode():
            return measure(lambda: prior.sample(condition, SamplingOptions(), image_seeds(0, range(4))), 3)
    if name == "loader":
        import loader

        with tempfile.TemporaryDirectory() as folder:
            source, _ = loader.write(Path(folder), 64, 256)
            return measure(lambda: loader.loading(source, 256, int(numbers[0]), 4), 3)
    import quantizer_speed

    quantizer_speed.ROWS = int(numbers[0])
    step = quantizer_speed.steps(8)[name]
    return measure(lambda: [step() for _ in range(10)], 5)


def demo() -> tuple[float, float]:
    """Both times of `genstack demo`."""
    with tempfile.TemporaryDirectory() as folder:
        words = [sys.executable, "-m", "genstack.cli.main", "demo", "--runs", folder]
        return measure_once(lambda: subprocess.run(words, check=True, capture_output=True))


def process(words: list[str]) -> tuple[float, float]:
    """Measure a work in a process of its own; idle threads sleep, as the entry points set it."""
    if words == ["demo"]:
        return demo()
    environment = {"OMP_WAIT_POLICY": "passive", **os.environ}
    command = [sys.executable, __file__, "--alone", json.dumps(words)]
    done = subprocess.run(command, check=True, capture_output=True, text=True, env=environment)
    wall, processor = json.loads(done.stdout.splitlines()[-1])
    return wall, processor


def main() -> None:
    """Print a table for each kind of work."""
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("tables", nargs="*", default=list(TABLES))
    arguments.add_argument("--rounds", type=int, default=3)
    arguments.add_argument("--alone", help=argparse.SUPPRESS)
    given = arguments.parse_args()
    if given.alone:
        print(json.dumps(alone(json.loads(given.alone))))
        return
    print("| work | beside | time | over quiet | processor time | over quiet |\n|---|---|---|---|---|---|")
    for table in given.tables:
        rounds = 1 if table == "demo" else given.rounds
        for title, words, programs in TABLES[table]:
            times: dict[int, list[tuple[float, float]]] = {count: [] for count in programs}
            for _ in range(rounds):
                for count in programs:
                    with other_programs(count):
                        times[count].append(process(words))
            for count, each in times.items():
                wall, processor = (median(column) for column in zip(*each, strict=True))
                quiet = [median(column) for column in zip(*times[0], strict=True)]
                ratios = f"{wall / quiet[0]:.2f}", f"{processor / quiet[1]:.2f}"
                print(
                    f"| {title} | {count} | {wall:.3g} s | {ratios[0]} | {processor:.3g} s | {ratios[1]} |",
                    flush=True,
                )


if __name__ == "__main__":
    main()
