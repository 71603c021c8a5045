"""Models on the Hugging Face hub, by names like `hf:user/name`.

A name may go on with a folder or a file of the repository: `hf:user/name/folder`, `hf:user/name/file.bin`.

`HF_ENDPOINT` selects a mirror; `HF_TOKEN` or `hf auth login` authenticates.
"""

import os
import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from genstack.errors import UserError, extra

MARK = "hf:"
NAME = re.compile(r"hf:(?P<name>[\w.-]+/[\w.-]+)(/(?P<folder>[\w.-]+(/[\w.-]+)*))?(@(?P<revision>[\w./-]+))?")
DIFFUSERS = ("diffusion_pytorch_model.safetensors", "diffusion_pytorch_model.bin")
TENSORS = "model.safetensors"
#: Folders of the compressor in a pipeline.
SUBFOLDERS = ("vqvae", "vae", "movq")
DESCRIPTIONS = ("model.json", "config.json")
WEIGHTS = re.compile(
    r"(model|diffusion_pytorch_model|pytorch_model)(?P<variant>\.(?!index)\w+)?"
    r"\.(?P<kind>safetensors|bin)(?P<index>\.index(\.\w+)?\.json)?"
)


def is_hub_name(place: Path | str) -> bool:
    """Return True for a name on the hub."""
    return str(place).startswith(MARK)


def parse_name(place: Path | str) -> tuple[str, str, str | None]:
    """Split a name like `hf:user/name/folder@revision` into repository, folder and revision."""
    found = NAME.fullmatch(str(place))
    if found is None or ".." in str(place):
        raise UserError(
            f"invalid name on the hub: {place}; expected hf:user/name, hf:user/name/folder or "
            "hf:user/name@revision"
        )
    return found["name"], found["folder"] or "", found["revision"]


def repository(place: Path | str) -> tuple[str, str | None]:
    """Return repository and revision of a name like `hf:user/name@revision`."""
    name, folder, revision = parse_name(place)
    if folder:
        raise UserError(f"expected a repository, got the folder {place}; give hf:{name}")
    return name, revision


def weights_file(names: Iterable[str]) -> str | None:
    """Choose the weights file among file names; for sharded weights, their index.

    Safetensors come before pickles, full precision before variants such as fp16, one file before shards.
    """
    found = [match for name in names if (match := WEIGHTS.fullmatch(name))]
    ranks = {
        match[0]: (match["kind"] == "bin", bool(match["variant"]), bool(match["index"])) for match in found
    }
    return min(ranks, key=lambda name: (ranks[name], name), default=None)


def model_files(names: Iterable[str], folder: str = "") -> tuple[str, list[str]]:
    """Find the folder of a model in a repository, and the files to download; none without a model.

    Args:
        names: names of all files.
        folder: a folder of the repository, or a file with a model; "" for the whole repository.
    """
    known = list(names)
    if folder in known:
        return folder, [folder]
    for inner in (folder, *(f"{folder}/{sub}".lstrip("/") for sub in SUBFOLDERS)):
        start = f"{inner}/" if inner else ""
        here = [name.removeprefix(start) for name in known if name.startswith(start)]
        weights = weights_file(here)
        if weights is None:
            continue
        shards: list[str] = []
        if weights.endswith(".json"):
            stem, ending = weights.partition(".")[0], "bin" if ".bin." in weights else "safetensors"
            shards = [each for each in here if re.fullmatch(rf"{stem}.*-of-\d+\.{ending}", each)]
        files = [weights, *shards, *(each for each in DESCRIPTIONS if each in here)]
        return inner, [start + each for each in files]
    return folder, []


def fetch(place: Path | str) -> Path:
    """Download a model unless it is cached, and return its local folder or file."""
    name, folder, revision = parse_name(place)
    wanted: list[str] | None = None
    with hub(place) as (client, endpoint):
        try:
            siblings = client.HfApi(endpoint=endpoint).model_info(name, revision=revision).siblings or ()
            folder, wanted = model_files([each.rfilename for each in siblings], folder)
            keywords = {"allow_patterns": wanted, "endpoint": endpoint}
            found = client.snapshot_download(name, revision=revision, **keywords) if wanted else ""
        except Exception:  # such as offline: use the cached copy
            if not (found := cached_snapshot(client, name, revision)):
                raise
            files = (path for path in Path(found).rglob("*") if path.is_file())
            inside = [path.relative_to(found).as_posix() for path in files]
            folder, wanted = model_files(inside, folder)
    if not wanted:
        raise UserError(
            f"{place} holds no weights that genstack reads, such as {TENSORS} or {DIFFUSERS[0]}; name a file "
            f"of another name as {MARK}{name}/FILE"
        )
    return Path(found) / folder


def cached_snapshot(client: Any, name: str, revision: str | None) -> str:
    """Return the cached folder of a repository, which may hold only some of its files; "" without one."""
    try:
        return str(client.snapshot_download(name, revision=revision, local_files_only=True))
    except Exception as error:
        return getattr(error, "snapshot_path", "")  # of IncompleteSnapshotError


def push(folder: Path, place: Path | str) -> str:
    """Upload a folder to a repository, which is created if necessary, and return its address."""
    name, folder_there, revision = parse_name(place)
    with hub(place) as (client, endpoint):
        service = client.HfApi(endpoint=endpoint)
        service.create_repo(name, exist_ok=True)
        made = service.upload_folder(
            repo_id=name,
            folder_path=folder,
            path_in_repo=folder_there or None,
            revision=revision,
            commit_message="Add a genstack model",
        )
    return str(made)


@contextmanager
def hub(place: Path | str) -> Iterator[tuple]:
    """Yield the client and the server; errors become one line."""
    with extra("hub", f"{place} is on the Hugging Face hub, and huggingface_hub is not installed"):
        import huggingface_hub
    try:
        yield huggingface_hub, os.environ.get("HF_ENDPOINT")
    except UserError:
        raise
    except Exception as error:  # errors of the client and of network libraries
        reason = " ".join(f"{type(error).__name__} {error}".split())[:200]
        raise UserError(f"{place} cannot be reached or does not exist: {reason}") from error
