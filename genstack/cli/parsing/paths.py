"""Paths on the command line: `~` is the home folder, and an empty path is refused, in every option."""

import os
from typing import Any

from genstack.errors import UserError

#: A path, or the name of something published. Options of this type show `path` in the help.
Place = str


def expand(value: Any, option: str) -> Any:
    """A path, or several, with `~` replaced by the home folder.

    Raises:
        UserError: the path is empty, as after an unset variable of the shell.
    """
    if isinstance(value, list):
        return [expand(each, option) for each in value]
    if isinstance(value, str) and not value.strip():
        raise UserError(f"{option} is empty; expected a path")
    return os.path.expanduser(value) if isinstance(value, str) else value  # noqa: PTH111 - keeps hf:a//b


def check_name(name: str) -> None:
    """Refuse the name of a run that is no file name.

    Raises:
        UserError: the name is empty, or leads to another folder.
    """
    if name in ("", ".", "..") or {"/", "\\", "\0"} & {*name}:
        raise UserError(
            f"invalid --name '{name}': expected the name of one folder; choose its parent by --runs"
        )
