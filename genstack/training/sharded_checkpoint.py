"""Checkpoints of sharded weights, by torch.distributed.checkpoint: a folder that is renamed when complete.

Each process writes its tensors to a safetensors file; any number of processes can read them. Everything else
is in a file that is read with `weights_only`. No pickle in the folder can run code.
"""

import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
import torch.distributed.checkpoint as dcp
from pytorch_lightning.strategies import ModelParallelStrategy
from safetensors import SafetensorError
from torch import Tensor
from torch.distributed.checkpoint.api import CheckpointException
from torch.optim import Optimizer

from genstack.atomic import flush_folder
from genstack.errors import UserError
from genstack.training.training import Training

REST = "rest.ckpt"
FORMAT_VERSION = 2


class ShardedStrategy(ModelParallelStrategy):
    """Lightning's strategy for sharded models, with atomic checkpoints.

    Args:
        processes: number of training processes.
    """

    def __init__(self, processes: int):
        super().__init__(data_parallel_size=processes, tensor_parallel_size=1)

    def lightning_module_state_dict(self) -> dict[str, Any]:
        return {}  # `save_checkpoint` reads the shards in place

    def optimizer_state(self, optimizer: Optimizer) -> dict[str, Any]:
        return {}

    def save_checkpoint(self, checkpoint: dict[str, Any], filepath: Any, storage_options: Any = None) -> None:
        """Write the folder of this step beside `filepath`; all processes call it together.

        Raises:
            OSError: a process cannot write; the previous checkpoint stays.
        """
        place = Path(filepath)
        target = place.with_name(f"{place.stem}-{checkpoint['global_step']:08d}{place.suffix}")
        partial = target.with_name(f".{target.name}.writing")
        failure = None
        try:
            writer = dcp.HuggingFaceStorageWriter(str(partial), save_distributed=True)
            dcp.save(self.tensors(), storage_writer=writer)
            if self.is_global_zero:
                publish(partial, target, checkpoint)
        except (OSError, CheckpointException) as error:
            failure = " ".join(str(reason(error)).split())
        failure = self.broadcast(failure)
        if failure is not None:
            shutil.rmtree(partial, ignore_errors=True)
            raise OSError(f"{failure}; the previous checkpoint is kept")

    def load_checkpoint(self, checkpoint_path: Any, weights_only: bool | None = None) -> dict[str, Any]:
        """Load model and optimizer from a folder that any number of processes wrote."""
        folder = Path(checkpoint_path)
        rest = read_rest(folder)
        try:
            reader = dcp.HuggingFaceStorageReader(str(folder))
            stored = reader.read_metadata().state_dict_metadata
            tensors = self.tensors(stored)
            dcp.load(tensors, storage_reader=reader)
        except (CheckpointException, SafetensorError) as error:
            raise self.training.mismatch(str(reason(error))) from error
        if unknown := sorted(stored.keys() - tensors.keys()):
            raise self.training.mismatch(f"unexpected {unknown[0]}")
        return rest

    @property
    def training(self) -> Training[Any]:
        assert isinstance(self.lightning_module, Training)
        return self.lightning_module

    def tensors(self, stored: Mapping[str, Any] | None = None) -> dict[str, Tensor]:
        """Collect the tensors of model and optimizer by name.

        Args:
            stored: metadata of a checkpoint's tensors; the optimizer allocates state to load them into.
        """
        weights = self.training.state_dict()  # first, since it reshards gathered weights
        state, parameters = self.optimizers[0].state, dict(self.training.named_parameters())
        if stored is not None:
            state.clear()
            for name, metadata in stored.items():
                owner, _, key = name.removeprefix("optimizer.").partition(":")
                if owner in parameters and key:
                    parameter = parameters[owner]
                    blank = torch.zeros(metadata.size) if key == "step" else torch.zeros_like(parameter)
                    state[parameter][key] = blank
        tensors = {f"weights.{name}": tensor.detach() for name, tensor in weights.items()}
        for name, parameter in parameters.items():
            for key, value in state.get(parameter, {}).items():
                tensors[f"optimizer.{name}:{key}"] = value
        return tensors


def reason(error: BaseException) -> BaseException:
    """Return the first process's failure behind an error of torch.distributed.checkpoint."""
    return next(iter(error.failures.values()))[0] if isinstance(error, CheckpointException) else error


def publish(partial: Path, target: Path, checkpoint: Mapping[str, Any]) -> None:
    """Add everything but the tensors, rename the folder, and remove older ones."""
    shards = {path.name: path.stat().st_size for path in partial.iterdir()}
    rest = {key: checkpoint[key] for key in checkpoint.keys() - {"state_dict", "optimizer_states"}}
    with (partial / REST).open("wb") as file:
        torch.save({**rest, "shards": shards, "format_version": FORMAT_VERSION}, file)
        file.flush()
        os.fsync(file.fileno())
    flush_folder(partial)
    partial.replace(target)
    flush_folder(target.parent)
    for path in target.parent.glob("last-*.ckpt"):
        if path != target:
            (path / REST).unlink(missing_ok=True)  # a partly removed folder is not a checkpoint
            shutil.rmtree(path, ignore_errors=True)


def newest(folder: Path) -> Path | None:
    """Find the complete checkpoint of the latest step; None without one."""
    return max((path.parent for path in folder.glob(f"last-*.ckpt/{REST}")), default=None)


def read_rest(folder: Path) -> dict[str, Any]:
    """Read everything in a checkpoint but its tensors.

    Raises:
        UserError: the checkpoint has another kind or version, or a file is missing or truncated.
    """
    if not folder.is_dir():
        raise UserError(
            f"{folder} is a checkpoint of whole weights; continue the run with strategy auto or ddp"
        )
    rest: dict[str, Any] = torch.load(folder / REST, map_location="cpu", weights_only=True)
    version = rest.get("format_version")
    if version != FORMAT_VERSION:
        raise UserError(
            f"{folder} has format version {version}, this genstack reads {FORMAT_VERSION}; "
            f"continue the run with the genstack that it began with"
        )
    for name, size in rest["shards"].items():
        path = folder / Path(name).name
        if not path.is_file() or path.stat().st_size != size:
            raise UserError(f"{path} is missing or truncated; copy all files of {folder.name} together")
    return rest
