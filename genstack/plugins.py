"""Plugins: parts of your own, from files named by --plugin or from installed packages.

A plugin is Python code that runs. So only the command line, a call from Python or an installation names one;
a recipe, run or model that is read never does. Runs and models record the plugins that they were made with.
"""

import ast
import hashlib
import importlib
import inspect
import os
import shlex
import sys
import traceback
import warnings
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from importlib.metadata import entry_points
from importlib.util import find_spec, module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType
from typing import Any

from genstack.errors import UserError

GROUP = "genstack.parts"  # of entry points
FOLDERS = "GENSTACK_PLUGIN_FOLDERS"
#: Where processes that are spawned, such as loader workers, import the plugin files of this one.
__path__ = [folder for folder in os.environ.get(FOLDERS, "").split(os.pathsep) if folder]
LONGEST = 100  # letters of a name that was read from a file


@dataclass(frozen=True)
class Plugin:
    """A file or an installed package with parts.

    Args:
        name: file name, or name of the package.
        version: hash of the file, or version of the package.
        module: full name of its module.
        files: source file of the module and of those below it, by full name.
        fault: reason why the module of a package is not found; its parts cannot be used.
    """

    name: str
    version: str
    module: str
    files: Mapping[str, Path] = field(hash=False)
    fault: BaseException | None = field(default=None, hash=False, compare=False)

    @property
    def installed(self) -> bool:
        """True for a package, False for a file."""
        return not self.module.startswith(f"{__name__}.")

    @property
    def record(self) -> dict[str, str]:
        """Plain data that a run or model keeps."""
        return {"name": self.name, "version": self.version}

    def modules(self) -> list[ModuleType]:
        """The modules, imported.

        Raises:
            UserError: one fails to import.
        """
        with self._import_errors():
            if self.installed:
                return [importlib.import_module(name) for name in self.files]
            module = _imported.get(self) or self._import_file()
            sys.modules[self.module] = module  # another file of this name may have taken its place
            return [module]

    def _import_file(self) -> ModuleType:
        file = self.files[self.module]
        spec = spec_from_file_location(self.module, file)
        assert spec
        module = module_from_spec(spec)
        sys.modules[self.module] = module  # dataclasses and pickle look it up there
        try:
            # The loader would take bytecode of an edit of equal length within the same second.
            exec(compile(file.read_bytes(), str(file), "exec"), module.__dict__)
        except BaseException:
            del sys.modules[self.module]
            raise
        return _imported.setdefault(self, module)

    def trees(self) -> dict[str, ast.Module]:
        """The parsed source of each module by full name, without importing it.

        Raises:
            UserError: a file is not Python.
        """
        with self._import_errors():
            return {name: ast.parse(file.read_bytes(), str(file)) for name, file in self.files.items()}

    @contextmanager
    def _import_errors(self) -> Iterator[None]:
        try:
            if self.fault is not None:
                raise self.fault
            yield
        except (Exception, SystemExit) as error:  # the code of others can fail in any way
            raise UserError(f"plugin {self.name} failed to import: {self._describe(error)}") from error

    def _describe(self, error: BaseException) -> str:
        """Kind, text and place of an error."""
        files = {str(file) for file in self.files.values()}
        places = [
            (Path(frame.filename).name, frame.lineno)
            for frame in traceback.extract_tb(error.__traceback__)
            if frame.filename in files
        ]
        text = str(error)
        if isinstance(error, SyntaxError):
            text = error.msg
            places.append((Path(error.filename or "").name, error.lineno))
        place = f", {places[-1][0]} line {places[-1][1]}" if places else ""
        return f"{type(error).__name__}{place}: {text[:200]}"


_named: list[Plugin] = []
_imported: dict[Plugin, ModuleType] = {}  # of files; a file that is edited is another plugin


def active() -> tuple[Plugin, ...]:
    """Installed plugins, and files that were named."""
    return (*installed(), *_named)


@cache
def installed() -> tuple[Plugin, ...]:
    """Plugins of installed packages, by their entry points `genstack.parts`; broken ones fail where used."""
    found = []
    for entry in sorted(entry_points(group=GROUP), key=lambda entry: entry.value):
        name, version = (entry.dist.name, entry.dist.version) if entry.dist else (entry.name, "")
        try:
            found.append(Plugin(name, version, entry.module, package_files(entry.module)))
        except (Exception, SystemExit) as error:  # of packages above the module, which are imported
            found.append(Plugin(name, version, entry.module, {}, error))
    return tuple(found)


def package_files(module: str) -> dict[str, Path]:
    """The files of an installed module, and of all modules below it, by full name."""
    spec = find_spec(module)
    if spec is None or spec.origin is None:
        raise ModuleNotFoundError(f"module {module} not found; install the package again")
    return module_files(module, Path(spec.origin))


def module_files(module: str, file: Path) -> dict[str, Path]:
    """The files of a module, and of all modules below it if it is a package, by full name."""
    if file.name != "__init__.py":
        return {module: file}
    files = sorted(file.parent.rglob("*.py"))
    names = [".".join([module, *each.relative_to(file.parent).with_suffix("").parts]) for each in files]
    return {name.removesuffix(".__init__"): each for name, each in zip(names, files, strict=True)}


