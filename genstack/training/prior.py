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
    """Train a prior: the distribution of the codes that a compressor makes of images.

    Args:
        prior: the model itself.
        compressor: the compressor and all that its use needs; stays as it is.
        data: the images, or the codes that the compressor has made of them before.
        condition: what steers the prior; null for class labels where the data has them, else for nothing.
        optimization: learning rate and its schedule.
        ema: decay of the averaged weights, which are the ones that get used; 0 for none.
        compile: compile the transformer with torch.compile; pays in long runs, after a while at the start.
        seed: of the initial weights and of all noise in training.
    """

    best = "val/nats"
    shown = ("train/loss", "val/nats", "val/unigram", "val/uniform")

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
        compressor.check_reads(data.preprocessing)
        _, height, width = data.preprocessing.shape
        self.layout: CodeLayout = compressor.compressor.layout(height, width)
        learner = prior(self.layout, condition.fit(data.info))
        learner.attach(compressor.compressor)
        super().__init__(learner, data, optimization, ema, seed)
        self.identity = identity(compressor)
        self.frozen = (compressor,)  # in a tuple: outside the module tree, in no optimizer and no checkpoint
        if compile:
            transformers = [module for module in self.model.modules() if isinstance(module, Transformer)]
            if not transformers:
                name = type(self.model).__name__
                raise UserError(f"{name} has no transformer to compile; leave out model.compile")
            for transformer in transformers:
                transformer.compile()

    @property
    def becomes(self) -> str:
        return f"{self.layout.length} codes of {self.layout.codebook_size}"

    def model_now(self, learned: Prior, measured: dict[str, float]) -> Model:
        data, made = self.data, self.made(measured)
        return Model(self.compressor.compressor, data.preprocessing, data.class_names, learned, made)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint["compressor"] = self.identity
        checkpoint["condition"] = describe(self.model.condition)

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        if checkpoint["compressor"] != self.identity:
            raise UserError(
                "the compressor is no longer the one that this run began with; put the old one back, "
                "or start a new run with another --name"
            )
        if checkpoint.get("condition") not in (None, describe(self.model.condition)):
            raise UserError(
                "the data no longer has the classes or captions that this run began with, or the condition "
                "another network; put them back, or start a new run with another --name"
            )

    def blank(self) -> Prior:
        prior = super().blank()
        prior.attach(self.compressor.compressor)
        return prior

    @property
    def compressor(self) -> Model:
        """The frozen compressor."""
        return self.frozen[0]

    def networks(self) -> Sequence[nn.Module]:
        return [self.model]

    def outside(self) -> Sequence[nn.Module]:
        networks = [self.compressor.compressor, self.model.condition.network]
        return [network.to(self.device) for network in networks if network is not None]

    @torch.no_grad()
    def encode(self, batch: Batch | CodeBatch) -> tuple[Tensor, Tensor]:
        """Codes and condition values of a batch."""
        return batch.codes(self.compressor.compressor.encode), self.model.condition.encode(batch.inputs)

    def objective(self, batch: Batch | CodeBatch) -> Tensor:
        self.model.before_step(self.global_step / self.trainer.max_steps)
        return self.model.loss(*self.encode(batch))

    def picture(self, count: int) -> PIL.Image.Image:
        """Samples of what the condition shows, the same seeds every time."""
        condition, held_out = self.model.condition, self.data.examples("validation", count)
        inputs = condition.modality.preview(
            held_out.inputs[[index % len(held_out) for index in range(count)]]
        )
        seeds = image_seeds(self.seed, range(count))
        codes = self.used.sample(condition.encode(inputs).to(self.device), SamplingOptions(), seeds)
        images = self.compressor.compressor.decode(codes, self.layout)
        told = [", ".join(words.values()) for words in condition.modality.describe(inputs)]
        return sheet(images.cpu(), columns=8, labels=told if any(told) else None)

    def on_validation_epoch_start(self) -> None:
        self.counts = torch.zeros(self.layout.codebook_size, dtype=torch.int64, device=self.device)

    def look(self, batch: Batch | CodeBatch) -> tuple[Tensor, Tensor]:
        """The codes of a batch, and their nats."""
        codes, condition = self.encode(batch)
        return codes, self.used.nats(codes, condition)

    def judge(self, batch: Batch | CodeBatch, made: tuple[Tensor, Tensor]) -> None:
        codes, nats = made[0], made[1].mean()
        self.counts += torch.bincount(codes.flatten(), minlength=self.layout.codebook_size)
        bits = nats / math.log(2) / math.prod(self.layout.image_size)
        self.measure({"nats": nats / self.layout.length, "bits_per_pixel": bits}, len(batch))

    def measured_together(self) -> dict[str, float]:
        counts = self.trainer.strategy.reduce(self.counts, reduce_op="sum").cpu().double()
        frequencies = counts[counts > 0] / counts.sum()
        entropy = -(frequencies * frequencies.log()).sum()
        return {"uniform": math.log(len(counts)), "unigram": float(entropy)}
