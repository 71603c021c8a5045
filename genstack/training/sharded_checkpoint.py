"""Checkpoints of weights that are cut among processes: a folder in which each process writes its own parts.

Tensors lie in safetensors files, of which `torch.distributed.checkpoint` reads what each of any number of
processes needs; everything else in one more file, which is read without running anything.
A folder appears by renaming. Its number is one more than that of the one before, which then goes.

After an error processes can no longer rely on each other. Each then writes what it has by itself, and leaves;
whoever finds that the parts of all are there lets the folder appear. Parts of another step lie elsewhere.
"""

import json
import os
import re
import secrets
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
import torch.distributed.checkpoint as dcp
from pytorch_lightning.strategies import ModelParallelStrategy
from safetensors.torch import save_file
from torch import Tensor, distributed, nn
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.metadata import TensorStorageMetadata
from torch.distributed.tensor import DTensor
from torch.optim import Optimizer

from genstack.atomic import flush_folder, replacing
from genstack.errors import UserError

REST = "rest.ckpt"
FORMAT_VERSION = 1


class Sharded(ModelParallelStrategy):
    """Lightning's strategy for models that are cut, with checkpoints that are there whole or not at all.

    Args:
        processes: how many train together.
    """

    def __init__(self, processes: int):
        super().__init__(data_parallel_size=processes, tensor_parallel_size=1)

    def setup(self, trainer: pl.Trainer) -> None:
        super().setup(trainer)
        # While a layer computes, or after an error in it, the model does not name its parts but the whole
        self.parameters = dict(self.training.named_parameters())
        self.attempt = self.broadcast(secrets.token_hex(4))

    def lightning_module_state_dict(self) -> dict[str, Any]:
        return {}  # `save_checkpoint` looks at the tensors where they are

    def optimizer_state(self, optimizer: Optimizer) -> dict[str, Any]:
        return {}

    def save_checkpoint(self, checkpoint: dict[str, Any], filepath: Any, storage_options: Any = None) -> None:
        """Write a folder beside `filepath`, all processes together.

        Raises:
            OSError: one of them cannot write; what was saved before is whole.
        """
        place = Path(filepath)
        partial = Path(self.together(lambda: str(begin(place))))
        tensors, groups = self.learned()
        failure = None
        try:
            write_part(partial, self.global_rank, tensors)
        except OSError as error:
            failure = str(error)
        failures: list[str | None] = [None] * self.world_size
        distributed.all_gather_object(failures, failure)
        reason = next(filter(None, failures), None)
        if reason is not None:  # each process hears of the failures of all
            self.together(lambda: shutil.rmtree(partial, ignore_errors=True))
            raise OSError(f"{reason}; what was saved before is whole")
        self.together(lambda: finish(partial, place, rest_of(checkpoint, groups)))

    def leave_part(self, checkpoint: dict[str, Any], filepath: Any) -> None:
        """Write what this process has for a folder beside `filepath`, and wait for no other one.

        The last one to do so after the same step lets the folder appear.
        """
        place = Path(filepath)
        target = following(place)
        partial = hidden(target, f"{self.attempt}-{checkpoint['global_step']}")
        tensors, groups = self.learned()
        try:
            write_part(partial, self.global_rank, tensors)
        except OSError:  # nobody will make it whole
            shutil.rmtree(partial, ignore_errors=True)
            raise
        if len(list(partial.glob("shard-*"))) == self.world_size:
            mine = hidden(target, f"{self.attempt}-{self.global_rank}")
            try:
                partial.replace(mine)
            except FileNotFoundError:  # another one has seen it, too
                return
            finish(mine, place, rest_of(checkpoint, groups))

    def learned(self) -> tuple[dict[str, Tensor], list[dict[str, Any]]]:
        """All tensors of the training and its optimizer by name, and the groups of the latter."""
        optimizer = self.optimizers[0]
        names = {id(parameter): name for name, parameter in self.parameters.items()}
        weights = self.training.state_dict() | self.parameters
        tensors = {f"weights.{name}": tensor.detach() for name, tensor in weights.items()}
        for parameter, state in optimizer.state.items():
            tensors |= {f"optimizer.{names[id(parameter)]}:{key}": value for key, value in state.items()}
        groups = [
            {**group, "params": [names[id(parameter)] for parameter in group["params"]]}
            for group in optimizer.param_groups
        ]
        return tensors, groups

    def load_checkpoint(self, checkpoint_path: Any, weights_only: bool | None = None) -> dict[str, Any]:
        """Fill the model and its optimizer from a folder, whatever number of processes wrote it."""
        folder = Path(checkpoint_path)
        rest = read_rest(folder)
        reader = dcp.HuggingFaceStorageReader(path=str(folder))
        there = {
            name: tensor.size
            for name, tensor in reader.read_metadata().state_dict_metadata.items()
            if isinstance(tensor, TensorStorageMetadata)
        }
        tensors = to_fill(self.training, self.optimizers[0], rest["groups"], there)
        try:
            dcp.load(tensors, storage_reader=reader)
        except CheckpointException as error:
            reason = " ".join(str(next(iter(error.failures.values()))[0]).split())[:200]
            raise UserError(f"{folder} does not fit this run, or is damaged: {reason}") from error
        return rest

    @property
    def training(self) -> nn.Module:
        assert self.lightning_module is not None
        return self.lightning_module

    def together(self, act: Any) -> Any:
        """What the first process gets by doing something, in all; they fail together, too.

        Raises:
            OSError: the first process could not.
        """
        done, failure = None, None
        if self.is_global_zero:
            try:
                done = act()
            except OSError as error:
                failure = str(error)
        done, failure = self.broadcast((done, failure))
        if failure is not None:
            raise OSError(f"{failure}; what was saved before is whole")
        return done


