"""Features of EfficientNet-Lite0 (Tan & Le 2019, arXiv:1905.11946), whose weights come without a download."""

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from genstack.evaluation.extractor import Extractor, Features
from genstack.losses.efficientnet import EfficientNetLite0
from genstack.losses.features import Frozen
from genstack.pretrained import digest


class EfficientNetFeatures(Extractor):
    """The 1,280 features before the classes of EfficientNet-Lite0."""

    name = "EffLite0"
    frechet, kid, score = "FD-EffLite0", "KID-EffLite0", "ClassifierScore-EffLite0"

    def __init__(self, device: torch.device | str):
        self.device = torch.device(device)
        self.architecture = EfficientNetLite0()
        self.network = Frozen(self.architecture)
        self.sha256 = digest(dict(self.network.to("cpu").state_dict()))

    @property
    def metadata(self) -> dict[str, Any]:
        return {
            "network": "EfficientNet-Lite0, ImageNet, 1,280 features before the classes",
            "tensors_sha256": self.sha256,
            "resize": f"bilinear with antialiasing, shorter side to {self.architecture.size}",
        }

    @torch.no_grad()
    def __call__(self, images: Float[Tensor, "b c H W"]) -> Features:
        output = self.network(images.to(self.device))
        assert output.logits is not None, "the network is a classifier"
        return Features(output.pooled.float().cpu(), output.logits.double().softmax(1).float().cpu())
