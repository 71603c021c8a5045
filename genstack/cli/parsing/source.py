"""Signatures and docstrings, read from the source: help and error messages import no library for them."""

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import docstring_parser

import genstack

ROOT = Path(genstack.__file__).parents[1]
#: Packages whose classes settings can name.
PACKAGES = ("compressor", "losses", "transformer", "conditions", "prior", "data", "training")
WORDS = {"str": "text", "bool": "true|false", "None": "null", "Path": "path", "Place": "path", "Any": "value"}
CONTAINERS = ("tuple", "list", "dict", "Sequence", "Mapping")


@dataclass(frozen=True)
class Argument:
    """One argument of a function or class.

    Args:
        name: as it is set.
        hint: its type, as the source writes it.
        default: its default, as the source writes it; None if it must be set.
        help: meaning, from the docstring.
        module: where it is defined.
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
    def bases(self) -> list["Part"]:
        """Base classes, as far as genstack defines them."""
        named = [resolve(self.module, _name(base)) for base in getattr(self.node, "bases", ())]
        return [part for part in named if part]

    def ancestors(self) -> Iterator["Part"]:
        """The class and all classes that it inherits from."""
        yield self
        for base in self.bases:
            yield from base.ancestors()

    def is_named(self, name: str) -> bool:
        """Whether a name means this class, alone or after any module of genstack."""
        package, _, last = name.rpartition(".")
        return last == self.node.name and f"{package}.".startswith(("genstack.", "."))

    def abstract_methods(self) -> set[str]:
        """Methods that a subclass must still define."""
        body = [entry for entry in self.node.body if isinstance(entry, ast.FunctionDef)]
        fields = {_name(entry.target) for entry in self.node.body if isinstance(entry, ast.AnnAssign)}
        own = {entry.name for entry in body if "abstractmethod" in map(_name, entry.decorator_list)}
        inherited = {name for base in self.bases for name in base.abstract_methods()}
        return inherited - fields - {entry.name for entry in body} | own

    @property
    def concrete(self) -> bool:
        """Whether settings can name this class."""
        names = map(_name, self.node.bases) if isinstance(self.node, ast.ClassDef) else ()
        return not (self.node.name.startswith("_") or "ABC" in names or self.abstract_methods())

    def arguments(self, skip: int = 0) -> dict[str, Argument]:
        """Arguments of the function or constructor by name, without the first few."""
        found = [Argument(*entry, help="", module=self.module) for entry in self._signature()]
        helps: dict[str, str] = {}
        for part in reversed([*self.ancestors()]):
            helps |= part._helps()
        return {
            one.name: Argument(one.name, one.hint, one.default, helps.get(one.name, ""), self.module)
            for one in found[skip:]
        }

    def _signature(self) -> list[tuple[str, str, str | None]]:
        if isinstance(self.node, ast.FunctionDef):
            return _parameters(self.node.args)
        methods = [entry for entry in self.node.body if isinstance(entry, ast.FunctionDef)]
        if init := next((entry for entry in methods if entry.name == "__init__"), None):
            return _parameters(init.args)[1:]
        inherited = {entry[0]: entry for base in reversed(self.bases) for entry in base._signature()}
        if any("dataclass" in ast.unparse(decorator) for decorator in self.node.decorator_list):
            fields = [entry for entry in self.node.body if isinstance(entry, ast.AnnAssign)]
            inherited |= {
                name: (name, hint, ast.unparse(entry.value) if entry.value else None)
                for entry in fields
                if "ClassVar" not in (hint := ast.unparse(entry.annotation)) and (name := _name(entry.target))
            }
        return [*inherited.values()]

    def _helps(self) -> dict[str, str]:
        inits = [entry for entry in self.node.body if getattr(entry, "name", "") == "__init__"]
        texts = [self.docstring, *(ast.get_docstring(entry) or "" for entry in inits)]  # type: ignore[arg-type]
        return {
            argument.arg_name: " ".join((argument.description or "").split())
            for text in texts
            for argument in docstring_parser.parse(text).params
        }


@cache
def tree(module: str) -> ast.Module:
    """The parsed source of a module of genstack."""
    file = ROOT / Path(*module.split("."))
    return ast.parse((file / "__init__.py" if file.is_dir() else file.with_suffix(".py")).read_text("utf-8"))


@cache
def classes() -> tuple[Part, ...]:
    """Every class that settings may involve."""
    files = [file for package in PACKAGES for file in sorted((ROOT / "genstack" / package).rglob("*.py"))]
    modules = [".".join(file.relative_to(ROOT).with_suffix("").parts) for file in files]
    return tuple(
        Part(module, node)
        for module in modules
        if not module.endswith(".__init__")
        for node in tree(module).body
        if isinstance(node, ast.ClassDef)
    )


@cache
def resolve(module: str, name: str) -> Part | None:
    """The class or function that a name means in a module; None if genstack does not define it."""
    for node in tree(module).body:
        if isinstance(node, ast.ClassDef | ast.FunctionDef) and node.name == name:
            return Part(module, node)
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith(f"{genstack.__name__}."):
            for alias in node.names:
                if name == (alias.asname or alias.name):
                    return resolve(str(node.module), alias.name)
    return None


def find(path: str) -> Part:
    """The class or function with a full dotted name."""
    module, _, name = path.rpartition(".")
    found = resolve(module, name)
    assert found, path
    return found


def bases(argument: Argument) -> list[tuple[Part, int, bool]]:
    """The classes that an argument asks for: class, number of arguments given to it, if in a container."""
    return list(_bases(ast.parse(argument.hint, mode="eval").body, argument.module, False))


def choices(argument: Argument) -> dict[str, tuple[Part, int]]:
    """The classes that can be named as an argument, each with the number of arguments given to it."""
    return {
        part.node.name: (part, given)
        for base, given, _ in bases(argument)
        for part in subclasses(base)
        if part.concrete
    }


@cache
def subclasses(base: Part) -> tuple[Part, ...]:
    """A class and all classes that inherit from it, by name."""
    found = [part for part in classes() if base.path in (one.path for one in part.ancestors())]
    return tuple(sorted(found, key=lambda part: part.node.name))


def words(argument: Argument) -> str:
    """A type as help and messages show it: `int`, `float|null`, `a|b`, `int,int`."""
    node = ast.parse(argument.hint, mode="eval").body
    return "|".join(dict.fromkeys(_words(member, argument.module) for member in _members(node)))


def value(argument: Argument) -> str:
    """A default as the command line would write it; a class by its name."""
    return _literal(ast.parse(argument.default or "None", mode="eval").body, argument.module)


def overrides(argument: Argument) -> dict[str, str]:
    """Arguments that a default such as `Optimization(weight_decay=0.05)` sets."""
    node = ast.parse(argument.default or "None", mode="eval").body
    keywords = node.keywords if isinstance(node, ast.Call) else []
    return {keyword.arg: ast.unparse(keyword.value) for keyword in keywords if keyword.arg}


def _parameters(arguments: ast.arguments) -> list[tuple[str, str, str | None]]:
    placed = arguments.posonlyargs + arguments.args
    defaults = [None] * (len(placed) - len(arguments.defaults)) + [*arguments.defaults]
    pairs = [*zip(placed, defaults, strict=True)]
    pairs += [*zip(arguments.kwonlyargs, arguments.kw_defaults, strict=True)]
    return [
        (
            one.arg,
            ast.unparse(one.annotation) if one.annotation else "Any",
            ast.unparse(default) if default else None,
        )
        for one, default in pairs
    ]


def _name(node: ast.AST) -> str:
    """The last name of an expression such as `nn.Module` or `Training[Prior]`."""
    if isinstance(node, ast.Subscript):
        return _name(node.value)
    return getattr(node, "attr", None) or getattr(node, "id", None) or ""


def _members(node: ast.expr) -> list[ast.expr]:
    """The alternatives of a type."""
    return [*_members(node.left), *_members(node.right)] if isinstance(node, ast.BinOp) else [node]


def _inner(node: ast.Subscript) -> list[ast.expr]:
    return node.slice.elts if isinstance(node.slice, ast.Tuple) else [node.slice]


def _bases(node: ast.expr, module: str, inside: bool) -> Iterator[tuple[Part, int, bool]]:
    for member in _members(node):
        if isinstance(member, ast.Subscript) and _name(member) == "Callable":
            given, made = _inner(member)
            count = len(getattr(given, "elts", ()))
            yield from ((part, count, inside) for part, _, _ in _bases(made, module, inside))
        elif isinstance(member, ast.Subscript) and _name(member) in CONTAINERS:
            for inner in _inner(member):
                yield from _bases(inner, module, True)
        elif part := resolve(module, _name(member)):
            yield part, 0, inside


def _words(node: ast.expr, module: str) -> str:
    if isinstance(node, ast.BinOp):
        return "|".join(_words(member, module) for member in _members(node))
    name = _name(node) or ast.unparse(node)
    if alias := _assigned(name, module):
        return _words(alias, module)
    if isinstance(node, ast.Subscript) and name == "Literal":
        return "|".join(str(ast.literal_eval(entry)) for entry in _inner(node))
    if isinstance(node, ast.Subscript) and name in CONTAINERS:
        inner = ["..." if ast.unparse(entry) == "..." else _words(entry, module) for entry in _inner(node)]
        return ",".join(inner if len(inner) > 1 else [inner[0], "..."])
    return WORDS.get(name, name)


def _literal(node: ast.expr, module: str) -> str:
    if isinstance(node, ast.Call):
        return _literal(node.args[0], module) if _name(node.func) == "Path" else _name(node.func)
    if isinstance(node, ast.Name):
        constant = _assigned(node.id, module)
        return _literal(constant, module) if constant else node.id
    try:
        literal = ast.literal_eval(node)
    except ValueError:
        return ast.unparse(node)
    return _plain(literal)


def _plain(literal: object) -> str:
    if isinstance(literal, list | tuple):
        return ",".join(map(_plain, literal))
    named = {None: "null", True: "true", False: "false"}
    return named[literal] if literal is None or isinstance(literal, bool) else str(literal)


def _assigned(name: str, module: str) -> ast.expr | None:
    """The value of a constant or the meaning of a type alias in a module."""
    assigned = [entry for entry in tree(module).body if isinstance(entry, ast.Assign)]
    return next((entry.value for entry in assigned if name in map(_name, entry.targets)), None)
