"""Discovery of classes by folder and in plugins: a new part needs only a new file with its class."""

import importlib
import inspect
import pkgutil
from functools import cache
from types import ModuleType
from typing import TypeVar

from genstack import plugins

Part = TypeVar("Part")


@cache  # a command calls this about ten times
def modules(package: ModuleType) -> tuple[ModuleType, ...]:
    """Import every module of a package and its subpackages."""
    return tuple(
        importlib.import_module(entry.name)
        for entry in pkgutil.walk_packages(package.__path__, package.__name__ + ".")
    )


def discover(package: ModuleType, base: type[Part]) -> dict[str, type[Part]]:
    """Concrete subclasses of `base` defined in a package or plugin, by name, in alphabetical order."""
    added = [part for part in plugins.classes() if issubclass(part, base)]
    found = classes_in(package, base) | {part.__name__: part for part in added}
    plugins.check_unique(
        (part.__name__, part.__module__) for part in [*classes_in(package, base).values(), *added]
    )
    return dict(sorted(found.items()))


def classes_in(package: ModuleType, base: type[Part]) -> dict[str, type[Part]]:
    """Concrete subclasses of `base` defined in a package itself, by name."""
    return {
        name: member
        for module in modules(package)
        for name, member in inspect.getmembers(module, inspect.isclass)
        if issubclass(member, base)
        and not inspect.isabstract(member)
        and member.__module__ == module.__name__
    }
