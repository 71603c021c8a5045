"""The Hugging Face hub: models come from it and go to it by names like `hf:user/name`, and only then.

Where `HF_ENDPOINT` is set, that server is asked instead (a mirror). `HF_TOKEN` or `hf auth login` says who
you are.
"""

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from genstack.errors import UserError, extra

MARK = "hf:"
DIFFUSERS = ("diffusion_pytorch_model.safetensors", "diffusion_pytorch_model.bin")
#: What is fetched: descriptions and tensors. Programs of other kinds are not ours to load.
TENSORS = ("model.safetensors", DIFFUSERS[0])
WANTED = (*TENSORS, "model.json", "config.json")
NAME = re.compile(r"hf:(?P<name>[\w.-]+/[\w.-]+)(@(?P<revision>[\w./-]+))?")


def named(place: Path | str) -> bool:
    """Whether a place is on the hub."""
    return str(place).startswith(MARK)


def repository(place: Path | str) -> tuple[str, str | None]:
    """The repository of a name like `hf:user/name`, and its revision in `hf:user/name@revision`."""
    found = NAME.fullmatch(str(place))
    if found is None:
        raise UserError(f"{place} is no repository of the hub; write hf:user/name, or hf:user/name@revision")
    return found["name"], found["revision"]


def fetch(place: Path | str) -> Path:
    """The folder on this machine with a repository's model; it is fetched unless it is here already.

    Raises:
        UserError: there is none, or the hub cannot be reached.
    """
    name, revision = repository(place)
    with hub(place) as (client, endpoint):
        folder = client.snapshot_download(
            name, revision=revision, allow_patterns=list(WANTED), endpoint=endpoint
        )
    found = Path(folder)
    if not any((found / tensors).is_file() for tensors in TENSORS):
        raise UserError(
            f"{place} holds neither {TENSORS[0]} nor {TENSORS[1]}; it is no model that genstack reads"
        )
    return found


def push(folder: Path, place: Path | str) -> str:
    """Send a folder to a repository, which is made if there is none; returns its address."""
    name, revision = repository(place)
    with hub(place) as (client, endpoint):
        service = client.HfApi(endpoint=endpoint)
        service.create_repo(name, exist_ok=True)
        made = service.upload_folder(
            repo_id=name,
            folder_path=folder,
            revision=revision,
            commit_message="Add a model of genstack",
        )
    return str(made)


@contextmanager
def hub(place: Path | str) -> Iterator[tuple]:
    """The client and the server it asks; what goes wrong becomes one line."""
    with extra("hub", f"{place} is on the Hugging Face hub, and huggingface_hub is not installed"):
        import huggingface_hub
    try:
        yield huggingface_hub, os.environ.get("HF_ENDPOINT")
    except UserError:
        raise
    except Exception as error:  # its own errors and those of several libraries for the network
        reason = " ".join(f"{type(error).__name__} {error}".split())[:200]
        raise UserError(f"{place} cannot be reached or is not there: {reason}") from error
