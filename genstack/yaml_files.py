"""YAML files: plain values, each key once, and numbers and words as in YAML 1.2."""

import re
from pathlib import Path
from typing import Any

import yaml

from genstack.errors import UserError


class Loader(yaml.SafeLoader):
    """Plain values only; `1e-3` is a number, and `off`, `on`, `yes` and `no` are words (as in YAML 1.2)."""

    yaml_implicit_resolvers = {
        first: [
            (tag, pattern) for tag, pattern in known if not tag.endswith((":bool", ":float", ":timestamp"))
        ]
        for first, known in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict:
        """Build a mapping whose keys are unique."""
        seen: set[str] = set()
        for key in (key for key, _ in node.value if isinstance(key, yaml.ScalarNode)):
            if key.value in seen:
                raise yaml.constructor.ConstructorError(
                    problem=f"{key.value} is given twice; keep one", problem_mark=key.start_mark
                )
            seen.add(key.value)
        return super().construct_mapping(node, deep)


Loader.add_implicit_resolver(
    "tag:yaml.org,2002:bool", re.compile(r"^(?:true|True|TRUE|false|False|FALSE)$"), list("tTfF")
)
Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(
        r"^[-+]?(?:(?:\d+\.\d*|\.\d+)(?:[eE][-+]?\d+)?|\d+[eE][-+]?\d+|\.(?:inf|Inf|INF|nan|NaN|NAN))$"
    ),
    list("-+0123456789."),
)


def read_yaml(file: Path) -> Any:
    """Read a YAML file.

    Raises:
        UserError: it is not YAML, or a key is given twice.
    """
    try:
        return yaml.load(file.read_text(encoding="utf-8"), Loader)
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        raise UserError(f"{file}, line {line}: {' '.join(str(error.problem).split())}") from None
    except (yaml.YAMLError, ValueError, RecursionError):
        raise UserError(f"{file} is not a YAML file") from None
