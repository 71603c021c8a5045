"""A plugin with one small part of each kind, as users write them."""

from dataclasses import dataclass, replace
from math import log, pi

import torch
from pytorch_lightning import Callback
from torch import nn
from torch.nn.functional import avg_pool2d, interpolate

from genstack.checkpoints.exports.export import Export
from genstack.checkpoints.formats.format import Format, load_module, preprocessing
from genstack.compressor import Autoencoder, Decoder, Encoder, Network, Strided
from genstack.compressor.bottleneck import Quantized, Quantizer
from genstack.compressor.output import Output
from genstack.compressor.quantizers import FSQ
from genstack.conditions import Condition
from genstack.conditions.condition import check_dropout
from genstack.conditions.embedding import TableEmbedding
from genstack.conditions.modality import Modality
from genstack.data.source import PictureInfo, Source
from genstack.errors import UserError
from genstack.evaluation.extractor import Extractor
from genstack.evaluation.extractor import Features as Vectors
from genstack.inputs import ConditionInputs
from genstack.losses.adversarial import AdversarialLoss
from genstack.losses.discriminator import Discriminator
from genstack.losses.features import Features, ImageFeatures
from genstack.losses.perceptual import Perceptual
from genstack.losses.reconstruction import ReconstructionLoss
from genstack.losses.weight import check_weight
from genstack.model import Model
from genstack.prior import LatentPrior
from genstack.prior.exact import Exact
from genstack.prior.latent_prior import Standardization
from genstack.prior.logits import sample_from_logits, uniforms
from genstack.prior.normals import normals
from genstack.prior.order import FixedOrder
from genstack.prior.symbols import Categorical


class Flips(Quantizer):
    """The sign of each channel (arXiv:2310.05737).

    Args:
        dim: channels of the latents.
    """

    def __init__(self, dim: int = 4):
        super().__init__()
        self.dim, self.codebook_size = dim, 2**dim

    def forward(self, latents):
        latents = latents.float()
        bits = (latents > 0).long()
        powers = 2 ** torch.arange(self.dim, device=bits.device)
        signs = 2.0 * bits - 1
        codes = (bits * powers[:, None, None]).sum(1).flatten(1)
        return Quantized(signs + (latents - latents.detach()), codes=codes)

    def lookup(self, codes, layout):
        (grid,) = layout.split(codes)
        bits = grid // 2 ** torch.arange(self.dim, device=codes.device) % 2
        return 2.0 * bits.movedim(-1, 1) - 1


class Squares(Encoder):
    def __init__(self, channels, dim):
        super().__init__()
        self.dim, self.convolution = dim, nn.Conv2d(channels, dim, 4, 4)

    def forward(self, images):
        return self.convolution(images)


class Enlarged(Decoder):
    def __init__(self, channels, dim):
        super().__init__()
        self.dim, self.convolution = dim, nn.Conv2d(dim, channels, 3, padding=1)

    def forward(self, latents, image_size):
        return self.convolution(interpolate(latents, image_size))

    @property
    def last_layer(self):
        return self.convolution.weight


@dataclass(frozen=True)
class Quarter(Network):
    """One convolution on either side, for images of multiples of 4 pixels.

    Args:
        dim: channels of the latents.
    """

    dim: int = 6

    def encoder(self, channels):
        return Squares(channels, self.dim)

    def decoder(self, channels):
        return Enlarged(channels, self.dim)

    def grid(self, height, width):
        if height < 1 or width < 1 or height % 4 or width % 4:
            raise UserError(f"images of {height}x{width} do not fit; use multiples of 4")
        return height // 4, width // 4


@dataclass(frozen=True)
class Bounded(Output):
    """Images between -1 and 1, by tanh."""

    def width(self, channels):
        return channels

    def images(self, output):
        return output.tanh()


@dataclass(frozen=True)
class Charbonnier(ReconstructionLoss):
    """A smooth mean absolute error.

    Args:
        width: of the smooth part.
    """

    width: float = 0.01

    def __call__(self, reconstruction, images):
        return ((reconstruction.float() - images.float()).square() + self.width**2).sqrt().mean()


