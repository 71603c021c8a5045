"""Export a model as a folder for genstack, diffusers, onnxruntime or torch, with a model card.

genstack export runs/flowers --to safetensors --out flowers-model --licence cc-by-4.0
"""

from pathlib import Path

from genstack import hub
from genstack.checkpoints import exporting
from genstack.checkpoints.model_file import load
from genstack.cli.parsing.paths import Place, Trained
from genstack.cli.parsing.words import unknown
from genstack.errors import UserError


def export(
    run: Trained = "",
    to: str = "safetensors",
    out: Place = "",
    licence: str = "",
    batch: int = 1,
    push: str = "",
    half: bool = False,
    list: bool = False,
) -> None:
    """Export a model as a folder that other programs can load; nothing is uploaded without --push.

    Args:
        run: run or published file.
        to: format: safetensors (the whole model, for genstack), diffusers, onnx or torch-export.
        out: new folder for the exported model.
        licence: licence identifier for the model card, such as cc-by-4.0.
        batch: batch size of exported onnx and torch-export programs.
        push: repository on the Hugging Face hub to upload the folder to, such as hf:user/name.
        half: store the weights of safetensors in half precision, in half the space; they are read as fp32.
        list: list the formats and exit.
    """
    kinds = exporting.exports()
    if list:
        print("\n".join(f"{name}\n    {kind.what}" for name, kind in kinds.items()))
        return
    if not run or not out:
        raise UserError("expected a run and a folder: genstack export RUN --to safetensors --out DIR")
    if to not in kinds:
        raise UserError(unknown("export format", to, kinds))
    if push:
        hub.repository(push)
    folder = Path(out)
    exporting.write(load(Path(run)), kinds[to], folder, push, licence, batch, half)
    print(f"{folder}: {exporting.list_files(folder)}")
    if push:
        print(f"{push}: {hub.push(folder, push)}")
