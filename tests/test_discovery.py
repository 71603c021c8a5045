"""A new file with a new class is found; what is abstract, borrowed or private to another file is not."""

import importlib
import sys
from abc import ABC, abstractmethod

import pytest

from genstack.discovery import discover, modules


class Base(ABC):
    @abstractmethod
    def speak(self): ...


@pytest.fixture
def package(tmp_path, monkeypatch):
    """A package of files, one of them in a folder further in."""
    files = {
        "__init__.py": "",
        "cat.py": "from base_of_pets import Base\nclass Cat(Base):\n    def speak(self): return 'meow'",
        "wild/__init__.py": "from pets.cat import Cat",
        "wild/dog.py": "from pets.cat import Cat, Base\nclass Dog(Cat): pass\nclass Wolf(Base): pass",
        "stone.py": "class Stone: pass",
    }
    for name, text in files.items():
        path = tmp_path / "pets" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setitem(sys.modules, "base_of_pets", sys.modules[__name__])
    yield importlib.import_module("pets")
    for name in [name for name in sys.modules if name.partition(".")[0] == "pets"]:
        del sys.modules[name]


def test_concrete_classes_are_found_in_their_module(package):
    found = discover(package, Base)
    assert list(found) == ["Cat", "Dog"]
    assert found["Dog"].__module__ == "pets.wild.dog"
    assert found["Cat"]().speak() == "meow"


def test_every_file_is_imported(package):
    names = {module.__name__ for module in modules(package)}
    assert names == {"pets.cat", "pets.stone", "pets.wild", "pets.wild.dog"}
