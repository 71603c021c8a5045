"""Signatures and docstrings from the syntax tree, so that help answers without importing torch."""

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import TypeGuard

import docstring_parser

import genstack
from genstack import plugins

ROOT = Path(genstack.__file__).parents[1]
WORDS = {
    "str": "text",
    "bool": "true|false",
    "None": "null",
    "Path": "path",
    "Place": "path",
    "Trained": "path",
    "Any": "value",
}
#: Callbacks of Lightning that settings can name; a plugin can extend any other.
LIGHTNING = "pytorch_lightning"
CALLBACKS = ("DeviceStatsMonitor", "EarlyStopping", "LearningRateMonitor", "Timer")
CONTAINERS = ("tuple", "list", "dict", "Sequence", "Mapping")


@dataclass(frozen=True)
class Argument:
    """One argument of a function or class.

    Args:
        name: name of the parameter.
        hint: source text of its type.
        default: source text of its default; None for a required argument.
        help: description in the docstring.
        module: module that defines it.
    """

    name: str
    hint: str
    default: str | None
    help: str
    module: str


@dataclass(frozen=True)
class Part:
    """A class or function in the source."""

    module: str
    node: ast.ClassDef | ast.FunctionDef

    @property
    def path(self) -> str:
        """Full dotted name."""
        return f"{self.module}.{self.node.name}"

    @property
    def docstring(self) -> str:
        return ast.get_docstring(self.node) or ""

    @property
    def summary(self) -> str:
        """First line of the docstring."""
        return self.docstring.partition("\n")[0]

    @property
    def methods(self) -> dict[str, ast.FunctionDef]:
        return {entry.name: entry for entry in self.node.body if isinstance(entry, ast.FunctionDef)}

    @property
    def fields(self) -> dict[str, ast.AnnAssign]:
        return {_name(entry.target): entry for entry in self.node.body if isinstance(entry, ast.AnnAssign)}

    @property
    def untyped_attributes(self) -> set[str]:
        """Names of attributes that have a value without a type."""
        values = [entry for entry in self.node.body if isinstance(entry, ast.Assign)]
        return {_name(target) for entry in values for target in entry.targets}

    @property
    def bases(self) -> list["Part"]:
        """Base classes that genstack or a plugin defines."""
        named = [_resolve_base(self.module, base) for base in getattr(self.node, "bases", ())]
        return [part for part in named if part]

    def ancestors(self) -> Iterator["Part"]:
        """Yield the class and all of its ancestors in genstack."""
        yield self
        for base in self.bases:
            yield from base.ancestors()

    def is_named(self, name: str) -> bool:
        """Return True if a name means this class; any module of genstack or its own may precede it."""
        package, _, last = name.rpartition(".")
        own = self.module.partition(".")[0]
        homes = ("genstack.", ".", f"{own}.", *(["lightning."] if own == LIGHTNING else []))
        return last == self.node.name and f"{package}.".startswith(homes)

    def abstract_methods(self) -> set[str]:
        """Return the methods that a subclass must define."""
        marked = {
            name for name, node in self.methods.items() if "abstractmethod" in map(_name, node.decorator_list)
        }
        inherited = {name for base in self.bases for name in base.abstract_methods()}
        return inherited - {*self.fields, *self.methods, *self.untyped_attributes} | marked

    @property
    def concrete(self) -> bool:
        """Return True if settings can name this class."""
        direct = map(_name, getattr(self.node, "bases", ()))
        return not (self.node.name.startswith("_") or "ABC" in direct or self.abstract_methods())

    def arguments(self, skip: int = 0) -> dict[str, Argument]:
        """Return the arguments of the function or constructor by name, without the first `skip`."""
        helps = {name: text for part in reversed([*self.ancestors()]) for name, text in part._helps()}
        return {
            name: Argument(name, hint, default, helps.get(name, ""), self.module)
            for name, hint, default in self._signature()[skip:]
        }

    def _signature(self) -> list[tuple[str, str, str | None]]:
        """Return name, type and default of each argument."""
        if isinstance(self.node, ast.FunctionDef):
            return _parameters(self.node.args)
        if "__init__" in self.methods:
            return _parameters(self.methods["__init__"].args)[1:]
        found = {entry[0]: entry for base in reversed(self.bases) for entry in base._signature()}
        if any("dataclass" in ast.unparse(decorator) for decorator in self.node.decorator_list):
            for name, entry in self.fields.items():
                if "ClassVar" not in (hint := ast.unparse(entry.annotation)):
                    found[name] = (name, hint, ast.unparse(entry.value) if entry.value else None)
        return [*found.values()]

    def _helps(self) -> Iterator[tuple[str, str]]:
        inits = [self.methods["__init__"]] if "__init__" in self.methods else []
        for text in (self.docstring, *(ast.get_docstring(node) for node in inits)):
            for argument in docstring_parser.parse(text or "").params:
                yield argument.arg_name, " ".join((argument.description or "").split())


def tree(module: str) -> ast.Module:
    """Parse a module of genstack or of a plugin."""
    plugin = plugins.owner(module)
    return plugin_trees(plugin)[module] if plugin else _tree(module)


