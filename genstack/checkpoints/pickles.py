"""Pickles of strangers: tensors, containers, numbers and texts are built, nothing is imported or called.

Python's own unpickler runs whatever a file names. This one walks through the same opcodes, and whatever a
file names becomes an inert stand-in that remembers its name and its state. The few names that tensors are
made of (torch's storages and rebuilding functions, ordered dictionaries) are known as texts.
"""

import pickletools
from collections.abc import Callable
from dataclasses import dataclass, field
from io import SEEK_END, BufferedIOBase
from typing import Any

import torch

from genstack.errors import UserError

KEYS = str | int | float | bytes | None  # what may be a key: hashing it takes no detour
DAMAGED = (
    AttributeError,
    IndexError,
    KeyError,
    MemoryError,
    OverflowError,
    RecursionError,
    TypeError,
    UnicodeError,
    ValueError,
)

STORAGES = {
    "DoubleStorage": torch.float64,
    "FloatStorage": torch.float32,
    "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16,
    "LongStorage": torch.int64,
    "IntStorage": torch.int32,
    "ShortStorage": torch.int16,
    "CharStorage": torch.int8,
    "ByteStorage": torch.uint8,
    "BoolStorage": torch.bool,
    "UntypedStorage": torch.uint8,
}
DTYPES = {str(dtype): dtype for dtype in STORAGES.values()}


@dataclass(frozen=True)
class Name:
    """A class or function that a file names; only its name."""

    module: str
    name: str

    def __str__(self) -> str:
        return f"{self.module}.{self.name}"


@dataclass(eq=False)
class Inert:
    """Stands for an object of some class: its class's name, and the state it would have been given."""

    of: Name
    state: Any = None

    def __repr__(self) -> str:
        return f"<{self.of}>"


@dataclass(frozen=True)
class Storage:
    """A named row of numbers that lies elsewhere in the file."""

    key: str
    dtype: torch.dtype
    size: int


@dataclass(frozen=True)
class Record:
    """A tensor as a pickle writes it: a view of a storage, not checked yet."""

    storage: Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]
    dtype: torch.dtype


def unpickle(file: BufferedIOBase) -> Any:
    """The plain data of one pickle at the file's position; tensors are `Record`s, all else is `Inert`.

    Raises:
        UserError: it is no pickle, or a damaged one.
    """
    try:
        machine = Machine()
        for opcode, argument, _ in pickletools.genops(Source(file)):  # type: ignore[arg-type]
            machine.step(opcode.name, argument)
        (result,) = machine.stack
        return result
    except DAMAGED as error:
        reason = " ".join(f"{type(error).__name__} {error}".split())[:120]
        raise UserError(f"damaged or incomplete, or no pickle ({reason})") from error


class Source:
    """A file that is never asked for more than it has left: memory for what is read is taken beforehand.

    Args:
        file: at the beginning of a pickle.
    """

    def __init__(self, file: BufferedIOBase):
        self.file = file
        here = file.tell()
        self.end = file.seek(0, SEEK_END)
        file.seek(here)

    def read(self, count: int) -> bytes:
        """The next bytes, fewer at the end."""
        return self.file.read(min(count, self.end - self.file.tell()))

    def readline(self) -> bytes:
        """The next line."""
        return self.file.readline()

    def tell(self) -> int:
        """Where the next byte lies."""
        return self.file.tell()


