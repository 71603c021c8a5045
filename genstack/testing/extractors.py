"""Laws of feature extractors."""

import json
from typing import Any

import torch
from torch import Tensor

import genstack.evaluation.extractors as package
from genstack.data.images import from_uint8
from genstack.discovery import classes_in
from genstack.evaluation.extractor import Extractor


def make(part: type[Extractor], **given: Any) -> Extractor:
    """Build the network on the CPU."""
    return part("cpu", **given)


def _images(count: int = 3, channels: int = 3) -> Tensor:
    return from_uint8(torch.randint(256, (count, 29, 37, channels), dtype=torch.uint8))


def metrics_have_names_of_their_own(extractor: Extractor) -> None:
    """Names are given, and no other network of genstack has them."""
    for name in ("name", "frechet", "kid", "score"):
        own = getattr(extractor, name)
        assert isinstance(own, str) and (own or name == "score"), f"{name} is empty"
        for other in classes_in(package, Extractor).values():  # type: ignore[type-abstract]
            same = other is not type(extractor) and own and own == getattr(other, name)
            assert not same, f"{other.__name__} has the {name} '{own}', too"


def vectors_are_float32_on_the_cpu(extractor: Extractor) -> None:
    """Each image has one finite vector."""
    vectors = extractor(_images()).vectors
    assert vectors.ndim == 2 and len(vectors) == 3
    assert vectors.dtype == torch.float32 and vectors.device.type == "cpu" and vectors.isfinite().all()
    assert not vectors.requires_grad and not torch.equal(vectors[0], vectors[1])


def features_do_not_depend_on_the_batch(extractor: Extractor) -> None:
    """An image has the same features alone, in a batch and a second time."""
    images = _images()
    together = extractor(images).vectors
    torch.testing.assert_close(extractor(images).vectors, together)
    alone = torch.cat([extractor(image).vectors for image in images.split(1)])
    torch.testing.assert_close(alone, together, rtol=1e-3, atol=1e-4)


def probabilities_sum_to_one(extractor: Extractor) -> None:
    """A network with a score has class probabilities, another one has none."""
    found = extractor(_images()).probabilities
    assert (found is not None) == bool(extractor.score)
    if found is not None:
        assert found.min() >= 0 and (found.double().sum(1) - 1).abs().max() < 1e-4


def images_have_one_three_or_four_channels(extractor: Extractor) -> None:
    """Grey images and those with transparency have features, too."""
    for channels in (1, 4):
        assert len(extractor(_images(2, channels)).vectors) == 2


def metadata_is_plain_data(extractor: Extractor) -> None:
    """The card can keep the metadata, and it does not change."""
    assert json.loads(json.dumps(extractor.metadata)) == extractor.metadata
    assert extractor.metadata.get("network"), "metadata must name the network"
