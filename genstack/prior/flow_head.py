"""A small flow that samples the latents of one position (Li et al. 2024, arXiv:2406.11838)."""

from dataclasses import dataclass
from typing import Literal

from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import silu

from genstack.errors import UserError
from genstack.prior.velocity_transformer import TimeEmbedding
from genstack.transformer.adaln import AdaLN, Modulation, modulate

EPSILON = 1e-6  # of the norms in the flow's network


@dataclass(frozen=True)
class Head:
    """Configuration of the flow that samples a position.

    Args:
        width: channels of its network.
        depth: residual layers of its network.
        repeats: times and noises of each masked position in a training step.
        steps: steps of its solver.
        solver: euler (one pass per step) or heun (two), unless sampling sets its own.
    """

    width: int = 256
    depth: int = 3
    repeats: int = 4
    steps: int = 25
    solver: Literal["euler", "heun"] = "euler"

    def __post_init__(self) -> None:
        for name in ("width", "depth", "repeats", "steps"):
            if (count := getattr(self, name)) < 1:
                raise UserError(f"{name} of the head must be at least 1, got {count}")


class FlowHead(nn.Module):
    """Velocity of the latents of one position, modulated by its features and the time.

    Args:
        dim: numbers of a position.
        features: channels of its features.
        width: channels of the network.
        depth: residual layers.
    """

    def __init__(self, dim: int, features: int, width: int, depth: int):
        super().__init__()
        self.embed, self.condition = nn.Linear(dim, width), nn.Linear(features, width)
        self.time = TimeEmbedding(width)
        self.layers = nn.ModuleList(FlowLayer(width) for _ in range(depth))
        self.norm, self.last = AdaLN(width, "layer", EPSILON), nn.Linear(width, dim)
        nn.init.normal_(self.last.weight, std=0.02)
        nn.init.zeros_(self.last.bias)

    def forward(
        self, features: Float[Tensor, "m features"], x: Float[Tensor, "m dim"], times: Float[Tensor, " m"]
    ) -> Float[Tensor, "m dim"]:
        """Velocities in float32."""
        conditioning = rearrange(self.condition(features) + self.time(times), "m width -> m 1 width")
        tokens = rearrange(self.embed(x), "m width -> m 1 width")
        for layer in self.layers:
            tokens = layer(tokens, conditioning)
        return self.last(self.norm(tokens, conditioning))[:, 0].float()


class FlowLayer(nn.Module):
    """A residual layer of the head: a modulated norm, two linear layers and a gate."""

    def __init__(self, width: int):
        super().__init__()
        self.modulation = Modulation(width, 3, gates=1)
        self.fc1, self.fc2 = nn.Linear(width, width), nn.Linear(width, width)

    def forward(
        self, tokens: Float[Tensor, "m one=1 width"], conditioning: Float[Tensor, "m one=1 width"]
    ) -> Float[Tensor, "m one=1 width"]:
        gate, scale, shift = self.modulation(conditioning).unbind(dim=2)
        added = self.fc2(silu(self.fc1(modulate(tokens, scale, shift, "layer", EPSILON))))
        return tokens + gate * added
