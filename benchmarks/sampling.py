"""Sampling and training of the priors' transformer beside its linear layers and beside transformers.

    python benchmarks/sampling.py [decoding] [lengths] [training] [priors] [--rounds 5] [--taming PATH]

All ways take turns in each round; tables have medians of processor times, and of their ratios by round.
That of decoding has times of the wall, for cores that nothing else uses: waiting threads are busy there.
That of training has minGPT with `--taming`, a clone of github.com/CompVis/taming-transformers.
"""

import argparse
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from copy import deepcopy
from dataclasses import replace
from functools import partial
from importlib import import_module
from pathlib import Path
from statistics import median
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import linear
from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM

from genstack.compressor import Autoencoder, Convolutional
from genstack.compressor.quantizers import MultiScale, VectorQuantizer
from genstack.conditions import Unconditional
from genstack.data.images import Preprocessing
from genstack.dot_product_attention import dot_product_attention
from genstack.layout import CodeLayout
from genstack.model import Model
from genstack.prior import Autoregressive, Prior, SamplingOptions, image_seeds
from genstack.prior.autoregressive import TransformerState
from genstack.prior.masked import Masked
from genstack.prior.next_scale import NextScale
from genstack.sampling.compiled import compiled
from genstack.transformer import Backbone

CODEBOOK, WIDTH, DEPTH, HEADS = 1024, 384, 8, 6


def layout(side: int = 16) -> CodeLayout:
    """One grid of side x side codes."""
    return CodeLayout((16 * side, 16 * side), CODEBOOK, ((side, side),))


def autoregressive(side: int = 16, kv_heads: int | None = None) -> Autoregressive:
    """The prior that is measured."""
    backbone = Backbone(width=WIDTH, depth=DEPTH, heads=HEADS, dropout=0.0, kv_heads=kv_heads)
    return Autoregressive(layout(side), Unconditional(), backbone).eval()


def products(prior: Autoregressive, batch: int, dtype: torch.dtype) -> list[tuple[Tensor, Tensor]]:
    """Operands of each linear layer in a step: rows, and weights of that dtype."""
    weights = [module.weight.to(dtype) for module in prior.modules() if isinstance(module, nn.Linear)]
    return [(torch.randn(batch, weight.shape[1], dtype=dtype), weight) for weight in weights]


def linear_layers(prior: Autoregressive, batch: int, steps: int, dtype: torch.dtype) -> None:
    """Lower bound of a step: every linear layer once per code."""
    pairs = products(prior, batch, dtype)
    for _ in range(steps):
        for rows, weight in pairs:
            linear(rows, weight)


def in_fp32(work: Callable[[], object]) -> None:
    """The same, whatever autocast is on."""
    with torch.autocast("cpu", enabled=False):
        work()


def gpt2(width: int = WIDTH, depth: int = DEPTH, heads: int = HEADS) -> GPT2LMHeadModel:
    """GPT-2 of the same shape."""
    return GPT2LMHeadModel(
        GPT2Config(
            vocab_size=CODEBOOK,
            n_positions=257,
            n_embd=width,
            n_layer=depth,
            n_head=heads,
            resid_pdrop=0.0,
            embd_pdrop=0.0,
            attn_pdrop=0.0,
            bos_token_id=0,
            eos_token_id=None,
            pad_token_id=0,
        )
    ).eval()


def llama(width: int = WIDTH, depth: int = DEPTH, heads: int = HEADS) -> LlamaForCausalLM:
    """Llama of the same shape."""
    return LlamaForCausalLM(
        LlamaConfig(
            vocab_size=CODEBOOK,
            hidden_size=width,
            intermediate_size=Backbone(width=width, depth=depth, heads=heads).mlp_width,
            num_hidden_layers=depth,
            num_attention_heads=heads,
            max_position_embeddings=257,
            bos_token_id=0,
            eos_token_id=None,
            pad_token_id=0,
        )
    )


def min_gpt(taming: Path, length: int, width: int, depth: int, heads: int) -> nn.Module:
    """minGPT of taming-transformers, of the same shape, from a clone of that repository."""
    sys.path.insert(0, str(taming))
    # It imports a function for sampling that transformers 5 lacks.
    vars(import_module("transformers")).setdefault("top_k_top_p_filtering", None)
    module = import_module("taming.modules.transformer.mingpt")
    return module.GPT(CODEBOOK, length, depth, heads, width).train()


def generate(model: GPT2LMHeadModel, batch: int) -> Tensor:
    """256 sampled codes after one token."""
    start = torch.zeros(batch, 1, dtype=torch.int64)
    mask = torch.ones_like(start)
    return model.generate(
        start, attention_mask=mask, do_sample=True, top_k=0, max_new_tokens=256, min_new_tokens=256
    )


def spread(times: list[float], others: list[float]) -> str:
    """The median of ratios by round, and their range."""
    ratios = [mine / theirs for mine, theirs in zip(times, others, strict=True)]
    return f"{median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})"


