"""Text from outside: what UTF-8 cannot hold, and paths whose accents are written in two forms."""

import re
from pathlib import Path
from unicodedata import normalize


def clean(text: str) -> str:
    """Return a text that UTF-8 can hold.

    A byte of a file name that is not UTF-8 is read as Latin-1; half of a surrogate pair becomes U+FFFD.
    """
    return text if encodable(text) else re.sub("[\ud800-\udfff]", whole, text)


def whole(half: re.Match[str]) -> str:
    byte = ord(half[0]) - 0xDC00  # Python reads the byte 0xE9 of a name as U+DCE9
    return chr(byte) if 0x80 <= byte <= 0xFF else "\ufffd"


def encodable(text: str, errors: str = "strict") -> bool:
    """Return True if UTF-8 can hold a text."""
    try:
        text.encode(errors=errors)
    except UnicodeEncodeError:
        return False
    return True


def existing(path: Path) -> Path:
    """Return a path as it is written if it exists, else as the disk writes its accents (NFC or NFD)."""
    if str(path).isascii() or path.exists():
        return path
    found = Path(path.anchor)
    for part in path.relative_to(path.anchor).parts:
        forms = (part, normalize("NFC", part), normalize("NFD", part))
        found /= next((form for form in forms if (found / form).exists()), part)
    return found
