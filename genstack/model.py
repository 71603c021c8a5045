"""A trained model with its preprocessing: images to codes or latents, back to images, and samples."""

import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import PIL.Image
import torch
from jaxtyping import Bool, Float, Int, Shaped
from torch import Tensor, nn

from genstack.compressor import Compressor
from genstack.conditions import Condition, Unconditional
from genstack.data.images import Preprocessing
from genstack.data.transforms import crop_and_resize
from genstack.errors import UserError
from genstack.inputs import Box, ConditionInputs, Prompts
from genstack.layout import Layout
from genstack.prior import Known, Prior, SamplingOptions, image_seeds
from genstack.prior.editing import encode_known, receptive_field
from genstack.prior.options import PRESETS, resolve_options
from genstack.prior.window import sample_layout

ENCODABLE = "pictures of PIL, paths of files, tensors in [-1, 1] or lists of them"


@dataclass
class Model:
    """A compressor, its preprocessing, and the prior over its codes or latents if there is one.

    Args:
        compressor: the compressor.
        preprocessing: conversion between files and images.
        classes: class names in the order of their labels; empty without classes.
        prior: the prior, or None.
        metadata: how the model was trained, for people: data, steps, results, versions.
    """

    compressor: Compressor
    preprocessing: Preprocessing
    classes: tuple[str, ...] = ()
    prior: Prior | None = None
    metadata: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.prior is not None:
            self.prior.attach(self.compressor)

    @property
    def layout(self) -> Layout:
        """Layout of the codes or latents of an image of the preprocessing's size."""
        return self.compressor.layout(self.preprocessing.height, self.preprocessing.width)

    @property
    def can_sample(self) -> bool:
        """True if it can sample images: by a prior, or from standard normal latents."""
        return self.prior is not None or not self.compressor.has_codes

    def check_preprocessing(self, preprocessing: Preprocessing) -> None:
        """Check that data and compressor have the same preprocessing, except for the size."""
        for name in ("channels", "window", "bits", "background"):
            here, there = (getattr(part, name) for part in (preprocessing, self.preprocessing))
            if here != there:
                raise UserError(
                    f"the data's {name} is {here}, but the compressor was trained with {there}; "
                    f"set data.{name} to that, or leave it out"
                )

    def modules(self) -> nn.ModuleDict:
        """Parts with weights, by their names in a file."""
        parts = {"compressor": self.compressor, "prior": self.prior, "condition": self.condition.network}
        return nn.ModuleDict({name: part for name, part in parts.items() if part is not None})

    def to(self, device: torch.device | str) -> "Model":
        """Move the model to a device, and return it."""
        self.modules().to(device)
        return self

    @cached_property
    def fingerprint(self) -> str:
        """Hash of all weights."""
        digest = hashlib.sha256()
        for entry in tensor_entries(self.modules()):
            digest.update(entry)
        return digest.hexdigest()[:16]

    @property
    def device(self) -> torch.device:
        """Device of the weights."""
        return next(self.compressor.parameters()).device

    @torch.no_grad()
    def encode(self, *images: Any) -> Shaped[Tensor, "b ..."]:
        """Encode images of any size, center-cropped and resized to the size of the model.

        The result is codes `b n`, or latents `b d h w` from a compressor without codes.

        Args:
            images: pictures of PIL, paths, tensors in [-1, 1], `c h w` or `b c h w`, or lists of them.

        Raises:
            UserError: an unsupported type, or a file that cannot be read.
        """
        size = (self.preprocessing.height, self.preprocessing.width)
        cropped = [crop_and_resize(image, size).to(self.device) for image in self._read(images)]
        if not cropped:
            raise UserError(f"encode expects {ENCODABLE}, got none")
        return self.compressor.encode(torch.stack(cropped))

    def _read(self, image: Any) -> Iterator[Float[Tensor, "c h w"]]:
        """Convert what `encode` takes to images in [-1, 1]."""
        if isinstance(image, list | tuple):
            for each in image:
                yield from self._read(each)
        elif isinstance(image, PIL.Image.Image):
            try:
                pixels = self.preprocessing.pixels(image)
            except UserError as error:
                name = getattr(image, "filename", "") or "a picture"
                raise UserError(f"{name} cannot be read: {error}") from error
            yield self.preprocessing.to_model(pixels)
        elif isinstance(image, str | Path):
            yield self.preprocessing.to_model(self.preprocessing.read(Path(image).expanduser()))
        elif isinstance(image, Tensor):
            yield from self._check_images(image)
        else:
            raise UserError(f"encode expects {ENCODABLE}, got {type(image).__name__}")

    def _check_images(self, images: Tensor) -> Float[Tensor, "b c h w"]:
        """Check shape and range of a tensor of images, and return it with a batch axis."""
        channels, shape = self.preprocessing.channels, tuple(images.shape)
        if images.ndim not in (3, 4) or shape[-3] != channels or 0 in shape[-3:]:
            raise UserError(f"encode expects tensors `c h w` or `b c h w` with c {channels}, got {shape}")
        if not images.is_floating_point():
            raise UserError(f"encode expects tensors of floats in [-1, 1], got {images.dtype}")
        if images.numel() and not images.abs().max() <= 1:  # nor NaN
            low, high = images.min().item(), images.max().item()
            raise UserError(f"encode expects tensors in [-1, 1], got values from {low:g} to {high:g}")
        return images.float() if images.ndim == 4 else images.float()[None]

    @torch.no_grad()
    def decode(self, values: Shaped[Tensor, "b ..."]) -> list[PIL.Image.Image]:
        """Decode codes or latents to pictures."""
        images = self.compressor.decode(values.to(self.device), self.layout)
        return [
            PIL.Image.fromarray(values[..., 0] if values.shape[-1] == 1 else values)
            for values in self.preprocessing.to_file(images)
        ]

    @torch.no_grad()
    def reconstruct(self, images: Float[Tensor, "b c H W"]) -> Float[Tensor, "b c H W"]:
        """Encode and decode images, in [-1, 1]."""
        return self.compressor(images.to(self.device)).images.clamp(-1, 1)

    @torch.no_grad()
    def interpolate(
        self, one: Float[Tensor, "c H W"], other: Float[Tensor, "c H W"], count: int
    ) -> Float[Tensor, "count c H W"]:
        """Decode linear interpolations between the latents of two images, in [-1, 1].

        The first and last images are reconstructions of the two. Latents are mixed before quantization.
        """
        height, width = one.shape[-2:]
        shares = torch.linspace(0, 1, count, device=self.device)[:, None, None, None]
        ends = self.compressor.features(torch.stack([one, other]).to(self.device))
        mixed = tuple((1 - shares) * first + shares * last for first, last in ends)
        return self.compressor.reconstruct(mixed, (height, width)).images.clamp(-1, 1)

    @property
    def condition(self) -> Condition:
        """Condition of the prior; Unconditional without one."""
        return Unconditional() if self.prior is None else self.prior.condition

    @property
    def presets(self) -> dict[str, dict[str, Any]]:
        """Sampling presets saved with the model, by name."""
        return self.metadata.get("presets", {})

    def options(self, preset: str = "", given: Mapping[str, Any] | None = None) -> SamplingOptions:
        """Combine a preset, built in or saved with the model, with options that are given.

        Args:
            preset: its name; "" for none.
            given: options by name; None for options that are not given.
        """
        built_in = PRESETS if self.prior is None else self.prior.presets
        return resolve_options(preset, given or {}, self.presets, self.condition.dropout > 0, built_in)

    def check_options(self, options: SamplingOptions) -> None:
        """Check that the model supports sampling options."""
        if self.prior is not None:
            self.prior.check(options)
        elif not self.compressor.has_codes and options != SamplingOptions(options.temperature):
            raise UserError(
                "without a prior, sampling only supports temperature; leave out the other options"
            )

    def save_preset(self, name: str, options: SamplingOptions) -> None:
        """Add a sampling preset to the metadata, which is saved with the model."""
        defaults = asdict(SamplingOptions())
        changed = {option: value for option, value in asdict(options).items() if value != defaults[option]}
        self.metadata["presets"] = {**self.presets, name: changed}

    @cached_property
    def receptive_field(self) -> tuple[int, ...]:
        """Receptive field of the encoder in codes, for each grid: the growth of masks in `edit`."""
        return receptive_field(self.compressor, self.layout)

    def inputs(self, count: int, **prompts: Any) -> ConditionInputs:
        """Return inputs of the condition for `count` samples.

        Args:
            count: number of samples.
            prompts: arguments of `Prompts`, such as `classes=("rose", "#1")` or `captions=("a red apple",)`;
                they are cycled. Without any, the condition chooses, for example every class in turn.
        """
        return self.condition.modality.select(Prompts(**prompts), count)

    @torch.no_grad()
    def sample(
        self,
        inputs: ConditionInputs,
        options: SamplingOptions,
        seed: int,
        indices: Iterable[int],
        size: tuple[int, int] | None = None,
        overlap: float = 0.5,
        report: Callable[[float], None] = lambda progress: None,
    ) -> Float[Tensor, "b c H W"]:
        """Sample images in [-1, 1].

        Without a prior, latents of a compressor without codes are sampled from the standard normal.

        Args:
            inputs: inputs of the condition, from `inputs`.
            options: sampling options; without a prior, only `temperature`.
            seed: seed of the set of samples.
            indices: index of each image in the set; an image depends on seed and index, not on its batch.
            size: height and width; None for the training size.
            overlap: overlap of neighbouring windows, if `size` needs several.
            report: called with the progress from 0 to 1; an error that it raises ends sampling.
        """
        if self.prior is None:
            return self._sample_latents(options, image_seeds(seed, indices), size)
        layout = self.prior.layout if size is None else self.compressor.layout(*size)
        return self._sample(inputs, options, image_seeds(seed, indices), layout, None, overlap, report)

    @torch.no_grad()
    def edit(
        self,
        images: Float[Tensor, "b c H W"],
        mask: Bool[Tensor, "H W"],
        inputs: ConditionInputs,
        options: SamplingOptions,
        seed: int,
        indices: Iterable[int],
        grow: int | None = None,
        overlap: float = 0.5,
        report: Callable[[float], None] = lambda progress: None,
    ) -> Float[Tensor, "b c H W"]:
        """Sample the masked part of images anew, in [-1, 1]; other pixels do not change.

        Masks for completion and outpainting are in `genstack.prior.editing`.

        Args:
            images: images in [-1, 1], of any size that the compressor supports; arbitrary under the mask.
            mask: True for pixels that are sampled.
            inputs: inputs of the condition, from `inputs`.
            options: sampling options.
            seed: seed of the set of samples.
            indices: index of each image in the set.
            grow: codes by which the mask grows, since nearby codes depend on the masked pixels; None for
                `receptive_field`.
            overlap: overlap of neighbouring windows, if the images need several.
            report: called with the progress from 0 to 1; an error that it raises ends sampling.
        """
        layout = self.compressor.layout(*images.shape[-2:])
        images, mask = images.to(self.device), mask.to(self.device)
        steps = self.receptive_field if grow is None else (grow,) * len(layout.grids)
        known = encode_known(self.compressor, images, mask, steps)
        sampled = self._sample(inputs, options, image_seeds(seed, indices), layout, known, overlap, report)
        return torch.where(mask, sampled, images)

    def _sample(
        self,
        inputs: ConditionInputs,
        options: SamplingOptions,
        seeds: Int[Tensor, " b"],
        layout: Layout,
        known: Known | None,
        overlap: float,
        report: Callable[[float], None],
    ) -> Float[Tensor, "b c H W"]:
        prior, inputs = self._prior, inputs.to(self.device)
        if inputs.images is not None and tuple(inputs.images.shape[-2:]) != layout.image_size:
            (height, width), (rows, columns) = inputs.images.shape[-2:], layout.image_size
            raise UserError(
                f"condition images must have the size of the samples, {rows}x{columns}, got {height}x{width}"
            )
        whole = None if inputs.spatial else prior.condition.encode(inputs)

        def values(box: Box) -> Tensor:
            if whole is not None:
                return whole
            return prior.condition.encode(inputs.crop(box, prior.layout.image_size))

        sampled = sample_layout(prior, values, options, seeds.to(self.device), layout, known, overlap, report)
        return self.compressor.decode(sampled, layout).clamp(-1, 1)

    def _sample_latents(
        self, options: SamplingOptions, seeds: Int[Tensor, " b"], size: tuple[int, int] | None
    ) -> Float[Tensor, "b c H W"]:
        self.check_options(options)
        image_size = size or (self.preprocessing.height, self.preprocessing.width)
        images = self.compressor.sample(seeds.to(self.device), image_size, options.temperature)
        return images.clamp(-1, 1)

    @property
    def _prior(self) -> Prior:
        if self.prior is None:
            raise UserError(
                "the model is a compressor without a prior; train one: genstack train prior --compressor RUN "
                f"--config {'autoregressive' if self.compressor.has_codes else 'flow'}"
            )
        return self.prior


def tensor_entries(module: nn.Module) -> Iterator[bytes]:
    """Names, dtypes, shapes and values of a module's tensors, for hashing."""
    for name, value in sorted(module.state_dict().items()):
        yield f"{name} {value.dtype} {tuple(value.shape)}".encode()
        yield value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()