def take_turns(
    ways: dict[str, Callable[[], object]],
    rounds: int,
    reference: str,
    unit: float = 1.0,
    clock: Callable[[], float] = time.process_time,
) -> dict[str, list[float]]:
    """Times over `unit`; prints medians, and those (and ranges) of ratios to the reference."""
    times: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(rounds):
        for name, work in ways.items():
            begun = clock()
            work()
            times[name].append((clock() - begun) / unit)
    for name, each in times.items():
        print(f"| {name} | {median(each):.4f} s | {spread(each, times[reference])} |", flush=True)
    return times


@contextmanager
def ready(
    prior: Autoregressive, sample: Callable[[Autoregressive], object], precision: torch.autocast
) -> Iterator[Prior]:
    """The prior, compiled and tried once."""
    network = Convolutional(32, 8, (1, 1, 1, 1, 1), 1, (), False)
    compressor = Autoencoder(3, network, VectorQuantizer(CODEBOOK, 8))
    model = Model(compressor, Preprocessing(3, 256, 256), (), prior)
    with ExitStack() as stack:
        with precision:
            stack.enter_context(compiled(model))
            begun = time.perf_counter()
            sample(prior)
        print(f"compiled in {time.perf_counter() - begun:.0f} s", flush=True)
        yield prior


def linear_layers_and_attention(prior: Autoregressive, batch: int, steps: int, dtype: torch.dtype) -> None:
    """The same, and one query per head over all cached keys."""
    plan = prior.backbone
    shape = (batch, plan.key_value_heads, steps + 1, plan.head_width)
    memory = [(torch.randn(shape, dtype=dtype), torch.randn(shape, dtype=dtype)) for _ in range(plan.depth)]
    queries = torch.randn(batch, plan.heads, 1, plan.head_width, dtype=dtype)
    pairs = products(prior, batch, dtype)
    for step in range(steps):
        for rows, weight in pairs:
            linear(rows, weight)
        for keys, values in memory:
            dot_product_attention(queries, keys[:, :, : step + 1], values[:, :, : step + 1])


@torch.inference_mode()
def decoding(rounds: int) -> None:
    """Sampling, as it is and compiled, beside the linear layers alone and GPT-2, in fp32 and in bf16."""
    prior, shared, peer = autoregressive(), autoregressive(kv_heads=2), gpt2()
    for batch in (4, 16):
        print(f"\n256 codes, batch {batch}", flush=True)
        condition, seeds = torch.zeros(batch, dtype=torch.int64), image_seeds(0, range(batch))

        def sample(prior: Prior) -> None:
            prior.sample(condition, SamplingOptions(), seeds)  # noqa: B023

        for dtype in (torch.float32, torch.bfloat16):
            with ExitStack() as stack:
                precision = partial(torch.autocast, "cpu", torch.bfloat16, dtype == torch.bfloat16)
                quick, fewer = (
                    stack.enter_context(ready(deepcopy(each), sample, precision()))
                    for each in (prior, shared)
                )
                stack.enter_context(precision())
                alone = partial(linear_layers, prior, batch, 256, dtype)
                bound = partial(linear_layers_and_attention, prior, batch, 256, dtype)
                ways: dict[str, Callable[[], object]] = {
                    "linear layers alone": alone,
                    "linear layers and attention alone": bound,
                    "genstack": partial(sample, prior),
                    "genstack, compiled": partial(sample, quick),
                    "genstack, kv_heads 2, compiled": partial(sample, fewer),
                    "transformers, GPT-2, fp32": partial(in_fp32, partial(generate, peer, batch)),
                }
                print(f"| {dtype} | time | over the linear layers |")
                times = take_turns(ways, rounds, "linear layers alone", clock=time.perf_counter)
            for name in (name for name in ways if name.startswith("genstack")):
                theirs = spread(times["transformers, GPT-2, fp32"], times[name])
                print(f"transformers, GPT-2, fp32 / {name}: {theirs}", flush=True)


@torch.inference_mode()
def lengths(rounds: int) -> None:
    """A step near the end of sequences of 256, 1,024 and 4,096 codes; earlier codes are read in one pass."""
    ways: dict[str, Callable[[], object]] = {}
    for side in (16, 32, 64):
        prior, known = autoregressive(side), side * side - 100
        way = TransformerState(prior, torch.zeros(1, dtype=torch.int64))
        way.start(torch.zeros(1, known, dtype=torch.int64))
        ways[f"{side * side} codes"] = lambda way=way: [
            way.step(torch.zeros(1, dtype=torch.int64)) for _ in range(16)
        ]
    print("\na step, batch 1", flush=True)
    take_turns(ways, min(rounds, 5), "256 codes", unit=16)


#: Layers, width, heads, images and side of the grid of codes of the training steps that are measured.
STEPS = ((6, 256, 4, 32, 8), (8, 384, 6, 4, 16), (8, 384, 6, 8, 16))


