"""A classifier exported by torch.export or ONNX: from images in [-1, 1] to logits or probabilities."""

import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.functional import interpolate

from genstack.errors import UserError, extra
from genstack.evaluation.classifier import Classifier

#: From images to logits.
Run = Callable[[Tensor], Tensor]
#: Batch, channels, height and width of the input; None where any size is accepted.
Shape = tuple[int | None, ...]


def torch_export(path: Path, device: torch.device | str) -> tuple[Run, Shape]:
    """Load a program of torch.export."""
    program = torch.export.load(path)
    inputs = set(program.graph_signature.user_inputs)
    image = next(node for node in program.graph.nodes if node.op == "placeholder" and node.name in inputs)
    module = program.module().to(device)
    shape = tuple(side if isinstance(side, int) else None for side in image.meta["val"].shape)
    return lambda images: module(images.to(device)).cpu(), shape


def onnx(path: Path, device: torch.device | str) -> tuple[Run, Shape]:
    """Load an ONNX program on the CPU."""
    with extra("onnx", f"{path} needs onnxruntime"):
        import onnxruntime
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    image = session.get_inputs()[0]
    shape = tuple(side if isinstance(side, int) else None for side in image.shape)
    return lambda images: torch.from_numpy(session.run(None, {image.name: images.numpy()})[0]), shape


#: Loaders by file suffix.
RUNNERS = {".pt2": torch_export, ".onnx": onnx}


class ExportedClassifier(Classifier):
    """A trained network in a file.

    A text file beside it, with the suffix `.txt` and one name per line, names its classes.

    Args:
        path: path of the file.
        classes: class names if there is no text file.
        device: device to run on; ONNX runs on the CPU.
    """

    def __init__(self, path: Path, classes: Sequence[str], device: torch.device | str):
        self.path = path
        with path.open("rb") as file:
            self.sha256 = hashlib.file_digest(file, "sha256").hexdigest()
        try:
            self.run, self.shape = RUNNERS[path.suffix](path, device)
        except UserError:
            raise
        except Exception as error:  # the loaders raise many types for damaged files
            raise UserError(f"cannot read classifier {path}: {' '.join(str(error).split())[:200]}") from error
        if len(self.shape) != 4:
            raise UserError(
                f"classifier {path} takes {len(self.shape)} axes, expected 4: batch, channels, height, width"
            )
        names = path.with_suffix(".txt")
        if names.is_file():
            lines = [line.strip() for line in names.read_text(encoding="utf-8").splitlines()]
            classes = [line for line in lines if line]
        self.classes = tuple(classes)
        if not self.classes:
            raise UserError(f"classifier {path} has no class names; write them to {names}, one per line")

    @property
    def metadata(self) -> dict[str, Any]:
        return {
            "file": str(self.path),
            "sha256": self.sha256,
            "classes": list(self.classes),
            "resize": "bilinear with antialiasing, to the network's input size",
        }

    @torch.no_grad()
    def __call__(self, images: Float[Tensor, "b c H W"]) -> Int[Tensor, " b"]:
        batch, channels, height, width = self.shape
        if channels is not None and images.shape[1] != channels:
            if channels != 3 or images.shape[1] != 1:
                raise UserError(
                    f"classifier {self.path} takes {channels} channels, but the images have {images.shape[1]}"
                )
            images = images.expand(-1, 3, -1, -1)
        size = (height or images.shape[2], width or images.shape[3])
        if size != tuple(images.shape[2:]):
            images = interpolate(images, size, mode="bilinear", antialias=True)
        logits = torch.cat([self.logits(part) for part in images.float().split(batch or len(images))])
        if logits.ndim != 2 or logits.shape[1] != len(self.classes):
            raise UserError(
                f"classifier {self.path} returns shape {tuple(logits.shape)}, expected {len(self.classes)} "
                f"classes per image; name its classes in {self.path.with_suffix('.txt')}, one per line"
            )
        return logits.argmax(1)

    def logits(self, images: Float[Tensor, "b c H W"]) -> Tensor:
        """Run the network, padding the batch to a fixed size if it has one."""
        missing = (self.shape[0] or len(images)) - len(images)
        padded = torch.cat([images, images[:1].expand(missing, -1, -1, -1)])
        return self.run(padded.contiguous())[: len(images)]
