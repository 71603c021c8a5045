"""Reconstructions: similarity to the images, use of the codebook, and likelihood under the prior."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float, Int
from torch import Tensor

from genstack.compressor.usage import Window, usage
from genstack.data import Batch
from genstack.data.images import Preprocessing
from genstack.evaluation.card import Number, Skipped
from genstack.evaluation.extractor import Features
from genstack.evaluation.measure import extract
from genstack.evaluation.networks import Networks
from genstack.evaluation.perturbation import perturb
from genstack.evaluation.reference import as_saved
from genstack.layout import CodeLayout
from genstack.losses.fidelity import WINDOW, psnr, ssim
from genstack.model import Model
from genstack.prior import CodePrior, LatentPrior


@dataclass(frozen=True)
class Similarity:
    """Similarity of each image to its original.

    Args:
        psnr: PSNR in dB.
        ssim: None for images smaller than its window.
        lpips: LPIPS by metric name.
    """

    psnr: Float[Tensor, " n"]
    ssim: Float[Tensor, " n"] | None
    lpips: dict[str, Float[Tensor, " n"]]


@dataclass(frozen=True)
class Reconstructions:
    """Measurements of reconstructions, one row per image.

    Args:
        similarity: similarity to the images.
        features: features by extractor name.
        codes: None for latents without codes.
        nats: of the codes or latents under the prior; None without a prior.
        rate: nats of the latents; None for codes.
        perturbed: features of reconstructions of perturbed codes, by rate and extractor name.
    """

    similarity: Similarity
    features: dict[str, Features]
    codes: Int[Tensor, "n length"] | None
    nats: Float[Tensor, " n"] | None
    rate: Float[Tensor, " n"] | None
    perturbed: dict[float, dict[str, Features]]


def similarity(
    images: Float[Tensor, "b c H W"], others: Float[Tensor, "b c H W"], networks: Networks
) -> Similarity:
    """Compare images with their originals, pair by pair."""
    with torch.no_grad():
        device = networks.device
        lpips = {
            name: distance.distances(others.to(device), images.to(device)).float().cpu()
            for name, distance in networks.lpips.items()
        }
    large = min(images.shape[-2:]) >= WINDOW
    return Similarity(psnr(images, others), ssim(images, others) if large else None, lpips)


@torch.no_grad()
def measure_batch(
    model: Model,
    batch: Batch,
    preprocessing: Preprocessing,
    networks: Networks,
    indices: Sequence[int] = (),
    rates: Sequence[float] = (),
) -> Reconstructions:
    """Reconstruct a batch of images and measure the result.

    Args:
        model: the model.
        batch: the images.
        preprocessing: of the images.
        networks: networks of the metrics.
        indices: index of each image, for perturbations.
        rates: shares of codes that are perturbed for further reconstructions.
    """
    output = model.compressor(batch.images.to(model.device))
    images = as_saved(output.images.clamp(-1, 1), preprocessing)
    codes, rate = output.codes, None
    if codes is None and output.nats is not None:
        rate = output.nats.double().flatten(1).sum(1).cpu()
    return Reconstructions(
        similarity(batch.images, images, networks),
        extract(images, networks.extractors),
        None if codes is None else codes.cpu(),
        None if model.prior is None else image_nats(model, batch, codes),
        rate,
        {
            each: extract(perturbed_images(model, batch, preprocessing, each, indices), networks.extractors)
            for each in rates
        },
    )


def perturbed_images(
    model: Model, batch: Batch, preprocessing: Preprocessing, rate: float, indices: Sequence[int]
) -> Float[Tensor, "b c H W"]:
    """Decode codes or latents of which a share is perturbed."""
    layout = model.compressor.layout(*batch.images.shape[-2:])
    values = perturb(model.compressor.encode(batch.images.to(model.device)), layout, rate, indices)
    return as_saved(model.compressor.decode(values, layout).float().clamp(-1, 1).cpu(), preprocessing)


@torch.no_grad()
def image_nats(model: Model, batch: Batch, codes: Int[Tensor, "b n"] | None = None) -> Float[Tensor, " b"]:
    """Negative log-likelihood of each image's codes or latents.

    Args:
        model: with a prior.
        batch: the images.
        codes: of the images, if they are known.
    """
    prior = model.prior
    assert prior is not None
    posterior = model.compressor.posterior(batch.images.to(model.device)) if codes is None else codes
    values = prior.condition.encode(batch.inputs.to(model.device))
    return prior.nats(prior.read(posterior), values).double().cpu()


def similarity_numbers(found: Similarity) -> Iterator[Number | Skipped]:
    """Means of PSNR, SSIM and LPIPS."""
    yield Number.mean("PSNR", found.psnr, "mean over images, both rounded to 8 bits", "higher", "dB")
    if found.ssim is None:
        yield Skipped("SSIM", "its window of 11 x 11 pixels is larger than the images")
    else:
        yield Number.mean("SSIM", found.ssim, "mean over images, Gaussian window of 11 x 11", "higher")
    for name, values in found.lpips.items():
        yield Number.mean(name, values, "version 0.1, mean over images", "lower")


def codebook_numbers(codes: Int[Tensor, "n length"], layout: CodeLayout) -> Iterator[Number]:
    """Codebook usage, also of each grid, and bits per pixel of the codes."""
    window = Window(layout)
    counted, size = window.numbers(codes), window.codebook_size
    whole, pixels = usage(counted, size), math.prod(layout.image_size)
    among = f"of {size:,} codes, in {len(counted):,} codes of {len(codes):,} images"
    stored = layout.length * math.ceil(math.log2(max(2, layout.codebook_size))) / pixels
    of_group = math.log2(max(1.0, whole.perplexity / window.groups))
    entropy = of_group * counted.numel() / len(codes) / pixels
    effective = "effective number of equally frequent codes: exp of the entropy"
    yield Number("codebook usage", whole.share, f"share {among}; {window.kind}", "higher")
    yield Number("perplexity", whole.perplexity, effective, "higher")
    yield Number("dead codes", float(whole.dead), f"never used, {among}", "lower")
    yield Number("bits/pixel (stored)", stored, "with a whole number of bits per code", "lower")
    yield Number("bits/pixel (unigram)", entropy, "at the entropy of code frequencies", "lower")
    if len(layout.grids) == 1:
        return
    for number, (grid, part) in enumerate(zip(layout.grids, layout.split(codes), strict=True), 1):
        of_grid = usage(Window(replace(layout, grids=(grid,))).numbers(part.flatten(1)), size)
        name, where = f"grid {number}, {grid[0]}x{grid[1]}", f"of grid {number}, coarse to fine"
        yield Number(f"codebook usage ({name})", of_grid.share, f"share of the codes {where}", "higher")
        yield Number(f"perplexity ({name})", of_grid.perplexity, f"{effective}, {where}", "higher")


def rate_numbers(rate: Float[Tensor, " n"], pixels: int) -> Iterator[Number]:
    """Rate of latents without codes, in nats and in bits per pixel."""
    meaning = "KL divergence of an image's latents from the standard normal"
    yield Number.mean("rate", rate, meaning, unit="nats")
    bits = rate / math.log(2) / pixels
    yield Number.mean("bits/pixel (rate)", bits, "of the latents, under the standard normal", "lower")


def likelihood_numbers(
    prior: CodePrior,
    nats: Float[Tensor, " n"],
    codes: Int[Tensor, "n length"],
    training: Float[Tensor, " k"] | None,
) -> Iterator[Number]:
    """Likelihood of codes under the prior, in nats per code and bits per pixel, beside baselines.

    Args:
        prior: prior over the codes.
        nats: of each image.
        codes: codes of the images.
        training: nats of training images; None if they are unknown.
    """
    layout, kind = prior.layout, prior.likelihood
    meaning = f"negative log-likelihood of the real images' codes under the prior ({kind})"
    yield Number.mean("nats/code", nats / layout.length, meaning, "lower")
    entropy = layout.unigram_nats(layout.count_parts(codes))
    yield Number("nats/code (unigram)", entropy, "baseline: entropy of code frequencies")
    yield Number("nats/code (uniform)", math.log(layout.codebook_size), "baseline: ln of the codebook size")
    if training is not None:
        yield Number.mean("nats/code (training)", training / layout.length, memorisation(training))
    bits = nats / math.log(2) / math.prod(layout.image_size)
    yield Number.mean(
        f"bits/pixel (prior, {kind})", bits, "with entropy coding of the codes under the prior", "lower"
    )


def density_numbers(
    prior: LatentPrior, nats: Float[Tensor, " n"], training: Float[Tensor, " k"] | None
) -> Iterator[Number]:
    """Density of latents under the prior, in nats per latent number; no likelihood of codes or pixels.

    Args:
        prior: over the latents.
        nats: of each image.
        training: nats of training images; None if they are unknown.
    """
    numbers = math.prod(prior.layout.shape)
    meaning = f"negative log-density of the real images' latents under the prior ({prior.likelihood})"
    yield Number.mean("nats/latent dimension", nats / numbers, meaning, "lower")
    deviations = float(prior.standardization.deviation.log().mean())
    normal = deviations + math.log(2 * math.pi * math.e) / 2
    yield Number("nats/latent dimension (normal)", normal, "baseline: entropy of independent normals")
    if training is not None:
        yield Number.mean("nats/latent dimension (training)", training / numbers, memorisation(training))


def memorisation(training: Float[Tensor, " k"]) -> str:
    """Meaning of the likelihood of training images."""
    return f"of {len(training)} training images; far below held-out images means memorisation"
