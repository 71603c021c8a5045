"""A trained model with all that its use needs: images to codes, codes to images, and samples."""

import hashlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from functools import cached_property
from typing import Any

import PIL.Image
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from genstack.compressor import Compressor
from genstack.conditions import Condition, Unconditional
from genstack.data.framing import frame
from genstack.data.images import Preprocessing, pixels
from genstack.errors import UserError
from genstack.inputs import Box, ConditionInputs
from genstack.layout import CodeLayout
from genstack.prior import Known, Prior, SamplingOptions, image_seeds
from genstack.prior.editing import known_codes, receptive_field
from genstack.prior.presets import resolve_options
from genstack.prior.window import sample_layout


@dataclass
class Model:
    """A compressor, how files become what it reads, and the prior over its codes where one was trained.

    Args:
        compressor: stage one.
        preprocessing: how files become images, and back.
        classes: names of the classes in the order of their labels; empty without classes.
        prior: stage two, or None.
        made: how it was made, for people: data, steps, results, versions.
    """

    compressor: Compressor
    preprocessing: Preprocessing
    classes: tuple[str, ...] = ()
    prior: Prior | None = None
    made: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.prior is not None:
            self.prior.attach(self.compressor)

    @property
    def layout(self) -> CodeLayout:
        """Where the codes of an image of the preprocessing's size lie."""
        return self.compressor.layout(self.preprocessing.height, self.preprocessing.width)

    @property
    def draws(self) -> bool:
        """Whether it makes images of its own: by a prior, or of latents from the standard normal."""
        return self.prior is not None or not self.compressor.coded

    def check_reads(self, preprocessing: Preprocessing) -> None:
        """Refuse images that are made of files in another way than the compressor knows; sizes may differ.

        Raises:
            UserError: they were.
        """
        for name in ("channels", "window", "bits", "background"):
            here, there = (getattr(part, name) for part in (preprocessing, self.preprocessing))
            if here != there:
                raise UserError(
                    f"the data's {name} is {here}, but the compressor was trained with {there}; "
                    f"set data.{name} to that, or leave it out"
                )

    def modules(self) -> nn.ModuleDict:
        """The parts with weights, by the names they have in a file."""
        parts = {"compressor": self.compressor, "prior": self.prior, "condition": self.condition.network}
        return nn.ModuleDict({name: part for name, part in parts.items() if part is not None})

    def to(self, device: torch.device | str) -> "Model":
        """The same model, moved to a device."""
        self.modules().to(device)
        return self

    @cached_property
    def fingerprint(self) -> str:
        """A hash of all weights: images and numbers belong to one."""
        digest = hashlib.sha256()
        for entry in entries(self.modules()):
            digest.update(entry)
        return digest.hexdigest()[:16]

    @property
    def device(self) -> torch.device:
        """Where the weights lie."""
        return next(self.compressor.parameters()).device

    @torch.no_grad()
    def encode(self, *pictures: PIL.Image.Image) -> Int[Tensor, "b n"]:
        """Codes of pictures of any size, cut in the middle and scaled to that of the model."""
        seen = self.preprocessing
        read = [
            pixels(picture, seen.channels, seen.background, raw=seen.window is not None)
            for picture in pictures
        ]
        images = torch.stack([frame(seen.to_model(one), (seen.height, seen.width)) for one in read])
        return self.compressor.encode(images.to(self.device))

    @torch.no_grad()
    def decode(self, codes: Int[Tensor, "b n"]) -> list[PIL.Image.Image]:
        """The pictures that codes stand for."""
        images = self.compressor.decode(codes.to(self.device), self.layout)
        return [
            PIL.Image.fromarray(values[..., 0] if values.shape[-1] == 1 else values)
            for values in self.preprocessing.to_file(images)
        ]

    @torch.no_grad()
    def reconstruct(self, images: Float[Tensor, "b c H W"]) -> Float[Tensor, "b c H W"]:
        """Images, through the compressor and back, in [-1, 1]."""
        return self.compressor(images.to(self.device)).images.clamp(-1, 1)

    @torch.no_grad()
    def interpolate(
        self, one: Float[Tensor, "c H W"], other: Float[Tensor, "c H W"], count: int
    ) -> Float[Tensor, "count c H W"]:
        """Images, in [-1, 1], of latents on the straight line from those of one image to those of another.

        The first and the last are the reconstructions of the two. With codes, the latents are mixed before
        they are quantized.
        """
        height, width = one.shape[-2:]
        shares = torch.linspace(0, 1, count, device=self.device)[:, None, None, None]
        ends = self.compressor.features(torch.stack([one, other]).to(self.device))
        mixed = tuple((1 - shares) * first + shares * last for first, last in ends)
        return self.compressor.reconstruct(mixed, (height, width)).images.clamp(-1, 1)

    @property
    def condition(self) -> Condition:
        """What steers `sample`: nothing, where there is no prior."""
        return Unconditional() if self.prior is None else self.prior.condition

    @property
    def presets(self) -> dict[str, dict[str, Any]]:
        """Options of sampling that are kept with the model, by name."""
        return self.made.get("presets", {})

    def options(self, preset: str = "", given: Mapping[str, Any] | None = None) -> SamplingOptions:
        """Options of sampling: those of a preset, ours or one that is kept, but for those that are given.

        Args:
            preset: its name; "" for none.
            given: options by name; None for those that are not given.
        """
        return resolve_options(preset, given or {}, self.presets, guided=self.condition.dropout > 0)

    def check(self, options: SamplingOptions) -> None:
        """Refuse options by which this cannot draw.

        Raises:
            UserError: the prior has no such choice, or there is no prior, whose choices they are.
        """
        if self.prior is not None:
            self.prior.check(options)
        elif not self.compressor.coded and options != SamplingOptions(options.temperature):
            raise UserError(
                "latents without codes are drawn by temperature alone; leave out the other options"
            )

    def keep(self, name: str, options: SamplingOptions) -> None:
        """Keep options under a name; saving the model saves them."""
        plain = asdict(SamplingOptions())
        chosen = {option: value for option, value in asdict(options).items() if value != plain[option]}
        self.made["presets"] = {**self.presets, name: chosen}

    @cached_property
    def reach(self) -> tuple[int, ...]:
        """How many codes around a place its pixels change, in each grid; by so much holes grow in `edit`."""
        return receptive_field(self.compressor, self.layout)

    @torch.no_grad()
    def sample(
        self,
        inputs: ConditionInputs,
        options: SamplingOptions,
        seed: int,
        indices: Iterable[int],
        size: tuple[int, int] | None = None,
        overlap: float = 0.5,
    ) -> Float[Tensor, "b c H W"]:
        """Images drawn from the prior, in [-1, 1].

        Latents without codes need no prior: they are drawn from the distribution that they have by design.

        Args:
            inputs: what steers each image, from `condition.choose`.
            options: how codes are drawn; of latents without codes, only `temperature`.
            seed: of this set of samples.
            indices: number of each image in the set; image i of a seed is the same whatever is beside it.
            size: height and width; those that the prior was trained on if None.
            overlap: share of a window that lies over the one beside it, where `size` needs several.
        """
        if self.prior is None:
            return self._imagine(options, image_seeds(seed, indices), size)
        layout = self.prior.layout if size is None else self.compressor.layout(*size)
        return self._draw(inputs, options, image_seeds(seed, indices), layout, None, overlap)

    @torch.no_grad()
    def edit(
        self,
        images: Float[Tensor, "b c H W"],
        hole: Bool[Tensor, "H W"],
        inputs: ConditionInputs,
        options: SamplingOptions,
        seed: int,
        indices: Iterable[int],
        grow: int | None = None,
        overlap: float = 0.5,
    ) -> Float[Tensor, "b c H W"]:
        """Images with a hole drawn anew, in [-1, 1]; outside of the hole, no pixel changes.

        Completion, inpainting, outpainting and change of class are this, with masks from
        `genstack.prior.editing`.

        Args:
            images: to edit, in [-1, 1], of any size that the compressor reads; anything in the hole.
            hole: True where pixels are drawn.
            inputs: what steers each image, from `prior.condition.choose`.
            options: how codes are drawn.
            seed: of this set of samples.
            indices: number of each image in the set.
            grow: codes by which the hole grows, since those near it saw what was there; None for `reach`.
            overlap: share of a window that lies over the one beside it, where the images need several.
        """
        layout = self.compressor.layout(*images.shape[-2:])
        images, hole = images.to(self.device), hole.to(self.device)
        steps = self.reach if grow is None else (grow,) * len(layout.grids)
        known = known_codes(self.compressor, images, hole, steps)
        drawn = self._draw(inputs, options, image_seeds(seed, indices), layout, known, overlap)
        return torch.where(hole, drawn, images)

    def _draw(
        self,
        inputs: ConditionInputs,
        options: SamplingOptions,
        seeds: Int[Tensor, " b"],
        layout: CodeLayout,
        known: Known | None,
        overlap: float,
    ) -> Float[Tensor, "b c H W"]:
        prior, inputs = self._prior, inputs.to(self.device)
        if inputs.images is not None and tuple(inputs.images.shape[-2:]) != layout.image_size:
            (height, width), (rows, columns) = inputs.images.shape[-2:], layout.image_size
            raise UserError(
                f"condition images have the size of the images that they steer, {rows}x{columns}, "
                f"not {height}x{width}"
            )
        alike = None if inputs.spatial else prior.condition.encode(inputs)

        def values(box: Box) -> Tensor:
            if alike is not None:
                return alike
            return prior.condition.encode(inputs.crop(box, prior.layout.image_size))

        codes = sample_layout(prior, values, options, seeds.to(self.device), layout, known, overlap)
        return self.compressor.decode(codes, layout).clamp(-1, 1)

    def _imagine(
        self, options: SamplingOptions, seeds: Int[Tensor, " b"], size: tuple[int, int] | None
    ) -> Float[Tensor, "b c H W"]:
        self.check(options)
        image_size = size or (self.preprocessing.height, self.preprocessing.width)
        drawn = self.compressor.draw(seeds.to(self.device), image_size, options.temperature)
        return drawn.clamp(-1, 1)

    @property
    def _prior(self) -> Prior:
        if self.prior is None:
            raise UserError(
                "this is a compressor without a prior; train one: "
                "genstack train prior --compressor RUN --config configs/prior/autoregressive.yaml"
            )
        return self.prior


def entries(module: nn.Module) -> Iterator[bytes]:
    """Names, kinds and values of a module's tensors, for a hash of them all."""
    for name, value in sorted(module.state_dict().items()):
        yield f"{name} {value.dtype} {tuple(value.shape)}".encode()
        yield value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()