@cache
def _tree(module: str) -> ast.Module:
    package = module.partition(".")[0]
    file = (lightning().parent if package == LIGHTNING else ROOT) / Path(*module.split("."))
    file = file / "__init__.py" if file.is_dir() else file.with_suffix(".py")
    parsed = ast.parse(file.read_text("utf-8"))
    _drop_statements(parsed.body)
    return parsed


def _drop_statements(body: list[ast.stmt]) -> None:
    """Keep of each function only its signature and docstring, since trees stay in memory."""
    for node in body:
        if isinstance(node, ast.ClassDef):
            _drop_statements(node.body)
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            node.body = node.body[:1]


@cache
def lightning() -> Path:
    """Find the folder of Lightning without importing it."""
    spec = find_spec(LIGHTNING)
    assert spec and spec.origin
    return Path(spec.origin).parent


@cache
def lightning_callbacks() -> tuple[Part, ...]:
    """The callbacks of Lightning that settings can name."""
    return tuple(find(f"{LIGHTNING}.callbacks.{name}") for name in CALLBACKS)


@cache
def plugin_trees(plugin: plugins.Plugin) -> dict[str, ast.Module]:
    """Parse the modules of a plugin, by full name."""
    return plugin.trees()


@cache
def classes(package: str) -> tuple[Part, ...]:
    """Collect the classes of one of genstack's packages, such as `losses`."""
    files = sorted((ROOT / "genstack" / package).rglob("*.py"))
    modules = [".".join(file.relative_to(ROOT).with_suffix("").parts) for file in files]
    own = [module for module in modules if not module.endswith(".__init__")]
    return tuple(Part(module, node) for module in own for node in tree(module).body if _is_class(node))


def plugin_classes(active: tuple[plugins.Plugin, ...]) -> list[Part]:
    """Every class of these plugins."""
    trees = [entry for plugin in active for entry in plugin_trees(plugin).items()]
    return [Part(module, node) for module, tree in trees for node in tree.body if _is_class(node)]


def check_plugins() -> None:
    """Check the names of all parts in plugins, before they are imported.

    Raises:
        UserError: two parts have one name.
    """
    for part in plugin_classes(plugins.active()):
        for base in part.ancestors():
            subclasses(base)


def subclasses(base: Part) -> tuple[Part, ...]:
    """Collect a class and its subclasses in its package and in plugins, sorted by name.

    Raises:
        UserError: two of them have one name.
    """
    return _subclasses(base, plugins.active())


@cache
def _subclasses(base: Part, active: tuple[plugins.Plugin, ...]) -> tuple[Part, ...]:
    package = base.module.removeprefix("genstack.").partition(".")[0]
    own = lightning_callbacks() if package == LIGHTNING else classes(package)
    known = [*own, *plugin_classes(active)]
    found = [part for part in known if base.path in (one.path for one in part.ancestors())]
    plugins.check_unique((part.node.name, part.module) for part in found)
    return tuple(sorted(found, key=lambda part: part.node.name))


def resolve(module: str, name: str) -> Part | None:
    """Find the class or function that a module calls `name`; None if no genstack or plugin defines it."""
    return _resolve(module, name, plugins.active())


@cache
def _resolve(module: str, name: str, active: tuple[plugins.Plugin, ...]) -> Part | None:
    for node in tree(module).body:
        if isinstance(node, ast.ClassDef | ast.FunctionDef) and node.name == name:
            return Part(module, node)
        if isinstance(node, ast.ImportFrom):
            home = imported(node, module)
            for alias in node.names if is_known(home) else ():
                if name == (alias.asname or alias.name):
                    return resolve(home, alias.name)
    return None


def _resolve_base(module: str, base: ast.expr) -> Part | None:
    """The class that `Name` or `package.module.Name` means in a module."""
    names = ast.unparse(base.value if isinstance(base, ast.Subscript) else base).split(".")
    if len(names) == 1:
        return resolve(module, names[0])
    for node in tree(module).body:
        above = [imported(node, module)] if isinstance(node, ast.ImportFrom) else []
        for alias in node.names if isinstance(node, ast.Import | ast.ImportFrom) else ():
            home = alias.name if alias.asname or above else alias.name.partition(".")[0]
            if names[0] == (alias.asname or home):
                path = ".".join([*above, home, *names[1:-1]])
                return resolve(path, names[-1]) if is_known(path) else None
    return None


def is_known(module: str) -> bool:
    """Return True for modules of genstack, of plugins and of Lightning's callbacks."""
    known = ("genstack.", f"{LIGHTNING}.callbacks.")
    return f"{module}.".startswith(known) or module == LIGHTNING or plugins.owner(module) is not None


def imported(node: ast.ImportFrom, module: str) -> str:
    """Full name of the module that `from ... import` names in a module."""
    plugin = plugins.owner(module)
    inside = bool(plugin and plugin.files[module].name == "__init__.py")
    package = module.split(".")[: len(module.split(".")) - node.level + inside] if node.level else []
    return ".".join(filter(None, [*package, node.module]))


