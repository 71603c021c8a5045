"""Hand a model on: as a folder for genstack, diffusers, onnxruntime or torch, with a card.

genstack export runs/flowers --to safetensors --out flowers-model --licence cc-by-4.0
"""

from pathlib import Path

from genstack import hub
from genstack.checkpoints import exporting
from genstack.checkpoints.model_file import load
from genstack.cli import verb
from genstack.cli.parsing.words import nearest
from genstack.errors import UserError


def run(arguments: list[str]) -> int | None:
    """Run `genstack export ...`."""
    return verb.call(export, "genstack export", arguments)


def export(
    run: str = "",
    to: str = "safetensors",
    out: str = "",
    licence: str = "",
    batch: int = 1,
    push: str = "",
    list: bool = False,
) -> None:
    """Hand a model on as a folder that others can load; nothing leaves this machine without --push.

    Args:
        run: run or published file.
        to: safetensors (all of the model, for genstack), diffusers, onnx or torch-export.
        out: folder that is made.
        licence: identifier for the card, such as cc-by-4.0; the card says that none was named if left out.
        batch: images at a time that programs of onnx and torch-export take.
        push: repository on the Hugging Face hub that the folder is sent to, like hf:user/name.
        list: show what can be written.
    """
    kinds = exporting.exports()
    if list:
        print("\n".join(f"{name}\n    {kind.what}" for name, kind in kinds.items()))
        return
    if not run or not out:
        raise UserError("name a run and a folder: genstack export RUN --to safetensors --out DIR")
    if to not in kinds:
        raise UserError(nearest(to, kinds, "kind of export"))
    if push:
        hub.repository(push)
    folder = Path(out)
    exporting.write(load(Path(run)), kinds[to], folder, push, licence, batch)
    print(f"{folder}: {exporting.contents(folder)}")
    if push:
        print(f"{push}: {hub.push(folder, push)}")