@dataclass
class Machine:
    """The stack of a pickle. `marks` are the heights of the stack at which groups of items begin."""

    stack: list[Any] = field(default_factory=list)
    marks: list[int] = field(default_factory=list)
    memo: dict[int, Any] = field(default_factory=dict)

    def step(self, name: str, argument: Any) -> None:
        """Do what one opcode says."""
        if name in LITERALS:
            self.stack.append(argument)
        elif name in ACTIONS:
            ACTIONS[name](self, argument)
        else:
            raise ValueError(f"opcode {name} has no place in a checkpoint")

    def group(self) -> list[Any]:
        """The items above the latest mark, taken off the stack."""
        start = self.marks.pop()
        items = self.stack[start:]
        del self.stack[start:]
        return items

    def top(self, count: int) -> list[Any]:
        """The topmost items, taken off the stack."""
        if len(self.stack) < count:
            raise IndexError("the stack is empty")
        items = self.stack[len(self.stack) - count :]
        del self.stack[len(self.stack) - count :]
        return items

    def fill(self, pairs: list[Any]) -> None:
        """Set keys and values, one after the other in `pairs`, of the dictionary on top of the stack."""
        target = self.stack[-1]
        if isinstance(target, Inert):
            return
        if not isinstance(target, dict):
            raise TypeError(f"{type(target).__name__} takes no items")
        for key, value in zip(pairs[::2], pairs[1::2], strict=True):
            target[key if isinstance(key, KEYS) else Inert(Name("", "key"))] = value

    def dictionary(self, pairs: list[Any]) -> None:
        """Push a dictionary of these keys and values."""
        self.stack.append({})
        self.fill(pairs)

    def instance(self, arguments: list[Any], text: str) -> None:
        """Push what stands for an object of a class, "module name", whatever its arguments were."""
        self.stack.append(Inert(Name(*text.split(" ", 1))))

    def extend(self, items: list[Any]) -> None:
        """Add items to the list on top of the stack."""
        target = self.stack[-1]
        if isinstance(target, Inert):
            return
        if not isinstance(target, list):
            raise TypeError(f"{type(target).__name__} takes no items")
        target.extend(items)

    def call(self, function: Any, arguments: Any) -> None:
        """Push what stands for the result of a call."""
        if not isinstance(arguments, tuple):
            arguments = ()
        known = CALLS.get(str(function)) if isinstance(function, Name) else None
        self.stack.append(known(*arguments) if known else Inert(named(function)))

    def set_state(self) -> None:
        """Give the object on top of the stack its state."""
        (state,) = self.top(1)
        target = self.stack[-1]
        if isinstance(target, Inert):
            target.state = state

    def name(self, module: Any, name: Any) -> None:
        """Push a name; both parts are texts."""
        if not isinstance(module, str) or not isinstance(name, str):
            raise TypeError("a name is a text")
        self.stack.append(Name(module, name))


def named(function: Any) -> Name:
    """The name of what a file would have called."""
    return function if isinstance(function, Name) else Name("", "object")


def ordered(*arguments: Any) -> dict:
    """An ordered dictionary; old pickles give its items as a list of pairs."""
    pairs = arguments[0] if len(arguments) == 1 and isinstance(arguments[0], list) else []
    return {key: value for key, value in pairs if isinstance(key, KEYS)}


def view(storage: Any, offset: Any, shape: Any, strides: Any, *_: Any) -> Record:
    """torch._utils._rebuild_tensor_v2: a view of a storage."""
    if not isinstance(storage, Storage) or not isinstance(shape, tuple) or not isinstance(strides, tuple):
        raise TypeError("a tensor is a view of a storage")
    if not all(type(number) is int for number in (offset, *shape, *strides)):
        raise TypeError("offset, shape and strides of a tensor are whole numbers")
    return Record(storage, offset, shape, strides, storage.dtype)


def typed_view(storage: Any, offset: Any, shape: Any, strides: Any, *rest: Any) -> Record:
    """torch._utils._rebuild_tensor_v3: the same, with the type of its numbers."""
    record = view(storage, offset, shape, strides)
    dtype = DTYPES[str(rest[2])]
    size = storage.size * storage.dtype.itemsize // dtype.itemsize
    return Record(Storage(storage.key, dtype, size), record.offset, shape, strides, dtype)


def stored(identifier: Any) -> Storage:
    """What a persistent identifier stands for: `("storage", type, key, device, size[, part])`."""
    kind, of, key, _, size, *part = identifier
    if kind not in ("storage", b"storage") or not isinstance(of, Name) or any(part):
        raise ValueError("only storages lie outside of a pickle")
    if not isinstance(key, str) or type(size) is not int or size < 0:
        raise TypeError("a storage has a name and a size")
    return Storage(key, STORAGES[of.name], size)


CALLS: dict[str, Callable[..., Any]] = {
    "collections.OrderedDict": ordered,
    "torch.Size": lambda sizes=(): tuple(sizes),
    "torch._utils._rebuild_tensor": view,
    "torch._utils._rebuild_tensor_v2": view,
    "torch._utils._rebuild_tensor_v3": typed_view,
    "torch._utils._rebuild_parameter": lambda tensor, *_: tensor,
    "torch._utils._rebuild_parameter_with_state": lambda tensor, *_: tensor,
}

