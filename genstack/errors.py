"""The error that is a user's to mend."""

from collections.abc import Iterator
from contextlib import contextmanager

LONGEST = 2000  # letters of a message; names in strangers' files may have any length


class UserError(ValueError):
    """What is wrong, where, the limit and the way out, in one line; the command line exits with 2.

    Messages quote strangers: whatever could move a cursor or end a line is no letter of theirs.
    """

    def __str__(self) -> str:
        line = " ".join(super().__str__().split())
        shown = "".join(letter if letter.isprintable() else "?" for letter in line[:LONGEST])
        return shown + "..." if len(line) > LONGEST else shown


@contextmanager
def extra(name: str, need: str) -> Iterator[None]:
    """Around the import of a package that only an extra of genstack brings.

    Raises:
        UserError: it is not installed.
    """
    try:
        yield
    except ImportError as error:
        raise UserError(f"{need}; pip install 'genstack-images[{name}]'") from error