def newest(place: Path) -> Path | None:
    """The latest folder of those that stand for a file, `last-00000007.ckpt` for `last.ckpt`."""
    found = sorted(numbered(place), reverse=True)
    return next((path for _, path in found if (path / REST).is_file()), None)


def numbered(place: Path) -> list[tuple[int, Path]]:
    """Folders of checkpoints, with their numbers."""
    names = re.compile(rf"{re.escape(place.stem)}-(\d+){re.escape(place.suffix)}")
    found = [
        (names.fullmatch(path.name), path) for path in place.parent.glob(f"{place.stem}-*{place.suffix}")
    ]
    return [(int(match[1]), path) for match, path in found if match]


def following(place: Path) -> Path:
    """The folder after those that stand for a file."""
    number = 1 + max((number for number, _ in numbered(place)), default=0)
    return place.with_name(f"{place.stem}-{number:08d}{place.suffix}")


def hidden(target: Path, mark: str) -> Path:
    """Where a folder is written, beside its place; `mark` keeps different attempts apart."""
    return target.with_name(f".{target.name}.{mark}.writing")


def begin(place: Path) -> Path:
    """A folder to write to, hidden beside its place."""
    partial = hidden(following(place), "all")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    return partial


def rest_of(checkpoint: Mapping[str, Any], groups: list[dict[str, Any]]) -> dict[str, Any]:
    """All of a checkpoint but its tensors."""
    empty = ("state_dict", "optimizer_states")
    return {key: value for key, value in checkpoint.items() if key not in empty} | {"groups": groups}


def write_part(partial: Path, rank: int, tensors: Mapping[str, Tensor]) -> None:
    """Write what one process has of all tensors, as torch's reader of parts expects it.

    What every process has whole is written by the first one. Torch's own writer would hold all of it twice
    more in memory.
    """
    parts, places = {}, {}
    for name, tensor in tensors.items():
        if isinstance(tensor, DTensor):
            local = tensor.to_local()
            offsets = [list(chunk.offsets) for chunk in tensor.__create_chunk_list__()]
        else:
            local, offsets = tensor, [[0] * tensor.ndim]
        if local.numel() and (rank == 0 or isinstance(tensor, DTensor)):
            parts[name] = local.detach().cpu().contiguous()
            places[name] = {"saved_offsets": offsets[0]}
    described = {"format": "pt", "DCP_VERSION": "1.0", "DCP_SHARDING_INFO": json.dumps(places)}
    with replacing(partial / f"shard-{rank + 1:05d}-model-00001-of-00001.safetensors") as file:
        save_file(parts, file, metadata=described)


def finish(partial: Path, place: Path, rest: Mapping[str, Any]) -> None:
    """Let a folder appear, all of whose tensors are written; then drop those before it."""
    sizes = {path.name: path.stat().st_size for path in partial.iterdir()}
    with (partial / REST).open("wb") as file:
        torch.save({**rest, "files": sizes, "format_version": FORMAT_VERSION}, file)
    for path in partial.iterdir():
        with path.open("rb+") as file:
            os.fsync(file.fileno())
    flush_folder(partial)
    before = [path for _, path in numbered(place)]
    partial.replace(following(place))
    flush_folder(place.parent)
    for path in before:
        (path / REST).unlink(missing_ok=True)  # from here on it is none
        shutil.rmtree(path, ignore_errors=True)


def read_rest(folder: Path) -> dict[str, Any]:
    """All of a checkpoint but its tensors.

    Raises:
        UserError: it is of another kind or version, or a file is missing or cut off.
    """
    if not folder.is_dir():
        raise UserError(
            f"{folder} was saved by processes that each held the whole model; continue the run with "
            f"strategy auto or ddp"
        )
    rest: dict[str, Any] = torch.load(folder / REST, map_location="cpu", weights_only=True)
    version = rest.get("format_version")
    if version != FORMAT_VERSION:
        raise UserError(
            f"{folder} has format version {version}, this genstack reads {FORMAT_VERSION}; "
            f"continue the run with the genstack that it began with"
        )
    for name, size in rest["files"].items():
        path = folder / Path(name).name
        if not path.is_file() or path.stat().st_size != size:
            raise UserError(f"{path} is missing or cut off; copy all files of {folder.name} together")
    return rest


def to_fill(
    training: nn.Module, optimizer: Optimizer, groups: list[dict[str, Any]], there: Mapping[str, torch.Size]
) -> dict[str, Tensor]:
    """The tensors that a checkpoint with these groups and tensors is read into; the optimizer takes both.

    A parameter that has never moved has no state.
    """
    parameters = dict(training.named_parameters())
    tensors = {f"weights.{name}": tensor for name, tensor in training.state_dict().items()}
    optimizer.state.clear()
    for name, size in there.items():
        if name.startswith("optimizer."):
            owner, _, key = name.removeprefix("optimizer.").rpartition(":")
            if owner not in parameters:
                raise UserError(f"the checkpoint has a parameter {owner}, which this run has none of")
            parameter = parameters[owner]
            blank = torch.zeros(size) if key == "step" else torch.zeros_like(parameter)
            tensors[name] = optimizer.state[parameter][key] = blank
    for group, saved in zip(optimizer.param_groups, groups, strict=True):
        group |= {name: value for name, value in saved.items() if name != "params"}
    return tensors