def use_plugin(file: str | Path) -> Plugin:
    """Make the parts of a file available in this process.

    A file that was edited since replaces its former parts. A file of an installed plugin is in use already.

    Args:
        file: a Python file.

    Raises:
        UserError: not found, not a Python file, or another plugin has its name.
    """
    path = Path(file).expanduser().resolve()
    if path.suffix != ".py" or not path.stem.isidentifier():
        raise UserError(
            f"plugin '{file}': expected a Python file named by letters, digits and _, as parts.py"
        )
    if not path.is_file():
        raise UserError(f"plugin '{file}' not found")
    if plugin := next((each for each in installed() if path in _resolved(each)), None):
        return plugin
    version = f"sha256:{hashlib.sha256(path.read_bytes()).hexdigest()[:16]}"
    plugin = Plugin(path.name, version, f"{__name__}.{path.stem}", {f"{__name__}.{path.stem}": path})
    if plugin in _named:
        return plugin
    _named[:] = [other for other in _named if other.files != plugin.files]
    if other := next((other for other in active() if other.name == plugin.name), None):
        raise UserError(f"two plugins are named {plugin.name}: {path} and {other.files[other.module]}")
    folder = str(path.parent)
    __path__[:] = [folder, *(other for other in __path__ if other != folder)]
    os.environ[FOLDERS] = os.pathsep.join(__path__)
    _named.append(plugin)
    return plugin


def _resolved(plugin: Plugin) -> set[Path]:
    """The files of a plugin, without links."""
    return {file.resolve() for file in plugin.files.values()}


def flags() -> str:
    """Return the --plugin options of a command that needs the files in use; "" for none."""
    files = [plugin.files[plugin.module] for plugin in _named]
    here = Path.cwd()
    names = [file.relative_to(here) if file.is_relative_to(here) else file for file in files]
    return "".join(f" --plugin {shlex.quote(str(name))}" for name in names)


@contextmanager
def use_temporarily(files: Iterable[str | Path]) -> Iterator[None]:
    """Use plugin files inside a `with` block only."""
    before = [*_named]
    try:
        for file in files:
            use_plugin(file)
        yield
    finally:
        _named[:] = before


def modules() -> list[ModuleType]:
    """The modules of all plugins, imported."""
    return [module for plugin in active() for module in plugin.modules()]


def classes() -> list[type]:
    """The public and concrete classes that plugins define."""
    return [
        member
        for module in modules()
        for name, member in inspect.getmembers(module, inspect.isclass)
        if member.__module__ == module.__name__ and name[0] != "_" and not inspect.isabstract(member)
    ]


def owner(module: str) -> Plugin | None:
    """The plugin that a module belongs to; None for modules of genstack."""
    return next((plugin for plugin in active() if module in plugin.files), None)


def check_unique(names: Iterable[tuple[str, str]]) -> None:
    """Check that no two parts have the same name.

    Args:
        names: name and module of each part.

    Raises:
        UserError: two parts of different modules have one name, and one of them is a plugin's.
    """
    seen: dict[str, str] = {}
    for name, module in names:
        other = seen.setdefault(name, module)
        if other != module and (owner(module) or owner(other)):
            places = " and ".join(one.name if (one := owner(each)) else each for each in (other, module))
            raise UserError(f"two parts are named {name}, in {places}; rename the plugin's")


def plugins_defining(names: Iterable[str]) -> list[Plugin]:
    """The plugins that define classes with these names."""
    wanted = {*names}
    modules = {each.__module__ for each in classes() if each.__name__ in wanted}
    return [plugin for plugin in active() if modules & {*plugin.files}]


def texts(value: Any) -> Iterator[str]:
    """All texts in plain data, without the modules before a class."""
    if isinstance(value, str):
        yield value.rpartition(".")[2]
    entries = (
        value.values() if isinstance(value, Mapping) else value if isinstance(value, list | tuple) else ()
    )
    for entry in entries:
        yield from texts(entry)


def require(recorded: Any, place: str | Path) -> None:
    """Check that the plugins which a run or model was made with are in use.

    Args:
        recorded: their records, as they were read.
        place: of the run or model, for messages.

    Raises:
        UserError: one is missing; the message names it.
    """
    records = recorded if isinstance(recorded, list) else [recorded] if recorded else []
    for one in records:
        if not isinstance(one, dict):
            raise UserError(f"{place}: invalid record of plugins; expected names and versions")
        name, version = (str(one.get(key, ""))[:LONGEST] for key in ("name", "version"))
        file = version.startswith("sha256:")
        known = next(
            (each for each in active() if name == each.name or (file and version == each.version)), None
        )
        if known is None and file:
            raise UserError(
                f"{place} was made with plugin {name} ({version}); name that file: --plugin {name}"
            )
        if known is None:
            raise UserError(f"{place} was made with plugin {name} {version}; install that package")
        if known.version != version:
            warnings.warn(
                f"{place} was made with {name} of {version}, this one is {known.version}", stacklevel=2
            )
