"""Programs of torch.export, for torch without genstack."""

from pathlib import Path

import torch

from genstack import hub
from genstack.checkpoints.exports.export import Export
from genstack.checkpoints.exports.programs import programs
from genstack.model import Model


class TorchExport(Export):
    """One program each for encoder, decoder and a step of the prior."""

    name = "torch-export"
    what = "encoder.pt2, decoder.pt2 and, with a prior, prior.pt2, for torch.export.load"

    def write(self, model: Model, folder: Path, batch: int) -> None:
        for program in programs(model, batch):
            torch.export.save(program.exported(), folder / f"{program.name}.pt2")

    def use(self, model: Model, place: str, batch: int) -> str:
        root = "" if hub.is_hub_name(place) else f"{place}/"  # files of the hub are downloaded first
        between = "codes" if model.compressor.has_codes else "latents"
        images = f"float32 in [-1, 1], {batch} x {' x '.join(map(str, model.preprocessing.shape))}"
        return "\n".join(
            [
                "import torch",
                "",
                f'encoder = torch.export.load("{root}encoder.pt2").module()',
                f'decoder = torch.export.load("{root}decoder.pt2").module()',
                f"{between} = encoder(images)  # {images}",
                f"images = decoder({between})",
            ]
        )
