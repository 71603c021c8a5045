"""Parts are found by lying in their folder: a new file with a new class is all that a new part needs."""

import importlib
import inspect
import pkgutil
from functools import cache
from types import ModuleType
from typing import TypeVar

Part = TypeVar("Part")


@cache  # a command asks some ten times, and each walk reads every folder
def modules(package: ModuleType) -> tuple[ModuleType, ...]:
    """Every module of a package, imported, with those of its subpackages."""
    return tuple(
        importlib.import_module(entry.name)
        for entry in pkgutil.walk_packages(package.__path__, package.__name__ + ".")
    )


def discover(package: ModuleType, base: type[Part]) -> dict[str, type[Part]]:
    """The concrete subclasses of `base` defined in a package, by name in alphabetical order."""
    found = {
        name: member
        for module in modules(package)
        for name, member in inspect.getmembers(module, inspect.isclass)
        if issubclass(member, base)
        and not inspect.isabstract(member)
        and member.__module__ == module.__name__
    }
    return dict(sorted(found.items()))
