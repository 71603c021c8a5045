"""Training of stage two: a prior over the codes of a frozen compressor."""

import math
from collections.abc import Callable, Sequence
from typing import Any

import PIL.Image
import torch
from torch import Tensor, nn

from genstack.conditions import ClassLabels, Condition, Unconditional
from genstack.data import Batch
from genstack.data.batch import CodeBatch
from genstack.data.data import Data
from genstack.data.sheet import sheet
from genstack.description import describe, identity
from genstack.errors import UserError
from genstack.layout import CodeLayout
from genstack.model import Model
from genstack.prior import Prior, SamplingOptions, image_seeds
from genstack.training.optimization import Optimization
from genstack.training.training import Training
from genstack.transformer.transformer import Transformer


class PriorTraining(Training[Prior]):
    """Train a prior: the distribution of a compressor's codes.

    Args:
        prior: the model.
        compressor: the frozen compressor, with its preprocessing.
        data: images, or codes of the compressor.
        condition: condition of the prior; null for class labels if the data has any, and none otherwise.
        optimization: learning rate and schedule.
        ema: decay of the exponential moving average (EMA) of weights that is saved as the model; 0 for none.
        compile: compile the transformer with torch.compile; slow to start, faster afterwards.
        seed: seed of the initial weights and of noise in training.
    """

    best_metric = "val/nats"
    progress_metrics = ("train/loss", "val/nats", "val/unigram", "val/uniform")

    def __init__(
        self,
        prior: Callable[[CodeLayout, Condition], Prior],
        compressor: Model,
        data: Data,
        condition: Condition | None = None,
        optimization: Optimization = Optimization(weight_decay=0.05),
        ema: float = 0.999,
        compile: bool = False,
        seed: int = 0,
    ):
        torch.manual_seed(seed)
        if condition is None:
            condition = ClassLabels() if data.class_names else Unconditional()
        compressor.check_preprocessing(data.preprocessing)
        _, height, width = data.preprocessing.shape
        self.layout: CodeLayout = compressor.compressor.layout(height, width)
        learner = prior(self.layout, condition.fit(data.info))
        learner.attach(compressor.compressor)
        super().__init__(learner, data, optimization, ema, seed)
        self.identity = identity(compressor)
        self.frozen = (compressor,)  # a tuple keeps it out of the module tree, optimizer and checkpoint
        if compile:
            transformers = [module for module in self.model.modules() if isinstance(module, Transformer)]
            if not transformers:
                name = type(self.model).__name__
                raise UserError(f"{name} has no transformer to compile; leave out model.compile")
            for transformer in transformers:
                transformer.compile()

    @property
    def representation(self) -> str:
        return f"{self.layout.length} codes of {self.layout.codebook_size}"

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

    @torch.no_grad()
    def encode(self, batch: Batch | CodeBatch) -> tuple[Tensor, Tensor]:
        """Encode a batch to codes and condition values."""
        return batch.codes(self.compressor.compressor.encode), self.model.condition.encode(batch.inputs)

    def objective(self, batch: Batch | CodeBatch) -> Tensor:
        self.model.before_step(self.global_step / self.trainer.max_steps)
        return self.model.loss(*self.encode(batch))

    def image_sheet(self, count: int) -> PIL.Image.Image:
        """Draw samples for fixed conditions and seeds."""
        condition, held_out = self.model.condition, self.data.examples("validation", count)
        inputs = condition.modality.preview(
            held_out.inputs[[index % len(held_out) for index in range(count)]]
        )
        seeds = image_seeds(self.seed, range(count))
        codes = self.ema_model.sample(condition.encode(inputs).to(self.device), SamplingOptions(), seeds)
        images = self.compressor.compressor.decode(codes, self.layout)
        labels = [", ".join(words.values()) for words in condition.modality.describe(inputs)]
        return sheet(images.cpu(), columns=8, labels=labels if any(labels) else None)

    def on_validation_epoch_start(self) -> None:
        self.counts = torch.zeros(self.layout.codebook_size, dtype=torch.int64, device=self.device)

    def predict(self, batch: Batch | CodeBatch) -> tuple[Tensor, Tensor]:
        """Encode a batch, and compute nats per image."""
        codes, condition = self.encode(batch)
        return codes, self.ema_model.nats(codes, condition)

    def log_prediction(self, batch: Batch | CodeBatch, prediction: tuple[Tensor, Tensor]) -> None:
        codes, nats = prediction[0], prediction[1].mean()
        self.counts += torch.bincount(codes.flatten(), minlength=self.layout.codebook_size)
        bits = nats / math.log(2) / math.prod(self.layout.image_size)
        self.log_validation({"nats": nats / self.layout.length, "bits_per_pixel": bits}, len(batch))

    def joint_metrics(self) -> dict[str, float]:
        counts = self.trainer.strategy.reduce(self.counts, reduce_op="sum").cpu().double()
        frequencies = counts[counts > 0] / counts.sum()
        entropy = -(frequencies * frequencies.log()).sum()
        return {"uniform": math.log(len(counts)), "unigram": float(entropy)}
