"""A classifier as a program of torch.export or ONNX: from images in [-1, 1] to logits, or probabilities."""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.functional import interpolate

from genstack.errors import UserError, extra
from genstack.evaluation.classifier import Classifier


@dataclass(frozen=True)
class Runner:
    """A program that is ready to run.

    Args:
        run: from images to logits.
        shape: of the images that it takes: batch, channels, height, width; None for any.
    """

    run: Callable[[Tensor], Tensor]
    shape: tuple[int | None, ...]


def torch_export(path: Path, device: torch.device | str) -> Runner:
    """A program of torch.export."""
    program = torch.export.load(path)
    inputs = set(program.graph_signature.user_inputs)
    image = next(node for node in program.graph.nodes if node.op == "placeholder" and node.name in inputs)
    module = program.module().to(device)
    shape = tuple(side if isinstance(side, int) else None for side in image.meta["val"].shape)
    return Runner(lambda images: module(images.to(device)).cpu(), shape)


def onnx(path: Path, device: torch.device | str) -> Runner:
    """A program of ONNX, on the CPU."""
    with extra("onnx", f"{path} needs onnxruntime"):
        import onnxruntime
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    image = session.get_inputs()[0]
    shape = tuple(side if isinstance(side, int) else None for side in image.shape)
    return Runner(lambda images: torch.from_numpy(session.run(None, {image.name: images.numpy()})[0]), shape)


#: How to run a file, by the ending of its name.
RUNNERS = {".pt2": torch_export, ".onnx": onnx}


class Program(Classifier):
    """A trained network in a file.

    Classes have their names from a text file beside it, one a line, whose name ends in `.txt` instead.

    Args:
        path: of the file.
        classes: their names where no such file lies there.
        device: that it runs on, if it can.
    """

    def __init__(self, path: Path, classes: Sequence[str], device: torch.device | str):
        self.path = path
        with path.open("rb") as file:
            self.sha256 = hashlib.file_digest(file, "sha256").hexdigest()
        try:
            self.runner = RUNNERS[path.suffix](path, device)
        except UserError:
            raise
        except Exception as error:  # what damaged files raise, other libraries decide
            raise UserError(
                f"classifier {path} cannot be read: {' '.join(str(error).split())[:200]}"
            ) from error
        if len(self.runner.shape) != 4:
            raise UserError(f"classifier {path} takes {len(self.runner.shape)} axes; it should take b c h w")
        names = path.with_suffix(".txt")
        if names.is_file():
            classes = [
                line.strip() for line in names.read_text(encoding="utf-8").splitlines() if line.strip()
            ]
        self.classes = tuple(classes)
        if not self.classes:
            raise UserError(
                f"classifier {path} does not name its classes; write them into {names}, one a line"
            )

    @property
    def told(self) -> dict[str, Any]:
        return {
            "file": str(self.path),
            "sha256": self.sha256,
            "classes": list(self.classes),
            "resize": "bilinear with antialiasing, to the size that it takes",
        }

    @torch.no_grad()
    def __call__(self, images: Float[Tensor, "b c H W"]) -> Int[Tensor, " b"]:
        batch, channels, height, width = self.runner.shape
        if channels is not None and images.shape[1] != channels:
            if channels != 3 or images.shape[1] != 1:
                raise UserError(
                    f"classifier {self.path} reads {channels} channels, and images have {images.shape[1]}"
                )
            images = images.expand(-1, 3, -1, -1)
        size = (height or images.shape[2], width or images.shape[3])
        if size != tuple(images.shape[2:]):
            images = interpolate(images, size, mode="bilinear", antialias=True)
        logits = torch.cat([self.logits(part) for part in images.float().split(batch or len(images))])
        if logits.ndim != 2 or logits.shape[1] != len(self.classes):
            raise UserError(
                f"classifier {self.path} gives {tuple(logits.shape)}, where {len(self.classes)} classes an "
                f"image are asked for; {self.path.with_suffix('.txt')} can name its own, one a line"
            )
        return logits.argmax(1)

    def logits(self, images: Float[Tensor, "b c H W"]) -> Tensor:
        """Those of images in one go, as many as the program takes."""
        missing = (self.runner.shape[0] or len(images)) - len(images)
        filled = torch.cat([images, images[:1].expand(missing, -1, -1, -1)])
        return self.runner.run(filled.contiguous())[: len(images)]
