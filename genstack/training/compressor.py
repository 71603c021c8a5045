"""Training of stage one: reconstruction, perceptual and adversarial losses in one backward pass."""

from collections.abc import Callable, Sequence
from itertools import chain
from typing import Literal

import PIL.Image
import torch
from jaxtyping import Float
from torch import Tensor, nn

from genstack.compressor import Compressor, Decoder, Encoder, Reconstruction
from genstack.data import Batch, ImageData
from genstack.data.sheet import sheet
from genstack.errors import UserError
from genstack.losses.adversary import Adversary
from genstack.losses.alignment import Alignment
from genstack.losses.fidelity import psnr
from genstack.losses.perceptual import Perceptual
from genstack.losses.reconstruction import L1, ReconstructionLoss
from genstack.model import Model
from genstack.training.codebook_usage import usage_monitor
from genstack.training.optimization import Optimization
from genstack.training.training import Training


class CompressorTraining(Training[Compressor]):
    """Train a compressor: images to codes and back to images.

    Args:
        compressor: model class; every recipe sets it.
        data: the images.
        reconstruction: reconstruction loss: L1 or L2 on pixels, or LogitLaplace, the negative log-likelihood
            of DALL-E's dVAE.
        perceptual: distance of features of a pretrained network, for sharper images; null for none.
        adversary: adversarial loss: Adversary as in VQGAN, or null for none as in VQ-VAE.
        alignment: Alignment of latents with features of a pretrained network (VA-VAE); null for none.
        optimization: learning rate and schedule of compressor and discriminator.
        ema: decay of the exponential moving average (EMA) of weights that is saved as the model; 0 for none.
        compile: compile encoder and decoder with torch.compile: true, false, or auto: time the first steps,
            and compile if two hours of steps or more remain.
        seed: seed of the initial weights and of noise in training.
    """

    best_metric = ""
    compile_worthwhile = 7200.0  # on a CPU it takes minutes and saves a twentieth
    progress_metrics = (
        "train/reconstruction",
        "train/perceptual",
        "train/adversarial",
        "val/psnr",
        "val/usage",
        "val/rate",
    )

    def __init__(
        self,
        compressor: Callable[[int], Compressor],
        data: ImageData,
        reconstruction: ReconstructionLoss = L1(),
        perceptual: Perceptual | None = None,
        adversary: Callable[[int], Adversary] | None = None,
        alignment: Callable[[int], Alignment] | None = None,
        optimization: Optimization = Optimization(),
        ema: float = 0.999,
        compile: bool | Literal["auto"] = "auto",
        seed: int = 0,
    ):
        torch.manual_seed(seed)
        channels, height, width = data.preprocessing.shape
        super().__init__(compressor(channels), data, optimization, ema, compile, seed)
        self.reconstruction, self.perceptual = reconstruction, perceptual
        self.adversary = adversary(channels) if adversary else None
        self.alignment = alignment(self.model.latent_channels) if alignment else None
        self.usage = usage_monitor(self.model, height, width)
        self.reconstruction.check(self.model.output)
        if self.perceptual is not None:
            self.perceptual.check(channels, height, width)
        if self.adversary is not None:
            self.adversary.discriminator.grid(height, width)
        if self.alignment is not None:
            self.alignment.check(channels, (height, width), self.model.sizes((height, width))[0])
            if self.alignment.adaptive is not None and self.model.latent_layer is None:
                raise UserError(
                    "an adaptive weight of the alignment needs a layer before the quantizer; use "
                    "`projection: 1` or `adaptive: null`"
                )
        self.warned = False
        self.compile_if_asked()

    def networks_to_compile(self) -> list[nn.Module]:
        return [module for module in self.model.modules() if isinstance(module, Encoder | Decoder)]

    @property
    def compile_obstacle(self) -> str:
        if not any(part is not None and part.adaptive for part in (self.adversary, self.alignment)):
            return ""
        return (
            "an adaptive weight needs several backward passes through the decoder, which compiled "
            "networks do not allow; use `compile: auto` or `adaptive: null`"
        )

    @property
    def representation(self) -> str:
        return self.usage.representation

    def to_model(self, weights: Compressor, metrics: dict[str, float]) -> Model:
        return Model(weights, self.data.preprocessing, self.data.class_names, metadata=self.metadata(metrics))

    def networks(self) -> Sequence[nn.Module]:
        others = (self.adversary, self.alignment)
        return [self.model, *(network for network in others if network is not None)]

    def frozen_networks(self) -> Sequence[nn.Module]:
        found = [] if self.perceptual is None else [self.perceptual.to(self.device).network]
        if self.alignment is not None:
            found.append(self.alignment.frozen.to(self.device))
        return [network for network in found if network is not None]

    def objective(self, batch: Batch) -> Tensor:
        reconstruction = self.model(batch.images)
        self.usage.update(reconstruction)
        distances = self.distances(batch.images, reconstruction)
        distance = torch.stack(list(distances.values())).sum()
        alignment = self.alignment_loss(batch.images, reconstruction, distance)
        terms = distances | alignment | reconstruction.losses
        if self.adversary is not None:
            weight = self.adversary.generator_weight(self.global_step, self.trainer.max_steps)
            if weight > 0:
                generator_loss = self.adversary.generator_loss(reconstruction.images)
                adaptive = self.adversary.adaptive_weight(distance, generator_loss, self.model.last_layer)
                terms["adversarial"] = weight * adaptive * generator_loss
                self.log_step({"adaptive_weight": adaptive})
            discriminator = self.adversary.discriminator_loss(
                batch.images, reconstruction.images, self.global_step
            )
            terms |= discriminator.losses
            self.log_step({"adversarial_weight": weight})
            self.log_step(
                {"real_accuracy": discriminator.accuracy_real, "fake_accuracy": discriminator.accuracy_fake}
            )
        self.log_step({name: term for name, term in terms.items() if name != "r1"})
        return torch.stack(list(terms.values())).sum()

    def distances(
        self, images: Float[Tensor, "b c H W"], reconstruction: Reconstruction
    ) -> dict[str, Float[Tensor, ""]]:
        """Compute weighted distances between reconstructions and originals, by name."""
        terms = {
            "reconstruction": self.reconstruction.weight * self.reconstruction.of(reconstruction, images)
        }
        if self.perceptual is not None:
            terms["perceptual"] = self.perceptual.weight * self.perceptual(reconstruction.images, images)
        return terms

    def alignment_loss(
        self,
        images: Float[Tensor, "b c H W"],
        reconstruction: Reconstruction,
        distance: Float[Tensor, ""] | None = None,
    ) -> dict[str, Float[Tensor, ""]]:
        """Compute the weighted distance of latents from features, by name; nothing without alignment.

        Args:
            images: the originals.
            reconstruction: output of the compressor.
            distance: distance of reconstructions, for the adaptive weight; None in validation, without it.
        """
        if self.alignment is None:
            return {}
        assert reconstruction.latents is not None  # `latent_channels` says so
        loss, weight = self.alignment(reconstruction.latents, images), self.alignment.weight
        if self.alignment.adaptive is not None and distance is not None:
            assert self.model.latent_layer is not None
            adaptive = self.alignment.adaptive(distance, loss, self.model.latent_layer)
            self.log_step({"adaptive_alignment": adaptive})
            return {"alignment": weight * adaptive * loss}
        return {"alignment": weight * loss}

    def after_step(self, skipped: bool) -> None:
        self.model.after_step(skipped)
        self.usage.after_step(skipped)
        if self.adversary is not None:
            self.adversary.after_step(skipped)
            if self.adversary.penalty is not None:
                self.log_step({"r1": self.adversary.latest_penalty.clone()})
        if (self.global_step + 1) % self.trainer.log_every_n_steps == 0:  # type: ignore[attr-defined]
            self.log_step(self.usage.training_metrics())
            self.warn()

    def warn(self) -> None:
        """Warn once about an unused codebook or unused latents, after a tenth of the run."""
        if self.warned or self.global_step < self.trainer.max_steps // 10:
            return
        if warning := self.usage.warning():
            self.warned = True
            self.print(f"warning: at step {self.global_step} {warning}")

    def predict(self, batch: Batch) -> Reconstruction:
        return self.ema_model(batch.images)

    def log_prediction(self, batch: Batch, prediction: Reconstruction) -> None:
        self.usage.update_validation(prediction)
        terms = self.distances(batch.images, prediction) | self.alignment_loss(batch.images, prediction)
        terms["psnr"] = psnr(batch.images, prediction.images).mean()
        self.log_validation(terms, len(batch.images))

    def joint_metrics(self) -> dict[str, float]:
        return self.usage.validation_metrics()

    def image_sheet(self, count: int) -> PIL.Image.Image:
        """Draw validation images beside their reconstructions."""
        held_out = self.data.examples("validation", max(1, count // 2))
        assert isinstance(held_out, Batch)
        images = held_out.images.to(self.device)
        pairs = zip(images, self.ema_model(images).images, strict=True)
        return sheet(torch.stack(list(chain(*pairs))).cpu(), columns=8)

    def charts(self) -> dict[str, PIL.Image.Image]:
        """Draw the histogram of recent codes."""
        chart = self.usage.chart()
        return {} if chart is None else {"codes": chart}
