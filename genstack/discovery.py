"""Parts are found in their folder or in a plugin: a new file with a new class is all that a part needs."""

import importlib
import inspect
import pkgutil
from functools import cache
from types import ModuleType
from typing import TypeVar

from genstack import plugins

Part = TypeVar("Part")


@cache  # a command asks some ten times, and each walk reads every folder
def modules(package: ModuleType) -> tuple[ModuleType, ...]:
    """Every module of a package, imported, with those of its subpackages."""
    return tuple(
        importlib.import_module(entry.name)
        for entry in pkgutil.walk_packages(package.__path__, package.__name__ + ".")
    )


def discover(package: ModuleType, base: type[Part]) -> dict[str, type[Part]]:
    """The concrete subclasses of `base` defined in a package or plugin, by name in alphabetical order.

    Raises:
        UserError: a plugin fails to import, or two parts have one name.
    """
    added = [part for part in plugins.classes() if issubclass(part, base)]
    found = defined(package, base) | {part.__name__: part for part in added}
    plugins.check_unique(
        (part.__name__, part.__module__) for part in [*defined(package, base).values(), *added]
    )
    return dict(sorted(found.items()))


def defined(package: ModuleType, base: type[Part]) -> dict[str, type[Part]]:
    """The concrete subclasses of `base` that a package itself defines, by name."""
    return {
        name: member
        for module in modules(package)
        for name, member in inspect.getmembers(module, inspect.isclass)
        if issubclass(member, base)
        and not inspect.isabstract(member)
        and member.__module__ == module.__name__
    }
