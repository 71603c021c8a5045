"""Training of stage one: reconstruction, perceptual distance and an adversary in one backward pass."""

from collections.abc import Callable, Sequence
from itertools import chain

import PIL.Image
import torch
from jaxtyping import Float
from torch import Tensor, nn

from genstack.compressor import Compressor, Decoder, Encoder, Reconstruction
from genstack.data import Batch, ImageData
from genstack.data.sheet import sheet
from genstack.errors import UserError
from genstack.losses.adversary import Adversary
from genstack.losses.fidelity import psnr
from genstack.losses.perceptual import Perceptual
from genstack.losses.reconstruction import L1, ReconstructionLoss
from genstack.model import Model
from genstack.training.health import health
from genstack.training.optimization import Optimization
from genstack.training.training import Training


class CompressorTraining(Training[Compressor]):
    """Train a compressor: images become codes, and images again.

    Args:
        compressor: the model itself.
        data: the images.
        reconstruction: distance of pixels, or LogitLaplace: their likelihood, as DALL-E's dVAE has it.
        perceptual: distance as a trained network sees it, for sharp images: LPIPS, or null for none.
        adversary: what learns to tell reconstructions from images: Adversary for a VQGAN, null for a VQ-VAE.
        optimization: learning rate and its schedule, for compressor and discriminator alike.
        ema: decay of the averaged weights, which are the ones that get used; 0 for none.
        compile: compile encoder and decoder with torch.compile; pays on a GPU, after some minutes.
        seed: of the initial weights and of all noise in training.
    """

    best = ""
    shown = (
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
        optimization: Optimization = Optimization(),
        ema: float = 0.999,
        compile: bool = False,
        seed: int = 0,
    ):
        torch.manual_seed(seed)
        channels, height, width = data.preprocessing.shape
        super().__init__(compressor(channels), data, optimization, ema, seed)
        self.reconstruction, self.perceptual = reconstruction, perceptual
        self.adversary = adversary(channels) if adversary else None
        self.health = health(self.model, height, width)
        self.reconstruction.check(self.model.output)
        if self.perceptual is not None:
            self.perceptual.check(channels, height, width)
        if self.adversary is not None:
            self.adversary.discriminator.grid(height, width)
        self.warned = False
        if compile:
            if self.adversary is not None and self.adversary.adaptive is not None:
                raise UserError(
                    "an adaptive weight goes back through the decoder more than once, which a compiled one "
                    "cannot; use `compile: false` or `adaptive: null`"
                )
            for half in self.model.modules():
                if isinstance(half, Encoder | Decoder):
                    half.compile()

    @property
    def becomes(self) -> str:
        return self.health.becomes

    def model_now(self, learned: Compressor, measured: dict[str, float]) -> Model:
        return Model(learned, self.data.preprocessing, self.data.class_names, made=self.made(measured))

    def networks(self) -> Sequence[nn.Module]:
        return [self.model] if self.adversary is None else [self.model, self.adversary]

    def outside(self) -> Sequence[nn.Module]:
        judge = None if self.perceptual is None else self.perceptual.to(self.device).network
        return [] if judge is None else [judge]

    def objective(self, batch: Batch) -> Tensor:
        reconstruction = self.model(batch.images)
        self.health.add(reconstruction)
        distances = self.distances(batch.images, reconstruction)
        terms = distances | reconstruction.losses
        if self.adversary is not None:
            push = self.adversary.push(self.global_step, self.trainer.max_steps)
            if push > 0:
                pushed = self.adversary.generator_loss(reconstruction.images)
                closeness = torch.stack(list(distances.values())).sum()
                balance = self.adversary.balance(closeness, pushed, self.model.last_layer)
                terms["adversarial"] = push * balance * pushed
                self.note({"adversary_balance": balance})
            judged = self.adversary.discriminator_loss(batch.images, reconstruction.images, self.global_step)
            terms |= judged.losses
            self.note({"adversary_push": push})
            self.note({"real_accuracy": judged.accuracy_real, "fake_accuracy": judged.accuracy_fake})
        self.note({name: term for name, term in terms.items() if name != "r1"})
        return torch.stack(list(terms.values())).sum()

    def distances(
        self, images: Float[Tensor, "b c H W"], reconstruction: Reconstruction
    ) -> dict[str, Float[Tensor, ""]]:
        """The weighted terms that compare reconstructions with their originals."""
        terms = {
            "reconstruction": self.reconstruction.weight * self.reconstruction.of(reconstruction, images)
        }
        if self.perceptual is not None:
            terms["perceptual"] = self.perceptual.weight * self.perceptual(reconstruction.images, images)
        return terms

    def after_step(self, skipped: bool) -> None:
        self.model.after_step(skipped)
        self.health.after_step(skipped)
        if self.adversary is not None:
            self.adversary.after_step(skipped)
            if self.adversary.penalty is not None:
                self.note({"r1": self.adversary.paid.clone()})
        if (self.global_step + 1) % self.trainer.log_every_n_steps == 0:  # type: ignore[attr-defined]
            self.note(self.health.trained())
            self.warn()

    def warn(self) -> None:
        """Say once, in plain words, what is wrong between the two halves, after a tenth of the run."""
        if self.warned or self.global_step < self.trainer.max_steps // 10:
            return
        if complaint := self.health.complaint():
            self.warned = True
            self.print(f"warning: at step {self.global_step} {complaint}")

    def look(self, batch: Batch) -> Reconstruction:
        return self.used(batch.images)

    def judge(self, batch: Batch, made: Reconstruction) -> None:
        self.health.hold(made)
        terms = self.distances(batch.images, made)
        terms["psnr"] = psnr(batch.images, made.images).mean()
        self.measure(terms, len(batch.images))

    def measured_together(self) -> dict[str, float]:
        return self.health.held_out()

    def picture(self, count: int) -> PIL.Image.Image:
        """Held-out images, each beside its reconstruction."""
        held_out = self.data.examples("validation", max(1, count // 2))
        assert isinstance(held_out, Batch)
        images = held_out.images.to(self.device)
        pairs = zip(images, self.used(images).images, strict=True)
        return sheet(torch.stack(list(chain(*pairs))).cpu(), columns=8)

    def charts(self) -> dict[str, PIL.Image.Image]:
        """How often each code was used lately, where there are codes."""
        chart = self.health.picture()
        return {} if chart is None else {"codes": chart}
