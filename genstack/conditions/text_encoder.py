"""Frozen text encoders of the library transformers, such as T5 (Raffel et al. 2020, arXiv:1910.10683).

An encoder is not a submodule: it is in no optimizer, checkpoint or run. A run records its name and a hash of
its weights and vocabulary.
"""

import hashlib
import os
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal, cast

import torch
from einops import rearrange
from jaxtyping import Float, Int
from torch import Tensor

from genstack.errors import UserError, extra

Precision = Literal["fp32", "bf16", "fp16"]
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
#: Files that are downloaded from a repository: no pickles, no programs.
PATTERNS = ("*.json", "*.safetensors", "*.txt", "spiece.model")
VARIABLE = "GENSTACK_TEXT_ENCODER"
BATCH = 16  # captions that an accelerator encodes at a time
CACHE = 2**28  # most bytes of states in memory


class TextEncoder:
    """A text encoder and its tokenizer.

    The states of a caption do not depend on other captions, bit for bit. Kernels may round differently by
    batch size, so the batch size is fixed, and 1 on a CPU. States are cached.

    Args:
        network: an encoder of transformers, frozen.
        tokenizer: its tokenizer.
    """

    def __init__(self, network: Any, tokenizer: Any):
        self.network, self.tokenizer = network, tokenizer
        self.dim: int = network.config.hidden_size
        #: Most tokens that it can read; None for any number.
        self.limit: int | None = getattr(network.config, "max_position_embeddings", None)
        self.weights_hash = hash_encoder(network, tokenizer)
        self.cache: OrderedDict[tuple[str, int], tuple[Tensor, int]] = OrderedDict()

    def to(self, device: torch.device) -> "TextEncoder":
        """Move the encoder to a device; the meta device is ignored."""
        if device.type != "meta" and device != self.device:
            self.network.to(device)
            self.cache.clear()
        return self

    @property
    def device(self) -> torch.device:
        """Device of the weights."""
        return next(self.network.parameters()).device

    def count_tokens(self, captions: Sequence[str]) -> list[int]:
        """Count the tokens of each caption, including special tokens."""
        return [len(ids) for ids in self.tokenizer(list(captions))["input_ids"]]

    def encode(
        self, captions: Sequence[str], length: int
    ) -> tuple[Float[Tensor, "b length dim"], Int[Tensor, " b"]]:
        """Last hidden states of each caption, zero after its end, and its number of tokens."""
        found = {caption: self.cache.get((caption, length)) for caption in captions}
        missing = [caption for caption, states in found.items() if states is None]
        size = 1 if self.device.type == "cpu" else BATCH
        for first in range(0, len(missing), size):
            batch = missing[first : first + size]
            encoded = self._encode(batch + [""] * (size - len(batch)), length)
            for caption, states, count in zip(batch, *encoded, strict=False):
                found[caption] = self.cache[caption, length] = states.clone(), int(count)
        limit = CACHE // (4 * length * self.dim)
        while len(self.cache) > limit:
            self.cache.popitem(last=False)
        rows = [cast(tuple[Tensor, int], found[caption]) for caption in captions]
        return torch.stack([states for states, _ in rows]), torch.tensor([count for _, count in rows])

    @torch.no_grad()
    def _encode(
        self, captions: Sequence[str], length: int
    ) -> tuple[Float[Tensor, "b length dim"], Int[Tensor, " b"]]:
        tokens = self.tokenizer(
            list(captions), max_length=length, truncation=True, padding="max_length", return_tensors="pt"
        )
        mask, counts = tokens["attention_mask"].to(self.device), tokens["attention_mask"].sum(dim=1)
        with torch.autocast(self.device.type, enabled=False):
            output = self.network(input_ids=tokens["input_ids"].to(self.device), attention_mask=mask)
        states = output.last_hidden_state.float() * rearrange(mask, "b n -> b n 1")
        if self.network.dtype == torch.float16 and not states.isfinite().all():
            raise UserError("the text encoder overflows in fp16; use the condition's precision bf16 or fp32")
        return states, counts


def hash_encoder(network: Any, tokenizer: Any) -> str:
    """Hash an encoder's weights, whatever their names, and its vocabulary."""
    total = hashlib.sha256()
    for each in sorted(hash_tensor(weight) for weight in network.parameters()):
        total.update(each)
    total.update(repr(sorted(tokenizer.get_vocab().items())).encode())
    return total.hexdigest()


