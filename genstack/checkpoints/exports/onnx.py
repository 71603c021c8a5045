"""ONNX programs, for onnxruntime and others."""

from pathlib import Path

import torch

from genstack import hub
from genstack.checkpoints.exports.export import Export
from genstack.checkpoints.exports.programs import Program, programs
from genstack.errors import extra
from genstack.model import Model


class ONNX(Export):
    """One program each for encoder, decoder and a step of the prior."""

    name = "onnx"
    what = "encoder.onnx, decoder.onnx and, with a prior, prior.onnx, for onnxruntime"

    def write(self, model: Model, folder: Path, batch: int) -> None:
        with extra("onnx", "onnx and onnxscript are not installed"):
            import onnxscript  # noqa: F401 (needed by torch.onnx)
        for program in programs(model, batch):
            save(program, folder / f"{program.name}.onnx")

    def use(self, model: Model, place: str, batch: int) -> str:
        root = "" if hub.is_hub_name(place) else f"{place}/"  # files of the hub are downloaded first
        between = "codes" if model.compressor.has_codes else "latents"
        images = f"float32 in [-1, 1], {batch} x {' x '.join(map(str, model.preprocessing.shape))}"
        return "\n".join(
            [
                "import onnxruntime",
                "",
                f'encoder = onnxruntime.InferenceSession("{root}encoder.onnx")',
                f'decoder = onnxruntime.InferenceSession("{root}decoder.onnx")',
                f'{between} = encoder.run(None, {{"images": images}})[0]  # {images}',
                f'images = decoder.run(None, {{"{between}": {between}}})[0]',
            ]
        )


def save(program: Program, path: Path) -> None:
    """Write a program as ONNX."""
    made = torch.onnx.export(
        program.exported(),
        input_names=list(program.inputs),
        output_names=[program.output],
        dynamo=True,
        verbose=False,
    )
    assert made is not None
    made.save(path)
