"""Laws notice faults: each part of `one_of_each.py` with one fault breaks the law about it."""

from dataclasses import dataclass
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from typing import ClassVar

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from genstack.compressor import Autoencoder, Strided
from genstack.compressor.quantizers import FSQ
from genstack.evaluation.extractor import Features
from genstack.losses.features import ImageFeatures
from genstack.testing import laws

spec = spec_from_file_location("parts_without_faults", Path(__file__).parent / "one_of_each.py")
parts = module_from_spec(spec)
spec.loader.exec_module(parts)


@dataclass(frozen=True)
class Normed(parts.Pixelwise):
    def build(self, channels):
        return nn.Sequential(nn.BatchNorm2d(channels), super().build(channels))


@dataclass(frozen=True)
class Swapped(parts.LeastSquares):
    def discriminator(self, real, fake):
        return super().discriminator(fake, real)


@dataclass(frozen=True)
class Summed(parts.Charbonnier):
    def __call__(self, reconstruction, images):
        return super().__call__(reconstruction, images) * len(images)


class Trained(parts.Blurred):
    def to(self, device):
        self.network = nn.Linear(1, 1)
        return self


@dataclass(frozen=True)
class Shifted(parts.AverageColours):
    def grids(self, height, width):
        return ((height // 4 + 1, width // 4),)


class Mixed(nn.Module):
    def forward(self, images):
        return ImageFeatures([images], images.mean((2, 3)), images.mean((0, 2, 3)).expand(len(images), -1))


@dataclass(frozen=True)
class Batched(parts.AverageColours):
    def grids(self, height, width):
        return ((height, width),)

    def build(self):
        return Mixed().eval()


class Noisy(parts.MeanAndDeviation):
    def __call__(self, images):
        return Features(torch.randn(len(images), 3), None)


class NamedLikeAnother(parts.MeanAndDeviation):
    frechet: ClassVar[str] = "FID"


class Lenient(parts.StridedFSQ):
    ignored = (".*",)

    def model(self, weights, options):
        weights.tensors.pop("an.unknown.key", None)
        return super().model(weights, options)


class Moody(parts.Bell):
    def sample_values(self, guidance, options, seeds, known):
        return super().sample_values(guidance, options, seeds, known) + torch.rand(1)


class Forgetful(parts.Bell):
    def mean(self, condition):
        return 0 * super().mean(condition)


@pytest.mark.parametrize(
    ("part", "law"),
    [
        (Normed, "images_do_not_affect_each_other"),
        (Swapped, "gradients_have_opposite_signs"),
        (Summed, "loss_of_a_batch_is_the_mean_over_images"),
        (Trained, "network_is_frozen_and_no_part_of_modules"),
        (Shifted, "maps_have_the_widths_and_grids"),
        (Batched, "images_do_not_affect_each_other"),
        (Noisy, "features_do_not_depend_on_the_batch"),
        (NamedLikeAnother, "metrics_have_names_of_their_own"),
        (Lenient, "unexpected_tensors_are_refused"),
        (Moody, "sampling_uses_no_global_generator"),
        (Forgetful, "gradients_reach_every_parameter"),
    ],
)
def test_fault_breaks_the_law(part, law, tmp_path):
    given = {}
    if part is Lenient:
        model = Autoencoder(3, Strided(8, 4, 1, 6), FSQ((5, 3)))
        given = {"file": tmp_path / "strided.safetensors"}
        save_file(model.state_dict() | {"one_of_each.levels": torch.tensor([5, 3])}, given["file"])
    for broken in (part, part.__mro__[1]):
        (one,) = [each for each in laws(broken, **given) if str(each) == law]
        assert bool(one.failure()) == (broken is part), one.failure()
