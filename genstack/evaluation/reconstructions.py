"""How well a compressor brings images back, how it uses its codes, and what a prior makes of them."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import torch
from torch import Tensor

from genstack.compressor.usage import Usage, Window, usage
from genstack.data import Batch
from genstack.errors import UserError
from genstack.evaluation import sets
from genstack.evaluation.card import Card, Number
from genstack.evaluation.extractor import Extractor
from genstack.evaluation.neighbours import small
from genstack.evaluation.process_group import Columns, ProcessGroup
from genstack.evaluation.reference import Reference, standing_out
from genstack.evaluation.rounding import as_saved
from genstack.losses.fidelity import psnr, ssim
from genstack.losses.perceptual import LPIPS
from genstack.model import Model

SHOWN = 8  # best and worst images that a card names


@dataclass
class Reconstructions:
    """The real images, sent through a compressor and back.

    Args:
        model: whose compressor, and prior if there is one.
        reference: the real images.
        extractors: networks to compare both sets by.
        perceptual: distances of each image from its original, by name.
    """

    model: Model
    reference: Reference
    extractors: Sequence[Extractor]
    perceptual: Mapping[str, LPIPS]

    def look(self, indices: Sequence[int]) -> Columns:
        """All that is known of some of the images."""
        batch = self.reference.batch(indices)
        images, preprocessing = batch.images, self.reference.data.preprocessing
        with torch.no_grad():
            passed = self.model.compressor(images.to(self.model.device))
            back = as_saved(passed.images.clamp(-1, 1), preprocessing)
            found = closeness(images, back, self.perceptual, self.model.device)
            for side, seen in (("real", images), ("fake", back)):
                views = sets.look(self.extractors, seen)
                found |= {f"{side}:{name}": view for name, view in views.items()}
            if passed.codes is not None:
                found["codes"] = passed.codes.cpu()
                found |= self.nats(batch, passed.codes)
            elif passed.nats is not None:
                found["rate"] = passed.nats.double().flatten(1).sum(1).cpu()
        return found | {"small": small(images), "labels": batch.labels}

    def nats(self, batch: Batch, codes: Tensor) -> Columns:
        """What the codes of each image weigh under the prior, per code; nothing without a prior."""
        prior = self.model.prior
        if prior is None:
            return {}
        condition = prior.condition.values(batch.facts.to(self.model.device))
        return {"nats": prior.nats(codes, condition).double().cpu() / codes.shape[1]}

    def judge(self, card: Card, found: Columns) -> None:
        """Write into a card what follows of all the images."""
        judge_closeness(card, found)
        real, fake = split(found)
        sets.compare(card, self.extractors, real, fake, "r", distances_only=True)
        if "codes" in found:
            self.judge_codes(card, found["codes"])
        if "rate" in found:
            meaning = "divergence of an image's latents from the standard normal"
            sets.mean(card, "rate", found["rate"], meaning, unit="nats")
            pixels = math.prod(self.reference.data.size)
            bits = found["rate"] / math.log(2) / pixels
            sets.mean(card, "bits/pixel (rate)", bits, "of latents, under the standard normal", "lower")
        low, high = standing_out(found["psnr"], SHOWN)
        card.images |= {
            name: [self.told(index, found) for index in chosen]
            for name, chosen in (("worst", low), ("best", high))
        }

    def told(self, index: int, found: Columns) -> dict[str, float | str]:
        """One image that stands out."""
        numbers = {name: float(found[name][index]) for name in ("psnr", *self.perceptual) if name in found}
        return {"key": self.reference.key(index), **numbers}

    @cached_property
    def window(self) -> Window:
        """How codes are counted."""
        return Window(self.model.compressor.layout(*self.reference.data.size))

    def judge_codes(self, card: Card, codes: Tensor) -> None:
        """Usage, and bits of an image as its codes are stored."""
        counted, size = self.window.numbers(codes), self.window.codebook_size
        health, layout = usage(counted, size), self.window.layout
        pixels = math.prod(layout.image_size)
        told = f"of {size:,} codes, over {len(counted):,} that {len(codes):,} images have"
        kind = "joint codes of each place" if self.window.joint else "symbols of each depth"
        stored = layout.length * math.ceil(math.log2(max(2, layout.codebook_size))) / pixels
        entropy = math.log2(max(1.0, health.perplexity)) * counted.numel() / len(codes) / pixels
        card.numbers += [
            Number("codebook usage", health.share, f"share {told}; {kind}", "higher"),
            Number("perplexity", health.perplexity, "exp of the entropy of the codes", "higher"),
            Number("dead codes", float(health.dead), f"never seen, {told}", "lower"),
            Number("bits/pixel (stored)", stored, "each code in a whole number of bits", "lower"),
            Number("bits/pixel (unigram)", entropy, "at the entropy of single codes", "lower"),
        ]
        if len(layout.grids) > 1:
            for number, (grid, part) in enumerate(zip(layout.grids, layout.split(codes), strict=True), 1):
                window = Window(replace(layout, grids=(grid,)))
                self.judge_grid(card, number, grid, usage(window.numbers(part.flatten(1)), size))

    def judge_grid(self, card: Card, number: int, grid: tuple[int, int], health: Usage) -> None:
        """Usage of one grid of several, where a collapse would hide among the codes of the others."""
        name, seen = f"grid {number}, {grid[0]}x{grid[1]}", f"of the codes of grid {number}, coarse to fine"
        card.numbers += [
            Number(f"codebook usage ({name})", health.share, f"share {seen}", "higher"),
            Number(f"perplexity ({name})", health.perplexity, f"exp of the entropy {seen}", "higher"),
        ]

    def judge_prior(self, card: Card, nats: Tensor, codes: Tensor, trained: Tensor | None) -> None:
        """Nats and bits under the prior, beside what is easy to reach.

        Args:
            card: that is written into.
            nats: per code, of each image.
            codes: of the images.
            trained: nats per code of training images; None where these are not known.
        """
        assert self.model.prior is not None
        layout, kind = self.model.prior.layout, self.model.prior.likelihood
        sets.mean(card, "nats/code", nats, f"of the real images' codes under the prior ({kind})", "lower")
        counts = torch.bincount(codes.flatten(), minlength=layout.codebook_size).double()
        unigram = float(torch.special.entr(counts / counts.sum()).sum())
        card.numbers += [
            Number("nats/code (unigram)", unigram, "entropy of single codes; a prior should be below"),
            Number("nats/code (uniform)", math.log(layout.codebook_size), "ln of the codebook size"),
        ]
        if trained is not None:
            told = f"of {len(trained)} training images; far below held-out ones: learned by heart"
            sets.mean(card, "nats/code (training)", trained, told)
        bits = nats * layout.length / math.log(2) / math.prod(layout.image_size)
        sets.mean(
            card, f"bits/pixel (prior, {kind})", bits, "at the entropy of codes under the prior", "lower"
        )


def trained_nats(reconstructions: Reconstructions, together: ProcessGroup, batch_size: int) -> Tensor:
    """Nats per code of the real images, and nothing else of them."""

    def look(indices: Sequence[int]) -> Columns:
        batch, model = reconstructions.reference.batch(indices), reconstructions.model
        with torch.no_grad():
            return reconstructions.nats(batch, model.compressor.encode(batch.images.to(model.device)))

    return together.columns(len(reconstructions.reference), batch_size, look)["nats"]


def closeness(
    images: Tensor, others: Tensor, perceptual: Mapping[str, LPIPS], device: torch.device | str
) -> Columns:
    """How close images are to their originals, one by one."""
    found = {"psnr": psnr(images, others)}
    try:
        found["ssim"] = ssim(images, others)
    except UserError:  # `judge_closeness` says so, once
        found["ssim"] = torch.full((len(images),), torch.nan)
    with torch.no_grad():
        for name, distance in perceptual.items():
            found[name] = distance.distances(others.to(device), images.to(device)).float().cpu()
    return found


def judge_closeness(card: Card, found: Columns) -> None:
    """Write how close images are to their originals into a card."""
    meaning = "of each image after rounding to 8 bits, mean over images"
    sets.mean(card, "PSNR", found["psnr"], meaning, "higher", "dB")
    if found["ssim"].isnan().any():
        card.refused["SSIM"] = "its window of 11 x 11 pixels is larger than the images"
    else:
        sets.mean(card, "SSIM", found["ssim"], "Gaussian window of 11 x 11, mean over images", "higher")
    for name in found:
        if name.startswith("LPIPS"):
            sets.mean(card, name, found[name], "version 0.1, mean over images", "lower")


def split(found: Columns) -> tuple[Columns, Columns]:
    """What networks see in the real images, and in the others."""
    real, fake = (
        {name.removeprefix(side): column for name, column in found.items() if name.startswith(side)}
        for side in ("real:", "fake:")
    )
    return real, fake


def distances(
    nets: Sequence[str], shape: tuple[int, int, int], device: torch.device | str
) -> tuple[dict[str, LPIPS], dict[str, str]]:
    """LPIPS by its networks' names; of those that there is not, why."""
    found, missing = {}, {}
    for net in nets:
        name = f"LPIPS-{net.capitalize() if net == 'alex' else net.upper()}"
        distance = LPIPS(net)  # type: ignore[arg-type]
        try:
            distance.check(*shape)
            found[name] = distance.to(device)
        except UserError as error:
            missing[name] = str(error)
    return found, missing