LITERALS = {
    "INT",
    "BININT",
    "BININT1",
    "BININT2",
    "LONG",
    "LONG1",
    "LONG4",
    "FLOAT",
    "BINFLOAT",
    "STRING",
    "BINSTRING",
    "SHORT_BINSTRING",
    "UNICODE",
    "SHORT_BINUNICODE",
    "BINUNICODE",
    "BINUNICODE8",
    "BINBYTES",
    "SHORT_BINBYTES",
    "BINBYTES8",
    "BYTEARRAY8",
}

ACTIONS: dict[str, Callable[[Machine, Any], object]] = {
    "PROTO": lambda machine, _: None,
    "FRAME": lambda machine, _: None,
    "STOP": lambda machine, _: None,
    "NONE": lambda machine, _: machine.stack.append(None),
    "NEWTRUE": lambda machine, _: machine.stack.append(True),
    "NEWFALSE": lambda machine, _: machine.stack.append(False),
    "MARK": lambda machine, _: machine.marks.append(len(machine.stack)),
    "POP": lambda machine, _: machine.top(1),
    "POP_MARK": lambda machine, _: machine.group(),
    "DUP": lambda machine, _: machine.stack.append(machine.stack[-1]),
    "EMPTY_LIST": lambda machine, _: machine.stack.append([]),
    "EMPTY_SET": lambda machine, _: machine.stack.append([]),
    "EMPTY_DICT": lambda machine, _: machine.stack.append({}),
    "EMPTY_TUPLE": lambda machine, _: machine.stack.append(()),
    "LIST": lambda machine, _: machine.stack.append(machine.group()),
    "FROZENSET": lambda machine, _: machine.stack.append(machine.group()),
    "TUPLE": lambda machine, _: machine.stack.append(tuple(machine.group())),
    "TUPLE1": lambda machine, _: machine.stack.append(tuple(machine.top(1))),
    "TUPLE2": lambda machine, _: machine.stack.append(tuple(machine.top(2))),
    "TUPLE3": lambda machine, _: machine.stack.append(tuple(machine.top(3))),
    "DICT": lambda machine, _: machine.dictionary(machine.group()),
    "SETITEM": lambda machine, _: machine.fill(machine.top(2)),
    "SETITEMS": lambda machine, _: machine.fill(machine.group()),
    "APPEND": lambda machine, _: machine.extend(machine.top(1)),
    "APPENDS": lambda machine, _: machine.extend(machine.group()),
    "ADDITEMS": lambda machine, _: machine.extend(machine.group()),
    "PUT": lambda machine, key: machine.memo.__setitem__(key, machine.stack[-1]),
    "BINPUT": lambda machine, key: machine.memo.__setitem__(key, machine.stack[-1]),
    "LONG_BINPUT": lambda machine, key: machine.memo.__setitem__(key, machine.stack[-1]),
    "MEMOIZE": lambda machine, _: machine.memo.__setitem__(len(machine.memo), machine.stack[-1]),
    "GET": lambda machine, key: machine.stack.append(machine.memo[key]),
    "BINGET": lambda machine, key: machine.stack.append(machine.memo[key]),
    "LONG_BINGET": lambda machine, key: machine.stack.append(machine.memo[key]),
    "GLOBAL": lambda machine, text: machine.name(*text.split(" ", 1)),
    "STACK_GLOBAL": lambda machine, _: machine.name(*machine.top(2)),
    "REDUCE": lambda machine, _: machine.call(*machine.top(2)),
    "NEWOBJ": lambda machine, _: machine.call(*machine.top(2)),
    "NEWOBJ_EX": lambda machine, _: machine.call(*machine.top(3)[:2]),
    "INST": lambda machine, text: machine.instance(machine.group(), text),
    "OBJ": lambda machine, _: machine.stack.append(Inert(named(machine.group()[0]))),
    "BUILD": lambda machine, _: machine.set_state(),
    "BINPERSID": lambda machine, _: machine.stack.append(stored(*machine.top(1))),
}
