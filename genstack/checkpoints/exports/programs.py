"""Parts of a model as programs from tensors to tensors, for ONNX and torch.export."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from einops import rearrange
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.export import ExportedProgram

from genstack.compressor import Autoencoder, Compressor
from genstack.errors import UserError
from genstack.inputs import ConditionInputs
from genstack.model import Model
from genstack.prior import Prior
from genstack.prior.diffusion import Diffusion
from genstack.prior.exact import Exact
from genstack.prior.flow_matching import FlowMatching
from genstack.prior.mar import MAR
from genstack.prior.masked import Masked
from genstack.prior.next_scale import NextScale
from genstack.prior.random_order import RandomOrder


@dataclass(frozen=True)
class Program:
    """A module with fixed shapes.

    Args:
        name: name of the file.
        module: module in eval mode.
        inputs: example inputs by name, in order.
        output: name of the output.
        what: description of the output.
    """

    name: str
    module: nn.Module
    inputs: dict[str, Tensor]
    output: str
    what: str

    def exported(self) -> ExportedProgram:
        """Export with torch.export."""
        with torch.no_grad():
            made = torch.export.export(self.module, tuple(self.inputs.values()), strict=False)
            return made.run_decompositions({})  # inlines autocast regions, which cannot be stored


def programs(model: Model, batch: int) -> list[Program]:
    """Encoder, decoder, and a step of the prior if there is one."""
    shape = (batch, *model.preprocessing.shape)
    images = torch.rand(shape) * 2 - 1
    if not model.compressor.has_codes:
        found = latent_programs(model.compressor, images)
        return found if model.prior is None else [*found, velocity_program(model.prior, batch)]
    layout = model.compressor.code_layout(model.preprocessing.height, model.preprocessing.width)
    codes = torch.randint(layout.codebook_size, (batch, layout.length))
    coded = [
        Program("encoder", Encoder(model.compressor), {"images": images}, "codes", "images to codes"),
        Program("decoder", Decoder(model), {"codes": codes}, "images", "codes to images"),
    ]
    return coded if model.prior is None else [*coded, step(model.prior, codes)]


def latent_programs(compressor: Compressor, images: Float[Tensor, "b c H W"]) -> list[Program]:
    """Encoder and decoder of a compressor without codes."""
    if not isinstance(compressor, Autoencoder):
        raise UserError(f"cannot export a {type(compressor).__name__} without codes as programs")
    encoder = LatentEncoder(compressor)
    with torch.no_grad():
        latents = encoder(images)
    decoder = LatentDecoder(compressor, (images.shape[-2], images.shape[-1]))
    return [
        Program("encoder", encoder, {"images": images}, "latents", "images to the means of their latents"),
        Program("decoder", decoder, {"latents": latents}, "images", "latents to images"),
    ]


class Encoder(nn.Module):
    """Images to codes."""

    def __init__(self, compressor: Compressor):
        super().__init__()
        self.compressor = compressor

    def forward(self, images: Float[Tensor, "b c H W"]) -> Int[Tensor, "b n"]:
        return self.compressor.encode(images)


class Decoder(nn.Module):
    """Codes to images in [-1, 1]."""

    def __init__(self, model: Model):
        super().__init__()
        self.compressor, self.layout = model.compressor, model.layout

    def forward(self, codes: Int[Tensor, "b n"]) -> Float[Tensor, "b c H W"]:
        return self.compressor.decode(codes, self.layout).clamp(-1, 1)


class LatentEncoder(nn.Module):
    """Images to the means of their latents."""

    def __init__(self, compressor: Autoencoder):
        super().__init__()
        self.compressor = compressor

    def forward(self, images: Float[Tensor, "b c H W"]) -> Float[Tensor, "b d h w"]:
        return self.compressor.quantizer(self.compressor.latents(images)).latents


class LatentDecoder(nn.Module):
    """Latents to images in [-1, 1]."""

    def __init__(self, compressor: Autoencoder, image_size: tuple[int, int]):
        super().__init__()
        self.compressor, self.image_size = compressor, image_size

    def forward(self, latents: Float[Tensor, "b d h w"]) -> Float[Tensor, "b c H W"]:
        return self.compressor.images(latents, self.image_size).clamp(-1, 1)


class Velocity(nn.Module):
    """Velocity of standardized latents on their way from noise to data."""

    def __init__(self, prior: FlowMatching):
        super().__init__()
        self.network = prior.network

    def forward(
        self, latents: Float[Tensor, "b d h w"], times: Float[Tensor, " b"], condition: Tensor
    ) -> Float[Tensor, "b d h w"]:
        return self.network(latents, times, self.network.encode_condition(condition))


class MaskedVelocity(nn.Module):
    """Velocity of standardized latents at every position, given the latents at unmasked positions."""

    def __init__(self, prior: MAR):
        super().__init__()
        self.network, self.flow = prior.network, prior.flow

    def forward(
        self,
        latents: Float[Tensor, "b n c"],
        times: Float[Tensor, " b"],
        values: Float[Tensor, "b n c"],
        masked: Int[Tensor, "b n"],
        condition: Tensor,
    ) -> Float[Tensor, "b n c"]:
        every = torch.ones_like(masked, dtype=torch.bool)
        features = self.network(values, masked > 0, every, self.network.encode_condition(condition))
        torch._check(features.shape[0] == masked.numel())
        rows = rearrange(latents, "b n c -> (b n) c")
        velocities = self.flow(features, rows, times.repeat_interleave(latents.shape[1]))
        return rearrange(velocities, "(b n) c -> b n c", b=latents.shape[0])


def velocity_program(prior: Prior, batch: int) -> Program:
    """One pass through the network of flow matching, for any solver."""
    if not isinstance(prior, FlowMatching | MAR):
        raise UserError(f"cannot export {type(prior).__name__} as a program; use --to safetensors")
    condition = prior.condition.encode(ConditionInputs.nothing(batch))
    mean, deviation = (
        ", ".join(f"{value:.6g}" for value in values.tolist())
        for values in (prior.standardization.mean, prior.standardization.deviation)
    )
    inputs = {"latents": torch.randn(batch, *prior.layout.shape), "times": torch.rand(batch)}
    module: nn.Module
    if isinstance(prior, MAR):
        module, shape = MaskedVelocity(prior), (batch, prior.patches.length, prior.patches.dim)
        inputs |= {"latents": torch.randn(shape), "values": torch.randn(shape)}
        inputs["masked"] = torch.randint(2, shape[:2])
    else:
        module = Velocity(prior)
    return Program(
        "prior",
        module,
        {**inputs, "condition": condition},
        "velocities",
        f"velocity of latents with mean ({mean}) and deviation ({deviation}) per channel, standardized; "
        f"times go from 0 (noise) to 1 (data)",
    )


class NextCode(nn.Module):
    """Logits of every code, from the previous codes or from the codes of coarser grids."""

    def __init__(self, prior: Exact):
        super().__init__()
        self.prior = prior

    def forward(self, codes: Int[Tensor, "b n"], condition: Tensor) -> Float[Tensor, "b n K"]:
        return self.prior.logits(codes, condition)


class MaskedCodes(nn.Module):
    """Logits of every code, from the condition and the codes where `masked` is 0."""

    def __init__(self, prior: Masked | Diffusion):
        super().__init__()
        self.network = prior.network

    def forward(
        self, codes: Int[Tensor, "b n"], masked: Int[Tensor, "b n"], condition: Tensor
    ) -> Float[Tensor, "b n K"]:
        every = torch.ones_like(codes, dtype=torch.bool)
        logits = self.network(codes, masked > 0, every, self.network.encode_condition(condition))
        torch._check(logits.shape[0] == codes.numel())
        return rearrange(logits, "(b n) K -> b n K", b=codes.shape[0])


class OrderedCodes(nn.Module):
    """Logits of every code in the given order, from the codes before it."""

    def __init__(self, prior: RandomOrder):
        super().__init__()
        self.prior = prior

    def forward(
        self, codes: Int[Tensor, "b n"], orders: Int[Tensor, "b n"], condition: Tensor
    ) -> Float[Tensor, "b n K"]:
        return self.prior.logits(codes, condition, orders)


#: Program of each kind of prior and its description; an exact one is the last of these.
STEPS: tuple[tuple[type[Prior], Callable[..., nn.Module], str], ...] = (
    (
        Masked,
        MaskedCodes,
        "logits of every code from the codes where `masked` is 0; the others are ignored",
    ),
    (
        Diffusion,
        MaskedCodes,
        "logits of every code from the codes where `masked` is 0; the others are ignored",
    ),
    (
        RandomOrder,
        OrderedCodes,
        "logits of the codes in the order `orders`, from the codes before them",
    ),
    (NextScale, NextCode, "logits of every code from those of coarser grids"),
    (Exact, NextCode, "logits of every code from the codes before it"),
)


def step(prior: Prior, codes: Int[Tensor, "b n"]) -> Program:
    """One forward pass of a prior's network, for any sampling algorithm."""
    module, what = next(
        ((module, what) for kind, module, what in STEPS if isinstance(prior, kind)), (None, "")
    )
    if module is None:
        raise UserError(
            f"cannot export {type(prior).__name__} as a program, since it computes no logits of all codes in "
            f"one pass; use --to safetensors"
        )
    others = {
        MaskedCodes: {"masked": torch.randint(2, codes.shape)},
        OrderedCodes: {"orders": torch.rand(codes.shape).argsort(dim=1)},
    }
    condition = prior.condition.encode(ConditionInputs.nothing(len(codes)))
    made = module(prior)
    inputs = {"codes": codes, **others.get(type(made), {}), "condition": condition}
    return Program("prior", made, inputs, "logits", what)
