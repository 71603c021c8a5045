"""Number of threads of a training on the CPU, chosen by timing a few of its steps."""

import copy
import os
import statistics

import torch

from genstack.training.estimate import Estimate
from genstack.training.run import Run, Schedule
from genstack.training.training import Training

TOLERANCE = 1.05  # fewer threads may take this much longer, as they leave cores to other programs
ROUNDS = 3


def set_threads(training: Training, schedule: Schedule, run: Run) -> str:
    """Set the number of threads, and return a note for the first line of the training.

    A run keeps its number of threads, because sums depend on it. `trainer.threads` and OMP_NUM_THREADS
    override the measurement. Accelerators and several processes use torch's default.
    """
    accelerated = schedule.accelerator != "cpu" and torch.accelerator.is_available()
    if schedule.threads is None and (accelerated or schedule.processes > 1):
        return ""
    saved = run.checkpoint_content()
    if schedule.threads is not None:
        threads, reason = schedule.threads, "trainer.threads"
    elif os.environ.get("OMP_NUM_THREADS"):
        threads, reason = torch.get_num_threads(), "OMP_NUM_THREADS"
    elif saved is not None and saved["threads"]:
        threads, reason = saved["threads"], "as before"
    else:
        threads, reason = fastest(training, schedule, torch.get_num_threads()), "measured"
    torch.set_num_threads(threads)
    return f"{threads} thread{'s' * (threads > 1)} ({reason})"


def fastest(training: Training, schedule: Schedule, most: int) -> int:
    """Return the fewest threads, of 1, 2, 4, ... and `most`, that are about as fast as any."""
    candidates = sorted({min(2**power, most) for power in range(most.bit_length() + 1)})
    if len(candidates) == 1:
        return most
    seconds: dict[int, list[float]] = {threads: [] for threads in candidates}
    with torch.random.fork_rng(devices=[]):
        estimate = Estimate(copy.deepcopy(training), schedule)
        for _ in range(ROUNDS):  # interleaved, so that other programs slow all candidates equally
            for threads in candidates:
                torch.set_num_threads(threads)
                seconds[threads].append(estimate.steps(2, estimate.micro_batch)[1])
    medians = {threads: statistics.median(times) for threads, times in seconds.items()}
    return min(threads for threads in candidates if medians[threads] <= TOLERANCE * min(medians.values()))
