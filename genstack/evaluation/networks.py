"""Networks of an evaluation: feature extractors and LPIPS, with reasons for the missing ones."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from genstack.errors import UserError
from genstack.evaluation.card import Skipped, environment
from genstack.evaluation.extractor import Extractor
from genstack.evaluation.extractors import available_extractors
from genstack.losses.perceptual import LPIPS


@dataclass(frozen=True)
class Networks:
    """Networks on one device.

    Args:
        extractors: feature extractors.
        lpips: perceptual distances by the name of the metric.
        missing: metrics whose network is not available.
        device: device of the networks.
    """

    extractors: Sequence[Extractor]
    lpips: Mapping[str, LPIPS]
    missing: Sequence[Skipped]
    device: str

    @classmethod
    def load(cls, lpips: Sequence[str], shape: tuple[int, int, int], device: str) -> "Networks":
        """Load the available networks.

        Args:
            lpips: networks of LPIPS, alex or vgg.
            shape: channels, height and width of the images.
            device: device of the networks.
        """
        extractors, missing = available_extractors(device)
        distances: dict[str, LPIPS] = {}
        for net in lpips:
            name = f"LPIPS-{net.capitalize() if net == 'alex' else net.upper()}"
            distance = LPIPS(net)  # type: ignore[arg-type]
            try:
                distance.check(*shape)
                distances[name] = distance.to(device)
            except UserError as error:
                missing[name] = str(error)
        return cls(extractors, distances, [Skipped(*each) for each in missing.items()], device)

    @property
    def protocol(self) -> dict[str, Any]:
        """Description of the networks and the environment for the metric card."""
        return {
            "extractors": {extractor.kid: extractor.metadata for extractor in self.extractors},
            "networks": "float32",
            "device": self.device,
            **environment(),
        }
