"""Train both stages on built-in coloured shapes, sample and evaluate, in a few minutes.

genstack demo
"""

from pathlib import Path

import PIL.Image
import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor

import genstack
from genstack.checkpoints.model_file import load
from genstack.cli.parsing.paths import Place
from genstack.cli.parsing.stages import run_data
from genstack.cli.verbs import train
from genstack.data import Batch
from genstack.data.images import write
from genstack.data.oracle import ShapeOracle
from genstack.data.sheet import sheet
from genstack.dot_product_attention import BFLOAT16
from genstack.errors import UserError
from genstack.evaluation.metrics.neighbours import downsample, near_copies, nearest
from genstack.inputs import ConditionInputs
from genstack.losses.fidelity import psnr
from genstack.model import Model
from genstack.prior import SamplingOptions

RECIPES = Path("configs/demo")
BATCH = 160
SHOWN = 32  # samples on the sheet: one of each class
PAIRED = 16  # images beside their reconstructions, and samples beside their nearest training images
COLUMNS = 8
SHIPPED = "clipart"
NEXT = """
Look at {folder}/samples.png, {folder}/reconstructions.png and {folder}/nearest.png: trained just now.
{folder}/{shipped}.png is of the model in the package; more of it:
  genstack sample {shipped} --caption "a red apple" --out apples/

With a folder of your own images:
  genstack train compressor --config vqgan --data.source DIR --data.resolution 64 --name mine
  genstack train prior --compressor runs/mine --config autoregressive --name mine-prior
  genstack sample runs/mine-prior --count 64 --out samples/"""
CAPTIONS = (
    *("a red apple", "a green apple", "a purple apple", "a blue heart", "a turquoise heart", "a yellow star"),
    *("a red balloon", "an orange pumpkin", "a green tree", "a blue house", "a brown bear", "a pink flower"),
)


def demo(
    count: int = 320,
    seed: int = 0,
    temperature: float = 0.7,
    guidance: float = 2.0,
    runs: Place = "runs/demo",
) -> int | None:
    """Train both stages on the built-in coloured shapes, then sample and evaluate.

    Beside that, sample the model that comes with genstack, `clipart`, by captions.

    Args:
        count: number of samples.
        seed: seed of the samples.
        temperature: 1 as learned, below 1 safer, above 1 more varied.
        guidance: strength of classifier-free guidance towards the class; 1 for none.
        runs: folder of the demo's runs and sheets.
    """
    if count < 1:
        raise UserError(f"count must be at least 1, got {count}")
    folder = Path(runs)
    prior = ["prior", "--compressor", str(folder / "compressor"), "--trainer.precision", prior_precision()]
    for stage in (["compressor"], prior):
        recipe = ["--config", str(RECIPES / f"shapes_{stage[0]}.yaml"), "--name", stage[0], "--runs", runs]
        if stopped := train.run([*stage, *recipe]):
            return stopped
    model = load(folder / "prior")
    data = run_data(folder / "prior")
    labels = torch.arange(count) % len(model.classes)
    options = SamplingOptions(temperature=temperature, guidance=guidance)
    batches = torch.arange(count).split(BATCH)
    images = torch.cat(
        [model.sample(ConditionInputs(labels[batch]), options, seed, batch.tolist()) for batch in batches]
    )
    samples = Batch(images, labels, {})
    known, held_out = data.examples("training"), data.examples("validation")
    write_sheets(model, known, held_out, samples, folder)
    print(metrics(model, known, held_out, samples, folder))
    write(draw_captions(genstack.load(SHIPPED), seed), folder / f"{SHIPPED}.png")
    print(NEXT.format(folder=folder, shipped=SHIPPED))
    return None


def prior_precision() -> str:
    """Return bf16-mixed on processors with instructions for it, which saves a quarter of a step."""
    return "bf16-mixed" if BFLOAT16 and torch.cpu._is_avx512_bf16_supported() else "32-true"


def draw_captions(model: Model, seed: int) -> PIL.Image.Image:
    """Draw a sheet of samples by captions."""
    inputs = model.inputs(len(CAPTIONS), captions=CAPTIONS)
    images = model.sample(inputs, model.options(), seed, range(len(CAPTIONS)))
    return sheet(images, 6, CAPTIONS, "samples of the model in the package")


def write_sheets(model: Model, known: Batch, held_out: Batch, samples: Batch, folder: Path) -> None:
    """Write sheets of samples, of reconstructions, and of samples beside their nearest training images."""
    names = [model.classes[label] for label in samples.labels[:SHOWN]]
    originals, few = held_out.images[:PAIRED], samples.images[:PAIRED]
    pairs = interleave(originals, model.reconstruct(originals))
    closest = known.images[nearest(downsample(few), downsample(known.images))[1]]
    sheets = {
        "samples": sheet(samples.images[:SHOWN], COLUMNS, names, "samples, by requested class"),
        "reconstructions": sheet(pairs, COLUMNS, title="held out, reconstructed"),
        "nearest": sheet(interleave(few, closest), COLUMNS, title="sample, nearest training image"),
    }
    for name, picture in sheets.items():
        write(picture, folder / f"{name}.png")


def interleave(left: Float[Tensor, "b c H W"], right: Float[Tensor, "b c H W"]) -> Float[Tensor, "n c H W"]:
    """Interleave two batches: left, right, left, right."""
    return rearrange(torch.stack([left, right]), "side b c h w -> (b side) c h w")


def metrics(model: Model, known: Batch, held_out: Batch, samples: Batch, folder: Path) -> str:
    """Format metrics of reconstructions, codes and samples, one per line."""
    training, drawn, others = (downsample(each.images) for each in (known, samples, held_out))
    closeness = psnr(held_out.images, model.reconstruct(held_out.images)).mean()
    read, real = (oracle_accuracy(each) for each in (samples, held_out))
    copies = near_copies(drawn, training, others)
    layout = model.compressor.code_layout(model.preprocessing.height, model.preprocessing.width)
    codes, nats = load(folder / "compressor").metadata["measured"], model.metadata["measured"]
    return f"""
held-out PSNR        {closeness:.1f} dB
codebook usage       {codes["val/usage"]:.0%} of {layout.codebook_size} codes on held-out images
held-out nats/code   {nats["val/nats"]:.3f}, unigram {nats["val/unigram"]:.3f}, ln K {nats["val/uniform"]:.3f}
colour and shape     correct in {read:.1%} of {len(samples.images)} samples, in {real:.1%} of held-out images
near-copies          {copies:.1%} of samples; 5 % of held-out images by definition"""


def oracle_accuracy(batch: Batch) -> float:
    """Return the share of images in which the oracle reads the class of their label."""
    return float((ShapeOracle().labels(batch.images) == batch.labels).float().mean())