def training(rounds: int, taming: Path | None) -> None:
    """Forward and backward, and with AdamW's step, in fp32 and in bf16."""
    plans: dict[str, dict[str, Any]] = {
        "genstack, default": {},
        "genstack, default, compiled": {},
        "genstack, kv_heads 2": {"kv_heads": 2},
        "genstack, without QK-norm": {"qk_norm": False},
        "genstack, as GPT-2": {
            "norm": "layer",
            "feedforward": "gelu_tanh",
            "positions": "learned",
            "qk_norm": False,
            "bias": True,
        },
    }
    for depth, width, heads, batch, side in STEPS:
        codes = torch.randint(CODEBOOK, (batch, side * side))
        condition = torch.zeros(batch, dtype=torch.int64)
        losses: dict[str, tuple[nn.Module, Callable[[], Tensor]]] = {}
        for name, changes in plans.items():
            backbone = replace(Backbone(width, depth, heads, dropout=0.0), **changes)
            prior = Autoregressive(layout(side), Unconditional(), backbone).train()
            if name.endswith("compiled"):
                prior.transformer.compile()
            losses[name] = prior, partial(prior.loss, codes, condition)
        shape = {"width": width, "depth": depth, "heads": heads}
        peers = {"transformers, GPT-2": gpt2(**shape), "transformers, Llama": llama(**shape)}
        for name, peer in peers.items():
            losses[name] = peer, partial(loss_of_peer, peer.train(), codes)
        if taming is not None:
            peer = min_gpt(taming, side * side, **shape)
            losses["taming, minGPT"] = peer, lambda peer=peer: peer(codes, targets=codes)[1]  # noqa: B023
        for bf16 in (False, True):
            for whole in (False, True):
                print(
                    f"\n{depth} x {width}, batch {batch}, {side * side} codes, {'bf16' if bf16 else 'fp32'}, "
                    f"{'with AdamW' if whole else 'forward and backward'}",
                    flush=True,
                )
                ways = {
                    name: training_step(network, loss, bf16, whole)
                    for name, (network, loss) in losses.items()
                }
                for work in ways.values():
                    work()
                take_turns(ways, rounds, list(ways)[-1])


def loss_of_peer(peer: nn.Module, codes: Tensor) -> Tensor:
    """Loss of a language model of transformers."""
    loss: Tensor = peer(input_ids=codes, labels=codes).loss
    return loss


def training_step(
    network: nn.Module, loss: Callable[[], Tensor], bf16: bool, whole: bool
) -> Callable[[], None]:
    """Forward and backward; with `whole`, also AdamW's step."""
    optimizer = torch.optim.AdamW(network.parameters(), 1e-4)

    def step() -> None:
        network.zero_grad()
        with torch.autocast("cpu", torch.bfloat16, bf16):
            value = loss()
        value.backward()
        if whole:
            optimizer.step()

    return step


def next_scale(backbone: Backbone) -> Prior:
    """VAR's grids up to 16 x 16: 680 codes, of a compressor that learned nothing."""
    sides = (1, 2, 3, 4, 5, 6, 8, 10, 13, 16)
    quantizer = MultiScale(sides, CODEBOOK, 32)
    compressor = Autoencoder(3, Convolutional(32, 8, (1, 1, 1, 1, 1), 1, (), False), quantizer)
    prior = NextScale(compressor.layout(256, 256), Unconditional(), backbone)
    prior.attach(compressor)
    return prior


def priors(rounds: int) -> None:
    """Drawing images: 256 codes one by one, 256 in eight passes, 680 in ten passes of one grid each."""
    backbone = Backbone(width=WIDTH, depth=DEPTH, heads=HEADS)
    measured: dict[str, Prior] = {
        "autoregressive": autoregressive(),
        "masked, 8 steps": Masked(layout(), Unconditional(), backbone),
        "next-scale": next_scale(backbone),
    }
    for batch in (1, 4, 16):
        print(f"\nseconds an image, batch {batch}", flush=True)
        condition, seeds = torch.zeros(batch, dtype=torch.int64), image_seeds(0, range(batch))
        ways = {
            name: partial(prior.sample, condition, SamplingOptions(), seeds)
            for name, prior in measured.items()
        }
        take_turns(ways, rounds, "autoregressive", unit=batch)


def main() -> None:
    """Print the tables that were asked for."""
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("tables", nargs="*", default=["decoding", "lengths", "training", "priors"])
    arguments.add_argument("--rounds", type=int, default=5)
    arguments.add_argument("--taming", type=Path, help="a clone of taming-transformers")
    given = arguments.parse_args()
    tables = {
        "decoding": decoding,
        "lengths": lengths,
        "training": partial(training, taming=given.taming),
        "priors": priors,
    }
    torch.manual_seed(0)
    print(f"8 x 384, 6 heads, 1,024 codes, fp32, {torch.get_num_threads()} threads", flush=True)
    for table in given.tables:
        tables[table](given.rounds)


if __name__ == "__main__":
    main()
