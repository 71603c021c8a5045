"""Training of stage two: a prior over the codes or latents of a frozen compressor."""

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import islice
from math import ceil
from typing import Any, Literal

import PIL.Image
import torch
from torch import Tensor, nn

from genstack.conditions import ClassLabels, Condition, Unconditional
from genstack.data import Batch
from genstack.data.batch import EncodedBatch
from genstack.data.data import Data
from genstack.data.sheet import sheet
from genstack.description import describe, identity
from genstack.errors import UserError
from genstack.layout import Layout
from genstack.model import Model
from genstack.prior import Prior, SamplingOptions, image_seeds
from genstack.training.held_out import held_out
from genstack.training.optimization import Optimization
from genstack.training.training import Training
from genstack.transformer.backbone import FEWEST_PASSES
from genstack.transformer.transformer import Transformer

FITTED = 1024  # training images from which a prior measures latents


class PriorTraining(Training[Prior]):
    """Train a prior: the distribution of a compressor's codes or latents.

    Args:
        prior: the model.
        compressor: the frozen compressor, with its preprocessing.
        data: images, or codes or latents of the compressor.
        condition: condition of the prior; null for class labels if the data has any, and none otherwise.
        optimization: learning rate and schedule.
        ema: decay of the exponential moving average (EMA) of weights that is saved as the model; 0 for none.
        compile: compile the transformers with torch.compile: true, false, or auto: time the first steps,
            and compile if an hour of steps or more remains.
        seed: seed of the initial weights and of noise in training.
    """

    compile_worthwhile = 3600.0  # on a CPU it takes up to two minutes and saves 0.01 to 0.31 of a step

    def __init__(
        self,
        prior: Callable[[Layout, Condition], Prior],
        compressor: Model,
        data: Data,
        condition: Condition | None = None,
        optimization: Optimization = Optimization(weight_decay=0.05),
        ema: float = 0.999,
        compile: bool | Literal["auto"] = "auto",
        seed: int = 0,
    ):
        torch.manual_seed(seed)
        if condition is None:
            condition = ClassLabels() if data.class_names else Unconditional()
        compressor.check_preprocessing(data.preprocessing)
        _, height, width = data.preprocessing.shape
        self.layout: Layout = compressor.compressor.layout(height, width)
        learner = prior(self.layout, condition.fit(data.info))
        learner.attach(compressor.compressor)
        if learner.needs_images and data.encoded:
            raise UserError(
                f"{learner.needs_images} needs images, which training encodes anew in every step, but "
                f"{data.source} is an archive; give the images as --data.source, or leave out "
                f"model.prior.{learner.needs_images}"
            )
        super().__init__(learner, data, optimization, ema, compile, seed)
        self.held_out = held_out(self.model)
        self.best_metric = f"val/{self.held_out.best_metric}"
        self.progress_metrics = ("train/loss", *(f"val/{name}" for name in self.held_out.progress_metrics))
        self.identity = identity(compressor)
        self.frozen = (compressor,)  # a tuple keeps it out of the module tree, optimizer and checkpoint
        self.compile_if_asked()

    @property
    def transformers(self) -> list[Transformer]:
        """Transformers of the prior and of its condition."""
        return [module for module in self.model.modules() if isinstance(module, Transformer)]

    def networks_to_compile(self) -> list[nn.Module]:
        return list(self.transformers)

    @property
    def compile_obstacle(self) -> str:
        if self.transformers:
            return ""
        return f"{type(self.model).__name__} has no transformer to compile; leave out model.compile"

    @property
    def representation(self) -> str:
        return self.layout.representation

    def to_model(self, weights: Prior, metrics: dict[str, float]) -> Model:
        data, metadata = self.data, self.metadata(metrics)
        return Model(self.compressor.compressor, data.preprocessing, data.class_names, weights, metadata)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint["compressor"] = self.identity
        checkpoint["condition"] = describe(self.model.condition)

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        if checkpoint["compressor"] != self.identity:
            raise UserError(
                "the compressor is not the one that this run began with; restore it, or start a new run with "
                "another --name"
            )
        if checkpoint.get("condition") not in (None, describe(self.model.condition)):
            raise UserError(
                "classes, captions or the condition's network differ from those that this run began with; "
                "restore them, or start a new run with another --name"
            )

    def new_model(self) -> Prior:
        prior = super().new_model()
        prior.attach(self.compressor.compressor)
        return prior

    @property
    def compressor(self) -> Model:
        """The frozen compressor."""
        return self.frozen[0]

    def networks(self) -> Sequence[nn.Module]:
        return [self.model]

    def frozen_networks(self) -> Sequence[nn.Module]:
        networks = [self.compressor.compressor, self.model.condition.network]
        return [network.to(self.device) for network in networks if network is not None]

    def on_fit_start(self) -> None:
        super().on_fit_start()
        self.model.fit(
            self.compressor.compressor, self.posteriors(min(FITTED, len(self.data.split.training)))
        )
        for ours, theirs in zip(self.ema.module.buffers(), self.model.buffers(), strict=True):
            ours.copy_(theirs)

    def repeated_passes(self, steps: int, max_steps: int) -> float:
        """Passes over the images in so many steps, if a training repeats the same predictions often."""
        often = self.model.repetitive and self.passes(max_steps) >= FEWEST_PASSES
        return self.passes(steps) if often else 0.0

    def optimization_summary(self, max_steps: int) -> str:
        passes = (0.0, self.repeated_passes(max_steps - 1, max_steps))
        found = {each.backbone.dropout_after(count) for each in self.transformers for count in passes}
        shares = sorted(found - {0.0})
        dropout = " to ".join(f"{share:g}" for share in dict.fromkeys([*shares[:1], *shares[-1:]]))
        return super().optimization_summary(max_steps) + (f", dropout {dropout}" if dropout else "")

    @torch.no_grad()
    def posteriors(self, images: int) -> Iterator[Tensor]:
        """Encode this process's share of the first training images."""
        data = self.data.training_loader(
            0, self.micro_batch, self.trainer.global_rank, self.trainer.world_size
        )
        batches = ceil(images / self.micro_batch / self.trainer.world_size)
        for batch in islice(data, batches):
            yield batch.to(self.device).posterior(self.compressor.compressor.posterior)

    @torch.no_grad()
    def encode(self, batch: Batch | EncodedBatch, prior: Prior) -> tuple[Tensor, Tensor]:
        """Encode a batch to codes or latents, and condition values."""
        posterior = batch.posterior(partial(prior.encode, self.compressor.compressor))
        return prior.read(posterior), prior.condition.encode(batch.inputs)

    def objective(self, batch: Batch | EncodedBatch) -> Tensor:
        self.model.before_step(self.global_step / self.trainer.max_steps)
        for transformer in self.transformers:
            transformer.set_dropout(self.repeated_passes(self.global_step, self.trainer.max_steps))
        return self.model.loss(*self.encode(batch, self.model))

    def image_sheet(self, count: int) -> PIL.Image.Image:
        """Draw samples for fixed conditions and seeds."""
        condition, examples = self.model.condition, self.data.examples("validation", count)
        inputs = condition.modality.preview(
            examples.inputs[[index % len(examples) for index in range(count)]]
        )
        seeds = image_seeds(self.seed, range(count))
        values = self.ema_model.sample(condition.encode(inputs).to(self.device), SamplingOptions(), seeds)
        images = self.compressor.compressor.decode(values, self.layout)
        labels = [", ".join(words.values()) for words in condition.modality.describe(inputs)]
        return sheet(images.cpu(), columns=8, labels=labels if any(labels) else None)

    def on_validation_epoch_start(self) -> None:
        self.held_out.start(self.device)

    def predict(self, batch: Batch | EncodedBatch) -> tuple[Tensor, Tensor]:
        """Encode a batch, and measure each image."""
        values, condition = self.encode(batch, self.ema_model)
        return values, self.held_out.measure(self.ema_model, values, condition)

    def log_prediction(self, batch: Batch | EncodedBatch, prediction: tuple[Tensor, Tensor]) -> None:
        self.log_validation(self.held_out.metrics(*prediction), len(batch))

    def joint_metrics(self) -> dict[str, float]:
        return self.held_out.joint_metrics()
