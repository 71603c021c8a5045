"""Distance in a classifier's logits or features, as in VQGAN+ (arXiv:2409.16211)."""

import torch
from einops import reduce
from jaxtyping import Float
from torch import Tensor

from genstack.errors import UserError
from genstack.losses.efficientnet import EfficientNetLite0
from genstack.losses.features import Features, Frozen, check_channels
from genstack.losses.perceptual import Images, Perceptual, check_range, unit
from genstack.losses.weight import check_weight


class ClassifierDistance(Perceptual):
    """Mean squared difference of a classifier's logits, of its features, or of both.

    Args:
        features: the classifier.
        logits: weight of the difference of logits.
        maps: weight of the difference of features, normalized at each position as in LPIPS.
        weight: weight in the training loss.
    """

    def __init__(
        self,
        features: Features = EfficientNetLite0(),
        logits: float = 1.0,
        maps: float = 0.0,
        weight: float = 0.1,
    ):
        for each in (logits, maps, weight):
            check_weight(each)
        if not logits and not maps:
            raise UserError(
                "ClassifierDistance has logits 0 and maps 0; set one above 0, or use `perceptual: null`"
            )
        if logits and not features.has_logits:
            raise UserError(f"{type(features).__name__} has no logits; use `logits: 0` and `maps: 1`")
        self.features, self.logits, self.maps, self.weight = features, logits, maps, weight
        self.frozen = Frozen(features)

    def check(self, channels: int, height: int, width: int) -> None:
        check_channels(channels)
        self.features.grids(height, width)

    def to(self, device: torch.device | str) -> "ClassifierDistance":
        self.network = self.frozen.to(device)
        return self

    def distances(self, reconstruction: Images, images: Images) -> Float[Tensor, " b"]:
        self.check(*images.shape[1:])
        check_range(images)
        reconstructed, original = self.frozen(reconstruction), self.frozen(images)
        with torch.autocast(images.device.type, enabled=False):
            distances = torch.zeros(len(images), device=images.device)
            if reconstructed.logits is not None and original.logits is not None:
                difference = reconstructed.logits.float() - original.logits.float()
                distances = self.logits * reduce(difference.square(), "b k -> b", "mean")
            depths = [
                reduce((unit(a.float()) - unit(b.float())).square(), "b d h w -> b h w", "sum").mean((1, 2))
                for a, b in zip(reconstructed.maps, original.maps, strict=True)
            ]
            return distances + self.maps * torch.stack(depths).mean(0)