class Blurred(Perceptual):
    """Squared difference of averages over squares.

    Args:
        side: of a square, in pixels.
        weight: weight in the training loss.
    """

    def __init__(self, side: int = 4, weight: float = 0.5):
        check_weight(weight)
        self.side, self.weight = side, weight

    def check(self, channels, height, width):
        if min(height, width) < self.side:
            raise UserError(f"images of {height}x{width} are too small; use {self.side} or more")

    def to(self, device):
        return self

    def distances(self, reconstruction, images):
        difference = avg_pool2d(reconstruction.float() - images.float(), self.side)
        return difference.square().mean((1, 2, 3))


@dataclass(frozen=True)
class LeastSquares(AdversarialLoss):
    """Squared distance of logits from 1 and -1 (arXiv:1611.04076)."""

    def discriminator(self, real, fake):
        return ((real - 1).square().mean() + (fake + 1).square().mean()) / 2

    def generator(self, fake):
        return (fake - 1).square().mean()


class Colours(nn.Module):
    def forward(self, images):
        small = avg_pool2d(images, 4)
        pooled = small.mean((2, 3))
        return ImageFeatures([small], pooled, pooled)


@dataclass(frozen=True)
class AverageColours(Features):
    """Averages over squares of 4 pixels, as a network without weights."""

    widths = (3,)

    def grids(self, height, width):
        if min(height, width) < 4:
            raise UserError(f"images of {height}x{width} are too small; use 4 or more")
        return ((height // 4, width // 4),)

    def build(self):
        return Colours().eval()


@dataclass(frozen=True)
class Pixelwise(Discriminator):
    """Two layers that see one square each.

    Args:
        width: channels between them.
    """

    width: int = 16

    def build(self, channels):
        return nn.Sequential(nn.Conv2d(channels, self.width, 4, 4), nn.SiLU(), nn.Conv2d(self.width, 1, 1))

    def grid(self, height, width):
        if min(height, width) < 4:
            raise UserError(f"images of {height}x{width} are too small; use 4 or more")
        return height // 4, width // 4


class Grey(Source):
    """Grey squares, dark or light; `grey:NUMBER` is NUMBER of them."""

    class_names = ("dark", "light")

    def __init__(self, name):
        self.count = int(name.partition(":")[2] or 40)

    @classmethod
    def names(cls):
        return ("grey",)

    @classmethod
    def claims(cls, name):
        return name.partition(":")[0] == "grey"

    def __len__(self):
        return self.count

    def key(self, number):
        return str(number)

    def label(self, number):
        return int(number >= self.count / 2)

    def info(self, number):
        return PictureInfo(0, 0, "L")

    def caption(self, number):
        return "a grey square" if number % 2 else "a square"

    def image(self, number, preprocessing):
        image = torch.full((preprocessing.channels, 8, 8), number / self.count)
        return image * 255 if preprocessing.window else image


class MeanAndDeviation(Extractor):
    """Mean and deviation of each channel."""

    name, frechet, kid, score = "Means", "FD-Means", "KID-Means", ""

    def __init__(self, device):
        self.device = device

    @property
    def metadata(self):
        return {"network": "mean and deviation of each channel"}

    def __call__(self, images):
        colour = images.expand(-1, 3, -1, -1) if images.shape[1] == 1 else images[:, :3]
        return Vectors(torch.cat([colour.mean((2, 3)), colour.std((2, 3))], 1).float().cpu(), None)


class StridedFSQ(Format):
    """A strided network with finite scalars, as `genstack.tests` writes it."""

    what = "strided network of a test"
    required = ("one_of_each.levels", "encoder.downsamples.0.weight")

    def model(self, weights, options):
        levels = tuple(int(level) for level in weights.take("one_of_each.levels").tensor)
        names = [name for name in weights.tensors if name not in self.required[:1]]
        made = load_module(
            lambda: Autoencoder(3, Strided(8, 4, 1, 6), FSQ(levels)),
            {name: weights.take(name) for name in names},
        )
        return Model(made, preprocessing(made, options, (16, 16)))


class Listing(Export):
    """Names of tensors."""

    name, what = "names", "a list of the names of tensors"

    def write(self, model, folder, batch):
        (folder / "names.txt").write_text("\n".join(model.modules().state_dict()))

    def use(self, model, place, batch):
        return f"print(open('{place}/names.txt').read())"


class Sentences(Modality):
    kind = "captions"

    def __init__(self, dropout):
        self.dropout = dropout

    def read_prompts(self, prompts, count):
        if not prompts.captions:
            return self.unprompted(count, self.dropout)
        captions = tuple(prompts.captions[number % len(prompts.captions)] for number in range(count))
        return replace(ConditionInputs.nothing(count), captions=captions)

    def preview(self, held_out):
        return held_out

    def describe(self, inputs):
        return [{"caption": caption} for caption in inputs.captions] or [{}] * len(inputs)


@dataclass(frozen=True)
class WordCount(Condition):
    """Number of words of a caption, up to 7.

    Args:
        dropout: share of training samples without the condition.
    """

    dropout: float = 0.1
    length = 1

    def __post_init__(self):
        check_dropout(self.dropout)

    @property
    def modality(self):
        return Sentences(self.dropout)

    def fit(self, data):
        return replace(self)

    def encode(self, inputs):
        captions = inputs.captions or ("",) * len(inputs)
        counts = [min(len(caption.split()), 7) for caption in captions]
        return torch.tensor(counts, device=inputs.labels.device)

    def null(self, values):
        return torch.zeros_like(values)

    def embedding(self, width):
        return TableEmbedding(8, width)


class Places(Exact):
    """A table of logits for each place, moved by the condition.

    Args:
        layout: layout of the codes; set from the compressor.
        condition: condition of the prior; set from the data.
        width: of the condition's vectors.
    """

    def __init__(self, layout, condition, width: int = 16):
        super().__init__()
        self.layout, self.condition, self.width = layout, condition, width
        self.distribution = Categorical()
        self.table = nn.Parameter(torch.zeros(layout.length, layout.codebook_size))
        self.prefix, self.head = condition.embedding(width), nn.Linear(width, layout.codebook_size)
        nn.init.normal_(self.head.weight, std=0.1)

    def logits(self, codes, condition):
        return self.table + self.head(self.prefix(condition).mean(1))[:, None]

    def sample_codes(self, guidance, options, seeds, known):
        logits = self.logits(known.values, guidance.values)
        codes = [
            sample_from_logits(guidance.apply(place, 0.0), options, number)
            for place, number in zip(
                logits.unbind(1), uniforms(seeds, self.layout.length).unbind(1), strict=True
            )
        ]
        return torch.stack(codes, 1)


class Bell(LatentPrior):
    """A normal distribution around a mean that the condition gives.

    Args:
        layout: layout of the latents; set from the compressor.
        condition: condition of the prior; set from the data.
        width: of the condition's vectors.
    """

    unsupported = ("top_k", "top_p", "min_p", "solver")
    context = "earlier"  # known latents change no others

    def __init__(self, layout, condition, width: int = 16):
        super().__init__()
        self.layout, self.condition, self.width = layout, condition, width
        self.standardization = Standardization(layout.dim)
        self.prefix, self.head = condition.embedding(width), nn.Linear(width, layout.dim)

    def mean(self, condition):
        return self.head(self.prefix(condition).mean(1))[:, :, None, None]

    def held_out_loss(self, latents, condition):
        return (self.standardization(latents) - self.mean(condition)).square().mean((1, 2, 3))

    def loss(self, latents, condition):
        dropped = self.condition.drop(condition) if self.training else condition
        return self.held_out_loss(latents, dropped).mean()

    def nats(self, latents, condition):
        count = latents[0].numel()
        scale = self.standardization.deviation.log().sum() * self.layout.length
        return count * (self.held_out_loss(latents, condition) + log(2 * pi)) / 2 + scale

    def sample_values(self, guidance, options, seeds, known):
        means = guidance.apply(self.mean(guidance.values), 0.0)
        noise = options.temperature * normals(seeds, self.layout.shape).to(means.device)
        return self.standardization.restore(means + noise)


@dataclass(frozen=True)
class Backwards(FixedOrder):
    """The last code first."""

    def ranks(self, layout, noise):
        return -torch.arange(layout.length, device=noise.device).to(noise).expand_as(noise)


class StopAfter(Callback):
    """Stop after a number of batches.

    Args:
        batches: number of batches.
    """

    def __init__(self, batches: int = 3):
        self.batches, self.seen = batches, 0

    def state_dict(self):
        return {"seen": self.seen}

    def load_state_dict(self, state_dict):
        self.seen = state_dict["seen"]

    def on_train_batch_end(self, trainer, *_):
        self.seen += 1
        trainer.should_stop = trainer.should_stop or self.seen >= self.batches
