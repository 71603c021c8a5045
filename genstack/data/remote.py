"""A file that stays on its server: parts of it are asked for when they are needed (HTTP ranges, RFC 9110)."""

import re
import time
import urllib.error
import urllib.request
from dataclasses import dataclass
from http.client import HTTPException

from genstack.errors import UserError

SECONDS = 60  # without a byte
ATTEMPTS = 3


@dataclass(frozen=True)
class Remote:
    """One version of a file on a server.

    Args:
        url: where it is.
        version: what the server calls this version: an ETag, or when it was changed last.
        length: bytes.
    """

    url: str
    version: str
    length: int

    def __str__(self) -> str:
        return self.url

    def read(self, start: int, size: int) -> bytes:
        """Read a range of bytes.

        Raises:
            UserError: the server does not answer, or has another version by now.
        """
        for attempt in range(ATTEMPTS):
            try:
                return part(self, start, size)
            except (OSError, HTTPException) as error:  # urllib's errors are OSErrors
                reason = " ".join(str(getattr(error, "reason", error)).split()) or type(error).__name__
                time.sleep(0.1 * 4**attempt)
        raise UserError(f"{self.url} cannot be read: {reason}")


def part(remote: Remote, start: int, size: int) -> bytes:
    """Read a range of bytes of exactly this version."""
    if size == 0:
        return b""
    asked = {"Range": f"bytes={start}-{start + size - 1}", "If-Range": remote.version}
    with urllib.request.urlopen(request(remote.url, asked), timeout=SECONDS) as response:
        given = response.headers.get("Content-Range", "")
        if response.status != 206 or given != f"bytes {start}-{start + size - 1}/{remote.length}":
            raise UserError(f"{remote.url} has changed since it was indexed; start again")
        data = response.read(size)
    if len(data) < size:
        raise OSError(f"the connection ended after {len(data)} of {size} bytes")
    return data


def probe(url: str) -> Remote:
    """The version of a file that the server has now.

    Raises:
        UserError: there is none, or it cannot be had in parts.
    """
    try:
        with urllib.request.urlopen(request(url, {"Range": "bytes=0-0"}), timeout=SECONDS) as response:
            length = re.fullmatch(r"bytes 0-0/(\d+)", response.headers.get("Content-Range", ""))
            version = response.headers.get("ETag") or response.headers.get("Last-Modified") or ""
            status = response.status
    except (OSError, HTTPException) as error:
        reason = " ".join(str(getattr(error, "reason", error)).split()) or type(error).__name__
        raise UserError(f"{url} cannot be read: {reason}") from error
    if status != 206 or length is None or not version or version.startswith("W/"):
        raise UserError(
            f"{url}: its server gives no parts of a file, or does not tell versions apart; leave out "
            f"GENSTACK_DATA_GB, so that it is fetched whole"
        )
    return Remote(url, version, int(length[1]))


def request(url: str, headers: dict[str, str]) -> urllib.request.Request:
    return urllib.request.Request(
        url, headers={"User-Agent": "genstack", "Accept-Encoding": "identity", **headers}
    )