def find(path: str) -> Part:
    """Find a class or function by its full dotted name."""
    module, _, name = path.rpartition(".")
    found = resolve(module, name)
    assert found, path
    return found


def choices(argument: Argument) -> dict[str, tuple[Part, int]]:
    """Return the classes that an argument accepts, each with the number of arguments that genstack passes."""
    return {
        part.node.name: (part, given)
        for base, given in _bases(_parse(argument.hint), argument.module)
        for part in subclasses(base)
        if part.concrete
    }


def words(argument: Argument) -> str:
    """Spell a type for help and messages: `int`, `float|null`, `a|b`, `int,int`."""
    return _words(_parse(argument.hint), argument.module)


def value(argument: Argument) -> str:
    """Spell a default as on the command line; a class by its name."""
    return _literal(_parse(argument.default or "None"), argument.module)


def overrides(argument: Argument) -> dict[str, str]:
    """Return the arguments that a default such as `Optimization(weight_decay=0.05)` sets."""
    keywords = getattr(_parse(argument.default or "None"), "keywords", ())
    return {keyword.arg: ast.unparse(keyword.value) for keyword in keywords if keyword.arg}


def _parameters(arguments: ast.arguments) -> list[tuple[str, str, str | None]]:
    placed = arguments.posonlyargs + arguments.args
    defaults = [None] * (len(placed) - len(arguments.defaults)) + [*arguments.defaults]
    pairs = zip([*placed, *arguments.kwonlyargs], [*defaults, *arguments.kw_defaults], strict=True)
    return [
        (one.arg, ast.unparse(one.annotation or ast.Name("Any")), ast.unparse(default) if default else None)
        for one, default in pairs
    ]


@cache
def _parse(text: str) -> ast.expr:
    return ast.parse(text, mode="eval").body


def _is_class(node: ast.AST) -> TypeGuard[ast.ClassDef]:
    return isinstance(node, ast.ClassDef)


def _name(node: ast.AST) -> str:
    """Return the last name of an expression such as `nn.Module` or `Training[Prior]`."""
    node = node.value if isinstance(node, ast.Subscript) else node
    return getattr(node, "attr", None) or getattr(node, "id", None) or ""


def _members(node: ast.expr) -> list[ast.expr]:
    """List the members of a union."""
    if isinstance(node, ast.Subscript) and _name(node) in ("Optional", "Union"):
        inner = [member for entry in _inner(node) for member in _members(entry)]
        return [*inner, ast.Constant(None)] if _name(node) == "Optional" else inner
    return [*_members(node.left), *_members(node.right)] if isinstance(node, ast.BinOp) else [node]


def _inner(node: ast.Subscript) -> list[ast.expr]:
    return node.slice.elts if isinstance(node.slice, ast.Tuple) else [node.slice]


def _bases(node: ast.expr, module: str) -> Iterator[tuple[Part, int]]:
    """Yield the classes in a type, each with the number of arguments that a factory takes."""
    for member in _members(node):
        if isinstance(member, ast.Subscript) and _name(member) == "Callable":
            given, made = _inner(member)
            yield from ((part, len(getattr(given, "elts", ()))) for part, _ in _bases(made, module))
        elif isinstance(member, ast.Subscript) and _name(member) in CONTAINERS:
            for inner in _inner(member):
                yield from _bases(inner, module)
        elif part := resolve(module, _name(member)):
            yield part, 0


def _words(node: ast.expr, module: str) -> str:
    if len(members := _members(node)) > 1:
        return "|".join(dict.fromkeys(_words(member, module) for member in members))
    name = _name(node) or ast.unparse(node)
    if name not in WORDS and (alias := _constant(name, module)):
        return _words(alias, module)
    if isinstance(node, ast.Subscript) and name == "Literal":
        return "|".join(filter(None, (str(ast.literal_eval(entry)) for entry in _inner(node))))
    if isinstance(node, ast.Subscript) and name in CONTAINERS:
        inner = ["..." if ast.unparse(entry) == "..." else _words(entry, module) for entry in _inner(node)]
        return ",".join(inner if len(inner) > 1 else [inner[0], "..."])
    return WORDS.get(name, name)


def _literal(node: ast.expr, module: str) -> str:
    if isinstance(node, ast.Call):
        return _literal(node.args[0], module) if _name(node.func) == "Path" else _name(node.func)
    if isinstance(node, ast.List | ast.Tuple):
        return ",".join(_literal(entry, module) for entry in node.elts)
    if isinstance(node, ast.Name):
        value = _constant(node.id, module)
        return _literal(value, module) if value else node.id
    if isinstance(node, ast.Constant):
        return {"None": "null", "True": "true", "False": "false"}.get(str(node.value), str(node.value))
    return ast.unparse(node)


def _constant(name: str, module: str) -> ast.expr | None:
    """Return the value of a constant or type alias that a module defines, or imports from a known one."""
    for entry in tree(module).body:
        if isinstance(entry, ast.Assign) and name in map(_name, entry.targets):
            return entry.value
        if isinstance(entry, ast.ImportFrom) and is_known(home := imported(entry, module)):
            for alias in entry.names:
                if name == (alias.asname or alias.name):
                    return _constant(alias.name, home)
    return None
