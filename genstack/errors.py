"""Errors that a user can correct."""

from collections.abc import Iterator
from contextlib import contextmanager

LONGEST = 2000  # letters of a message, since names in files may have any length


class UserError(ValueError):
    """A one-line message with value, limit and way out; the command line exits with status 2.

    Messages quote untrusted files, so characters that are not printable are replaced.
    """

    def __str__(self) -> str:
        line = " ".join(super().__str__().split())
        shown = "".join(letter if letter.isprintable() else "?" for letter in line[:LONGEST])
        return shown + "..." if len(line) > LONGEST else shown


@contextmanager
def extra(name: str, need: str) -> Iterator[None]:
    """Report a failed import in the block with the command that installs the extra `name` of genstack."""
    try:
        yield
    except ImportError as error:
        raise UserError(f"{need}; pip install 'genstack-images[{name}]'") from error
