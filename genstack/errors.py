"""The error that is a user's to mend."""

LONGEST = 2000  # letters of a message; names in strangers' files may have any length


class UserError(ValueError):
    """What is wrong, where, the limit and the way out, in one line; the command line exits with 2.

    Messages quote strangers: whatever could move a cursor or end a line is no letter of theirs.
    """

    def __str__(self) -> str:
        line = " ".join(super().__str__().split())
        shown = "".join(letter if letter.isprintable() else "?" for letter in line[:LONGEST])
        return shown + "..." if len(line) > LONGEST else shown
