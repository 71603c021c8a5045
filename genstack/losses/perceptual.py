"""Perceptual distances: LPIPS (Zhang et al. 2018, arXiv:1801.03924)."""

import warnings
from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any, Literal

import torch
from einops import reduce
from jaxtyping import Float
from torch import Tensor, nn

from genstack import pretrained
from genstack.errors import UserError
from genstack.losses.features import colour
from genstack.losses.weight import check_weight

Images = Float[Tensor, "b c H W"]

SMALLEST = {"alex": 31, "vgg": 16}  # pixels per side that the trunk's strides need
TOLERANCE = 1e-3  # beyond [-1, 1], for rounding


class Perceptual(ABC):
    """Distance between reconstructions and images by a frozen network; callers multiply it by `weight`.

    It is not a module, which keeps its network out of optimizer, checkpoint and EMA.
    """

    weight: float
    #: The network, after the first `to`.
    network: nn.Module | None = None

    @abstractmethod
    def check(self, channels: int, height: int, width: int) -> None:
        """Raise a UserError if the network cannot read images of this shape."""

    @abstractmethod
    def to(self, device: torch.device | str) -> "Perceptual":
        """Build the network if needed, and move it to a device."""

    @abstractmethod
    def distances(self, reconstruction: Images, images: Images) -> Float[Tensor, " b"]:
        """Compute the distance of each reconstruction from its image."""

    def __call__(self, reconstruction: Images, images: Images) -> Float[Tensor, ""]:
        return self.distances(reconstruction, images).mean()


class LPIPS(Perceptual):
    """Learned perceptual image patch similarity, version 0.1; weights: `genstack weights list`.

    Grey images get three equal channels; of four channels the first three are used.

    Args:
        net: alex (about 8 ms per image of 64 px on one CPU core) or vgg (about 120 ms). Images need at least
            31 pixels per side for alex and 16 for vgg; 32 are better.
        weight: weight in the training loss.
        weights: file of the trunk's weights; by default the downloaded ones.
    """

    def __init__(self, net: Literal["alex", "vgg"] = "alex", weight: float = 1.0, weights: str | None = None):
        check_weight(weight)
        self.net, self.weight, self.weights = net, weight, weights
        self.network: Any = None  # a lpips.LPIPS, imported at first use

    def check(self, channels: int, height: int, width: int) -> None:
        smallest = SMALLEST[self.net]
        if min(height, width) < smallest:
            way_out = "32 or more" if self.net == "vgg" else "32 or more, or net vgg from 16"
            raise UserError(
                f"LPIPS with {self.net} needs images of {smallest} x {smallest} pixels or more, got "
                f"{height} x {width}; use {way_out}"
            )
        if channels not in (1, 3, 4):
            raise UserError(
                f"LPIPS needs images of 1, 3 or 4 channels, got {channels}; use `perceptual: null`"
            )

    def to(self, device: torch.device | str) -> "LPIPS":
        if self.network is None:
            path = None if self.weights is None else Path(self.weights).expanduser()
            self.network = build(self.net, pretrained.load(f"lpips-{self.net}", path))
        self.network.to(device)
        return self

    def distances(self, reconstruction: Images, images: Images) -> Float[Tensor, " b"]:
        self.check(*images.shape[1:])
        check_range(images)
        network = self.to(images.device).network
        pair = [network.net(network.scaling_layer(colour(x.float()))) for x in (reconstruction, images)]
        with torch.autocast(images.device.type, enabled=False):
            layers = [
                reduce(head((unit(a.float()) - unit(b.float())).square()), "b 1 h w -> b", "mean")
                for a, b, head in zip(*pair, network.lins, strict=True)
            ]
            return torch.stack(layers).sum(0)


def build(net: str, trunk: dict[str, Tensor]) -> nn.Module:
    """Build the frozen network of the lpips package with these weights in its trunk.

    Building on the meta device leaves no random weight behind, and does not advance the random generator.
    """
    import lpips

    with warnings.catch_warnings(), torch.device("meta"):
        warnings.filterwarnings("ignore", message="The parameter 'pretrained' is deprecated")
        warnings.filterwarnings("ignore", message="Arguments other than a weight enum")
        network = lpips.LPIPS(net=net, pretrained=False, pnet_rand=True, verbose=False)
    bundled = Path(lpips.__file__).parent / "weights" / "v0.1" / f"{net}.pth"
    heads = torch.load(bundled, map_location="cpu", weights_only=True)
    state = {name: value for name, value in network.state_dict().items() if name.startswith("scaling_layer.")}
    for name, head in heads.items():  # the package has two names for each head
        state[name] = state[name.replace("lin", "lins.", 1)] = head
    for name in network.net.state_dict():  # slice2.3.weight is torchvision's features.3.weight
        state[f"net.{name}"] = trunk[f"features.{name.split('.', 1)[1]}"]
    network.load_state_dict(state, assign=True)
    return network.eval().requires_grad_(False)


def unit(features: Float[Tensor, "b d h w"]) -> Float[Tensor, "b d h w"]:
    """Normalize features at each position; the gradient at 0 is 0."""
    return features / (torch.linalg.vector_norm(features, dim=1, keepdim=True) + 1e-10)


def check_range(images: Images) -> None:
    """Check that originals are in [-1, 1]; reconstructions may exceed it."""
    low, high = (float(side) for side in images.detach().aminmax())
    if low < -1 - TOLERANCE or high > 1 + TOLERANCE:
        raise UserError(f"images must be in [-1, 1], got {low:.4g} to {high:.4g}; rescale them")
