"""In each of several processes: train what a file of jobs says, with what is to go wrong in them."""

import json
import os
import signal
import sys
from pathlib import Path

import torch
from pytorch_lightning.utilities.rank_zero import rank_zero_only
from torch.distributed.tensor import DTensor


class PowerCut(BaseException):
    """Nothing catches it and nobody tidies up."""


def die_once(mark):
    """End this process as a power cut would, the first time it comes here."""
    if not Path(mark).exists():
        Path(mark).touch()
        os.kill(os.getpid(), signal.SIGKILL)


def fail_once(mark):
    """Run out of memory the first time that this process comes here."""
    if not Path(mark).exists():
        Path(mark).touch()
        raise MemoryError("too little memory")


def work(file):
    """Do the jobs, and save what was learned in each process."""
    from genstack.cli.main import main
    from genstack.training import sharded_checkpoint
    from genstack.training.run import Run
    from genstack.training.training import Training

    rank, train, step = os.environ["RANK"], Run.train, Training.training_step
    save, publish, written = sharded_checkpoint.dcp.save, sharded_checkpoint.publish, []
    rank_zero_only.rank = int(rank)  # Lightning reads it when it is imported, before there was a rank
    for job in json.loads(Path(file).read_text()):

        def trained(self, training, *arguments, job=job):
            train(self, training, *arguments)
            learned = training.state_dict().items()
            whole = {
                key: value.full_tensor() if isinstance(value, DTensor) else value for key, value in learned
            }
            torch.save(whole, f"{job['out']}.{rank}.pt")

        def stepped(self, batch, number, job=job):
            if job["cut"] == self.global_step:
                raise PowerCut
            loss = step(self, batch, number)
            if job["killed"] is not None and rank == "1" and self.global_step == 6:
                die_once(job["killed"])
            if job["failing"] is not None and rank == job["failing"][0] and self.global_step == 6:
                fail_once(job["failing"][1])
            if rank == "1" and job["spoilt"] == self.global_step:
                return loss * torch.nan
            return loss

        def wrote(*arguments, job=job, **options):
            save(*arguments, **options)
            written.append(1)
            if job["saving"] is not None and rank == job["saving"][0] == "1" and len(written) == 3:
                die_once(job["saving"][1])

        def finished(*arguments, job=job):
            if job["saving"] is not None and rank == job["saving"][0] == "0" and len(written) == 3:
                die_once(job["saving"][1])
            publish(*arguments)

        Run.train, Training.training_step = trained, stepped
        sharded_checkpoint.dcp.save, sharded_checkpoint.publish = wrote, finished
        try:
            assert main(["train", *job["words"]]) is None, job
        except PowerCut:
            assert job["cut"] is not None
    if torch.distributed.is_initialized():  # not where a restart finds that all is done
        torch.distributed.destroy_process_group()


if __name__ == "__main__":
    work(sys.argv[1])
