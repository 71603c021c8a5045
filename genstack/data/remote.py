"""Files on web servers: downloads that resume, and reads of byte ranges (HTTP, RFC 9110)."""

import os
import re
import shutil
import sys
import time
import urllib.error
import urllib.request
from dataclasses import dataclass
from hashlib import blake2b
from http.client import HTTPException, HTTPResponse
from pathlib import Path

from genstack.atomic import exclusive, flush_folder
from genstack.errors import UserError

TIMEOUT = 60  # seconds without a byte
ATTEMPTS = 3
CHUNK = 2**20
SPARE = 2**30  # bytes of the disk that stay free
ERRORS = (OSError, HTTPException)  # urllib's errors are OSErrors


def request(url: str, headers: dict[str, str]) -> HTTPResponse:
    headers = {"User-Agent": "genstack", "Accept-Encoding": "identity", **headers}
    return urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=TIMEOUT)


def reason(error: Exception) -> str:
    """The reason of an error of urllib, in one line."""
    return " ".join(str(getattr(error, "reason", error)).split()) or type(error).__name__


def version_of(response: HTTPResponse) -> str:
    """Version of a file: its ETag, or the time of its last change; "" if neither identifies its bytes."""
    version = response.headers.get("ETag") or response.headers.get("Last-Modified") or ""
    return "" if version.startswith("W/") else version


@dataclass(frozen=True)
class Remote:
    """One version of a file on a server, `length` bytes long."""

    url: str
    version: str
    length: int

    def __str__(self) -> str:
        return self.url

    @classmethod
    def open(cls, url: str) -> "Remote":
        """Ask a server for the current version of a file, and check that ranges of it can be read."""
        try:
            with request(url, {"Range": "bytes=0-0"}) as response:
                length = re.fullmatch(r"bytes 0-0/(\d+)", response.headers.get("Content-Range", ""))
                version, status = version_of(response), response.status
        except ERRORS as error:
            raise UserError(f"{url} cannot be read: {reason(error)}") from error
        if status != 206 or length is None or not version:
            raise UserError(
                f"{url}: the server supports no ranges, or no versions of files; unset GENSTACK_DATA_GB to "
                f"download whole files"
            )
        return cls(url, version, int(length[1]))

    def read(self, start: int, size: int) -> bytes:
        """Read a range of bytes of this version, with retries."""
        for attempt in range(ATTEMPTS):
            try:
                return self._read(start, size)
            except ERRORS as error:
                message = reason(error)
                time.sleep(0.1 * 4**attempt)
        raise UserError(f"{self.url} cannot be read: {message}")

    def _read(self, start: int, size: int) -> bytes:
        if size == 0:
            return b""
        span = f"{start}-{start + size - 1}"
        with request(self.url, {"Range": f"bytes={span}", "If-Range": self.version}) as response:
            answer = response.headers.get("Content-Range", "")
            if response.status != 206 or answer != f"bytes {span}/{self.length}":
                raise UserError(f"{self.url} has changed since it was indexed; start again")
            data = response.read(size)
        if len(data) < size:
            raise OSError(f"the connection ended after {len(data)} of {size} bytes")
        return data


def fetch(url: str, folder: Path) -> Path:
    """Download a file into a folder, unless it is there already.

    One of several processes downloads, the others wait. An interrupted download is resumed by the next call
    if the server still has the same version.
    """
    path = local_path(url, folder)
    if path.exists():
        return path
    partial = path.with_name(f".{path.name}.part")
    with exclusive(path.with_name(f".{path.name}.lock")):
        if not path.exists():
            try:
                download(url, partial)
            except ERRORS as error:
                raise UserError(
                    f"{url} could not be fetched: {reason(error)}; repeat the command to resume the download"
                ) from error
            partial.replace(path)
            flush_folder(folder)
    return path


def local_path(url: str, folder: Path) -> Path:
    """Local path of a downloaded file."""
    ending = re.sub(r"[^\w.-]", "_", url.split("?", maxsplit=1)[0].rsplit("/", 1)[-1])[-60:]
    return folder / f"{blake2b(url.encode(), digest_size=8).hexdigest()}-{ending}"


def download(url: str, partial: Path) -> None:
    """Download a file to `partial`, after the bytes that it already holds."""
    tag = partial.with_suffix(".tag")  # version of the file that `partial` belongs to
    start = partial.stat().st_size if partial.exists() and tag.exists() else 0
    try:
        response = request(url, {"Range": f"bytes={start}-", "If-Range": tag.read_text()} if start else {})
    except urllib.error.HTTPError as error:
        if error.code != 416:  # `partial` is at least as long as the file
            raise
        partial.unlink()
        return download(url, partial)
    with response:
        resumed = response.headers.get("Content-Range", "").startswith(f"bytes {start}-")
        if response.status == 206 and not resumed:
            raise OSError("the server sent another range than requested")
        start = start if response.status == 206 else 0
        stated = response.headers.get("Content-Length") or ""
        if not stated.isdigit():
            raise OSError("the server does not send the length of the file")
        length = start + int(stated)
        check_space(length - start, partial, url)
        if version := version_of(response):
            tag.write_text(version)
        else:
            tag.unlink(missing_ok=True)  # a resumed download might mix two versions
        with partial.open("ab" if start else "wb") as file:
            while start < length:
                data = response.read(min(CHUNK, length - start))
                if not data:
                    raise OSError(f"the connection ended after {start} of {length} bytes")
                file.write(data)
                start += len(data)
            file.flush()
            os.fsync(file.fileno())
    tag.unlink(missing_ok=True)


def check_space(needed: int, partial: Path, url: str) -> None:
    free = shutil.disk_usage(partial.parent).free
    if needed > free - SPARE:
        raise UserError(
            f"{url} has {needed / 1e9:.1f} GB to fetch, but {partial.parent} has {free / 1e9:.1f} GB free; "
            f"set GENSTACK_DATA to a larger disk, or limit the size of downloads by GENSTACK_DATA_GB"
        )
    print(f"fetching {url} ({needed / 1e6:.1f} MB)", file=sys.stderr)
