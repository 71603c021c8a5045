"""Sources of images, one file per kind."""

import warnings
from difflib import get_close_matches
from pathlib import Path

from genstack import plugins
from genstack.data.source import Source
from genstack.data.text import expand
from genstack.discovery import discover
from genstack.errors import UserError

CODES, UNFINISHED = "codes.json", "encoding.json"  # headers of an archive of codes


def is_archive(folder: Path) -> bool:
    """Return True if a folder holds an archive of codes, complete or not."""
    return any((expand(folder) / name).is_file() for name in (CODES, UNFINISHED))


def open_source(name: str, labels: str = "own") -> Source:
    """Open the source that `data.source` names; a folder if no other kind claims the name."""
    import genstack.data.sources as package
    from genstack.data.sources.folder import FolderSource

    kinds = discover(package, Source).values()  # type: ignore[type-abstract]
    claiming = [kind for kind in kinds if kind.claims(name)]
    plugins.check_unique((name, kind.__module__) for kind in claiming)
    kind = claiming[0] if claiming else None
    if kind is not None:
        if labels == "folder":
            raise UserError(f"{name} has no folders to use as classes; set labels to own")
        if name in kind.names() and Path(name).is_dir():
            warnings.warn(
                f"'{name}' is the built-in set; the folder of that name is './{name}'", stacklevel=2
            )
        return kind(name)
    if is_archive(Path(name)):
        raise UserError(
            f"{name} holds codes, which only priors train on; give the pictures that were encoded"
        )
    if not FolderSource.exists(name):
        known = [known for kind in kinds for known in kind.names()]
        near = get_close_matches(name, [*known, *FolderSource.beside(name)], n=1)
        names = "shapes, digits, torchvision:MNIST, hf:user/name"
        advice = f"did you mean {near[0]}?" if near else f"give a folder, or a name such as {names}"
        raise UserError(f"data source {name} not found; {advice}")
    return FolderSource(name, by_folder=labels == "folder")