def hash_tensor(weight: Tensor) -> bytes:
    """Hash a tensor's dtype, shape and values."""
    values = weight.detach().cpu().contiguous()
    total = hashlib.sha256(f"{values.dtype} {tuple(values.shape)} ".encode())
    total.update(values.reshape(-1).view(torch.uint8).numpy().tobytes())
    return total.digest()


def download(name: str, precision: Precision) -> TextEncoder:
    """Open an encoder by name, and download it first if it is on the hub and not on this machine."""
    return load_encoder(str(find(name, fetch=True)), precision)


def find_trained(name: str, precision: Precision, weights_hash: str) -> TextEncoder:
    """Open the encoder that a run was trained with, without downloads."""
    folder = find(name, fetch=False)
    encoder = load_encoder(str(folder), precision)
    if weights_hash and encoder.weights_hash != weights_hash:
        raise UserError(
            f"the text encoder in {folder} is not the one that this prior was trained with: its weights or "
            f"vocabulary differ; restore that one, or set {VARIABLE} to its folder"
        )
    return encoder


def find(name: str, fetch: bool) -> Path:
    """Find the folder of an encoder; in sampling, $GENSTACK_TEXT_ENCODER comes first.

    Args:
        name: its folder, or `hf:user/name` on the hub.
        fetch: allow downloads, as in training.
    """
    given = os.environ.get(VARIABLE, "")
    if given and not fetch:
        name = given
    if name.startswith("hf:"):
        return find_on_hub(name, fetch)
    folder = Path(name).expanduser()
    if not name or not (folder / "config.json").is_file():
        raise UserError(
            f"no text encoder found in '{name}'; set the condition's `encoder` (in sampling {VARIABLE}) to "
            f"hf:user/name, or a folder with config.json, model.safetensors and tokenizer files"
        )
    return folder


def find_on_hub(name: str, fetch: bool) -> Path:
    """Find the local folder of an encoder on the hub, and download it if that is allowed."""
    from genstack.hub import hub, repository

    repo, revision = repository(name)
    with hub(name) as (client, endpoint):
        wanted = {"revision": revision, "allow_patterns": list(PATTERNS)}
        try:
            return Path(client.snapshot_download(repo, **wanted, local_files_only=True))
        except client.errors.LocalEntryNotFoundError:
            if fetch:
                return Path(client.snapshot_download(repo, **wanted, endpoint=endpoint))
    raise UserError(
        f"the text encoder {name} is not on this machine; download it (hf download {repo}), or set "
        f"{VARIABLE} to its folder"
    )


@lru_cache(maxsize=1)
def load_encoder(folder: str, precision: Precision) -> TextEncoder:
    """Load and cache the encoder in a folder."""
    transformers = library()
    options = {"local_files_only": True, "trust_remote_code": False}
    # The library may draw random numbers; the run's generator must not notice.
    with torch.random.fork_rng(devices=[]), no_progress_bar(transformers):
        try:
            tokenizer = transformers.AutoTokenizer.from_pretrained(folder, **options)
            network, info = transformers.AutoModelForTextEncoding.from_pretrained(
                folder, dtype=DTYPES[precision], use_safetensors=True, output_loading_info=True, **options
            )
        except Exception as error:  # the library raises many kinds of errors for files it cannot read
            reason = " ".join(f"{type(error).__name__} {error}".split())[:200]
            raise UserError(f"transformers cannot load a text encoder from {folder}: {reason}") from error
    missing = sorted(map(str, {*info["missing_keys"], *info["mismatched_keys"]}))
    if missing:
        raise UserError(
            f"the text encoder in {folder} is incomplete: no weights for {', '.join(missing[:5])}"
        )
    if tokenizer.pad_token is None:
        raise UserError(f"the tokenizer in {folder} has no padding token; use that of an encoder, such as T5")
    return TextEncoder(network.eval().requires_grad_(False), tokenizer)


@contextmanager
def no_progress_bar(transformers: Any) -> Iterator[None]:
    """Disable the library's progress bars in this context."""
    logging = transformers.utils.logging
    enabled = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if enabled:
            logging.enable_progress_bar()


def library() -> Any:
    """Import transformers, with tokenizers on one thread, since data loaders fork this process."""
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    with extra("text", "a text encoder needs the package transformers"):
        import transformers
    return transformers
