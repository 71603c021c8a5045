"""The model file of a run, for genstack."""

from pathlib import Path

from genstack.checkpoints import model_file
from genstack.checkpoints.exports.export import Export
from genstack.model import Model


class Safetensors(Export):
    """The complete model, as in a run."""

    name = "safetensors"
    half = True
    what = "model.safetensors and model.json: the complete model, for genstack"

    def write(self, model: Model, folder: Path, batch: int) -> None:
        model_file.save(model, folder)

    def use(self, model: Model, place: str, batch: int) -> str:
        if model.prior is not None:
            lines = [
                "import genstack",
                "from genstack.prior import SamplingOptions",
                "",
                f'model = genstack.load("{place}")',
                "inputs = model.inputs(4)",
                "images = model.sample(inputs, SamplingOptions(), seed=0, indices=range(4))",
            ]
            return "\n".join(lines)
        lines = ["import genstack", "", f'model = genstack.load("{place}")']
        between = "codes" if model.compressor.has_codes else "latents"
        lines += [
            f'{between} = model.encode("picture.png")',
            f"(picture,) = model.decode({between})",
        ]
        return "\n".join(lines)
