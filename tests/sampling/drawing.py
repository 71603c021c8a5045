"""Draws by every prior with its networks as they are and compiled, in a process whose shapes are not checked.

The checks do not compile. Prints, as JSON, what each prior drew; `test_compiled.py` judges it.
"""

import json
import sys
from dataclasses import replace
from inspect import signature
from typing import Any

import torch
from torch import nn
from torch._dynamo.testing import CompileCounterWithBackend

import genstack.prior
from genstack.compressor import Autoencoder, Compressor, Strided
from genstack.compressor.gaussian import Gaussian
from genstack.compressor.hierarchical import HierarchicalAutoencoder
from genstack.compressor.quantizers import MultiScale, Residual, VectorQuantizer
from genstack.conditions import ClassLabels, Condition
from genstack.conditions.captions import Captions
from genstack.data.images import Preprocessing
from genstack.discovery import discover
from genstack.errors import UserError
from genstack.inputs import ConditionInputs, Prompts
from genstack.model import Model
from genstack.prior import Autoregressive, Prior, SamplingOptions
from genstack.sampling import Series
from genstack.sampling.compiled import compiled
from genstack.transformer import packed_linear

NETWORK = Strided(8, 4, 1, 4)
CLASSES = ("a", "b", "c")
#: Cases that are compiled again with other weights: steps with caches, whole passes, the decoder alone.
TWICE = {"Autoregressive", "Masked", "RandomOrder", "latents"}


def compressors() -> list[Compressor]:
    """One for each kind of layout."""
    return [
        Autoencoder(1, NETWORK, VectorQuantizer(11, 4)),
        HierarchicalAutoencoder(1, NETWORK, VectorQuantizer(11, 4), Strided(8, 2, 1, 4)),
        Autoencoder(1, NETWORK, Residual(2, 11, 4)),
        Autoencoder(1, NETWORK, MultiScale((1, 2, 4), 11, 4)),
        Autoencoder(1, NETWORK, Gaussian(4)),
    ]


def model(kind: type[Prior], condition: Condition, **changes: Any) -> Model:
    """A model with this kind of prior and random weights.

    Args:
        kind: of prior.
        condition: that steers it.
        changes: of the plan of its transformers.
    """
    arguments = signature(kind).parameters
    plans = {
        name: replace(arguments[name].default, width=24, depth=2, heads=3, dropout=0.0, **changes)
        for name in ("backbone", "finer")
        if name in arguments
    }
    for compressor in compressors():
        try:
            layout = compressor.layout(16, 16)
            made = Model(compressor, Preprocessing(1, 16, 16), CLASSES, kind(layout, condition, **plans))
        except UserError:
            continue
        for parameter in made.modules().parameters():
            nn.init.normal_(parameter, std=0.3)
        return made
    raise AssertionError(f"no compressor here suits {kind.__name__}")


def series(kind: type[Prior], condition: Condition, prompts: Prompts, **changes: Any) -> Series:
    """Six images, guided."""
    made = model(kind, condition, **changes)
    return Series(made, made.condition.modality.select(prompts, 6), SamplingOptions(guidance=1.5), seed=3)


def drawn(images: Series) -> torch.Tensor:
    """Two batches."""
    return torch.cat([images.images([0, 1, 2]), images.images([3, 4, 5])])


def main() -> None:
    """Print what is found."""
    torch.manual_seed(0)
    backend, *names = sys.argv[1:]
    packed_linear.LARGEST = 0  # compiled networks do not use packed weights, which round differently
    captions = Captions(vocabulary=256, length=7, depth=1, heads=3, dropout=0.2)
    kinds = discover(genstack.prior, Prior)
    cases = {name: series(kind, ClassLabels(CLASSES, 0.2), Prompts()) for name, kind in kinds.items()}
    cases["captions"] = series(Autoregressive, captions, Prompts(captions=("ab", "", "cdefg")))
    rar = {"adaln": "own", "adaln_steps": True, "registers": 1, "qk_norm": "layer"}
    cases["rar"] = series(kinds["RandomOrder"], ClassLabels(CLASSES, 0.2), Prompts(), **rar)
    steered = {"cross_attention": True, "adaln": "shared", "qk_norm": "unit", "positions": "learned"}
    cases["crossed"] = series(Autoregressive, captions, Prompts(captions=("ab", "", "cdefg")), **steered)
    cases["wide"] = replace(cases["Autoregressive"], size=(16, 24))
    cases["latents"] = Series(
        Model(Autoencoder(1, NETWORK, Gaussian(4)), Preprocessing(1, 16, 16)),
        ConditionInputs.nothing(6),
        seed=3,
    )
    found = {}
    for name, images in cases.items():
        if name not in (names or cases):
            continue
        plain, counter = drawn(images), CompileCounterWithBackend(backend)
        with compiled(images.model, counter):
            same = float((drawn(images) - plain).abs().max())
        found[name] = {"graphs": counter.frame_count, "off": same}
        if name in TWICE:
            found[name] |= with_other_weights(images, backend, plain)
    print(json.dumps(found))


@torch.no_grad()
def with_other_weights(images: Series, backend: str, plain: torch.Tensor) -> dict[str, float]:
    """Differences of images by changed weights: compiled again, not compiled, from those before."""
    for parameter in images.model.modules().parameters():
        parameter.mul_(0.5)
    later = drawn(images)
    with compiled(images.model, backend):
        again = float((drawn(images) - later).abs().max())
    after = float((drawn(images) - later).abs().max())
    return {"again": again, "after": after, "changed": float((later - plain).abs().max())}


if __name__ == "__main__":
    main()
