"""Frozen text encoders of the library transformers, such as T5's (Raffel et al. 2020, arXiv:1910.10683).

An encoder stands in no module tree: it is in no optimizer, no checkpoint and no run. A run remembers its name
and a hash of its weights and words.
"""

import hashlib
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

import torch
from einops import rearrange
from jaxtyping import Float, Int
from torch import Tensor

from genstack.errors import UserError, extra

Precision = Literal["fp32", "bf16", "fp16"]
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
#: What is fetched of a repository: descriptions, words and tensors; no pickles, no programs.
WANTED = ("*.json", "*.safetensors", "*.txt", "spiece.model")
VARIABLE = "GENSTACK_TEXT_ENCODER"


class TextEncoder:
    """An encoder and its tokenizer.

    Args:
        network: of transformers, frozen.
        tokenizer: of transformers.
    """

    def __init__(self, network: Any, tokenizer: Any):
        self.network, self.tokenizer = network, tokenizer
        self.dim: int = network.config.hidden_size
        #: Most tokens that it can read; None for any number.
        self.limit: int | None = getattr(network.config, "max_position_embeddings", None)
        self.weights = digest(network, tokenizer)

    def to(self, device: torch.device) -> "TextEncoder":
        """The same encoder, moved to a device; one that keeps no values is no place for weights."""
        if device.type != "meta":
            self.network.to(device)
        return self

    @property
    def device(self) -> torch.device:
        """Where it computes."""
        return next(self.network.parameters()).device

    def counts(self, captions: Sequence[str]) -> list[int]:
        """Tokens of each caption, with those that the tokenizer puts around it."""
        return [len(ids) for ids in self.tokenizer(list(captions))["input_ids"]]

    @torch.no_grad()
    def read(
        self, captions: Sequence[str], length: int
    ) -> tuple[Float[Tensor, "b length dim"], Int[Tensor, " b"]]:
        """The last states of each caption's tokens, zero behind its end, and how many tokens it has."""
        made = self.tokenizer(
            list(captions), max_length=length, truncation=True, padding="max_length", return_tensors="pt"
        )
        mask, counts = made["attention_mask"].to(self.device), made["attention_mask"].sum(dim=1)
        with torch.autocast(self.device.type, enabled=False):
            states = self.network(input_ids=made["input_ids"].to(self.device), attention_mask=mask)
        features = states.last_hidden_state.float() * rearrange(mask, "b n -> b n 1")
        if self.network.dtype == torch.float16 and not features.isfinite().all():
            raise UserError("the text encoder overflows in fp16; use the condition's precision bf16 or fp32")
        return features, counts


def digest(network: Any, tokenizer: Any) -> str:
    """A hash of an encoder's weights, whatever they are called, and of its words."""
    total = hashlib.sha256()
    for each in sorted(of_values(weight) for weight in network.parameters()):
        total.update(each)
    total.update(repr(sorted(tokenizer.get_vocab().items())).encode())
    return total.hexdigest()


def of_values(weight: Tensor) -> bytes:
    """A hash of a tensor."""
    values = weight.detach().cpu().contiguous()
    total = hashlib.sha256(f"{values.dtype} {tuple(values.shape)} ".encode())
    total.update(values.reshape(-1).view(torch.uint8).numpy().tobytes())
    return total.digest()


def named(name: str, precision: Precision) -> TextEncoder:
    """The encoder of this name, fetched if it is on the hub and not here yet."""
    return opened(str(find(name, fetch=True)), precision)


def known(name: str, precision: Precision, weights: str) -> TextEncoder:
    """The encoder that a run was trained with; nothing is fetched.

    Args:
        name: of it.
        precision: of its weights.
        weights: their hash; "" where nobody knows it.

    Raises:
        UserError: it is not here, or is another one.
    """
    folder = find(name, fetch=False)
    encoder = opened(str(folder), precision)
    if weights and encoder.weights != weights:
        raise UserError(
            f"the text encoder in {folder} is not the one that this prior was trained with: its weights or "
            f"words differ; put that one back, or name its folder by {VARIABLE}"
        )
    return encoder


def find(name: str, fetch: bool) -> Path:
    """The folder of an encoder: that of $GENSTACK_TEXT_ENCODER first.

    Args:
        name: its folder, or `hf:user/name` on the hub.
        fetch: whether it may be fetched from there.

    Raises:
        UserError: it is not here.
    """
    given = os.environ.get(VARIABLE, "")
    if given and not fetch:
        name = given
    if name.startswith("hf:"):
        return on_hub(name, fetch)
    folder = Path(name).expanduser()
    if not name or not (folder / "config.json").is_file():
        raise UserError(
            f"there is no text encoder in {name or 'the folder that the condition names'}; name a folder "
            f"with config.json, model.safetensors and the tokenizer's files, or hf:user/name, by the "
            f"condition's `encoder`, or in sampling by {VARIABLE}"
        )
    return folder


def on_hub(name: str, fetch: bool) -> Path:
    """The folder with an encoder of the hub, fetched if it is not here and may be."""
    from genstack.hub import hub, repository

    repo, revision = repository(name)
    with hub(name) as (client, endpoint):
        wanted = {"revision": revision, "allow_patterns": list(WANTED)}
        try:
            return Path(client.snapshot_download(repo, **wanted, local_files_only=True))
        except client.errors.LocalEntryNotFoundError:
            if fetch:
                return Path(client.snapshot_download(repo, **wanted, endpoint=endpoint))
    raise UserError(
        f"the text encoder {name} is not on this machine; fetch it once (hf download {repo}), or name a "
        f"folder that holds it by {VARIABLE}"
    )


@lru_cache(maxsize=1)
def opened(folder: str, precision: Precision) -> TextEncoder:
    """The encoder in a folder.

    Raises:
        UserError: the folder holds none that is whole.
    """
    transformers = library()
    plain = {"local_files_only": True, "trust_remote_code": False}
    # The run's own chance stays as it was, whatever the library does on its way.
    with torch.random.fork_rng(devices=[]), quietly(transformers):
        try:
            tokenizer = transformers.AutoTokenizer.from_pretrained(folder, **plain)
            network, told = transformers.AutoModelForTextEncoding.from_pretrained(
                folder, dtype=DTYPES[precision], use_safetensors=True, output_loading_info=True, **plain
            )
        except Exception as error:  # the library raises whatever it likes for what it cannot read
            reason = " ".join(f"{type(error).__name__} {error}".split())[:200]
            raise UserError(f"{folder} holds no text encoder that transformers reads: {reason}") from error
    lacking = sorted(map(str, {*told["missing_keys"], *told["mismatched_keys"]}))
    if lacking:
        raise UserError(
            f"the text encoder in {folder} is incomplete: no weights for {', '.join(lacking[:5])}"
        )
    if tokenizer.pad_token is None:
        raise UserError(
            f"the tokenizer in {folder} has no token to fill up with; use an encoder's, such as T5's"
        )
    return TextEncoder(network.eval().requires_grad_(False), tokenizer)


@contextmanager
def quietly(transformers: Any) -> Iterator[None]:
    """Without the library's progress bars, which are as they were afterwards."""
    logging = transformers.utils.logging
    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            logging.enable_progress_bar()


def library() -> Any:
    """The package transformers, whose tokenizers keep to one thread: loaders fork this process.

    Raises:
        UserError: it is not installed.
    """
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    with extra("text", "a text encoder needs the package transformers"):
        import transformers
    return transformers
