"""A file from a web server, fetched once: resumed where it broke off, renamed into its place when whole."""

import os
import re
import shutil
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from hashlib import blake2b
from http.client import HTTPException, HTTPResponse
from pathlib import Path

from genstack.atomic import flush_folder
from genstack.errors import UserError

CHUNK = 2**20
SPARE = 2**30  # bytes of the disk that stay free
SECONDS = 60  # without a byte


def fetch(url: str, folder: Path) -> Path:
    """The file behind a URL, in `folder`; nothing is asked of the server once it is there.

    Of several processes, one fetches and the others wait. What has come so far stays if this is interrupted,
    and the next call goes on from there if the server still has the same file.

    Raises:
        UserError: it cannot be had, or does not fit onto the disk.
    """
    place = local_path(url, folder)
    if place.exists():
        return place
    folder.mkdir(parents=True, exist_ok=True)
    partial = place.with_name(f".{place.name}.part")
    with exclusive(place.with_name(f".{place.name}.lock")):
        if not place.exists():
            try:
                download(url, partial)
            except (OSError, HTTPException) as error:  # urllib's errors are OSErrors
                reason = " ".join(str(getattr(error, "reason", error)).split()) or type(error).__name__
                raise UserError(
                    f"{url} could not be fetched: {reason}; run the same again, and it goes on from there"
                ) from error
            partial.replace(place)
            flush_folder(folder)
    return place


def local_path(url: str, folder: Path) -> Path:
    """Local path of the file behind a URL."""
    ending = re.sub(r"[^\w.-]", "_", url.split("?", maxsplit=1)[0].rsplit("/", 1)[-1])[-60:]
    return folder / f"{blake2b(url.encode(), digest_size=8).hexdigest()}-{ending}"


def download(url: str, partial: Path) -> None:
    """Download a file, after the part that `partial` holds."""
    tag = partial.with_suffix(".tag")  # of the version of the file that the part is from
    had = partial.stat().st_size if partial.exists() and tag.exists() else 0
    headers = {"User-Agent": "genstack", "Accept-Encoding": "identity"}
    if had:
        headers |= {"Range": f"bytes={had}-", "If-Range": tag.read_text()}
    try:
        response = urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=SECONDS)
    except urllib.error.HTTPError as error:
        if error.code != 416:  # the part is as long as the file, or longer
            raise
        partial.unlink()
        return download(url, partial)
    with response:
        goes_on = response.status == 206 and response.headers.get("Content-Range", "").startswith(
            f"bytes {had}-"
        )
        if response.status == 206 and not goes_on:
            raise OSError("the server sent another part than was asked for")
        had = had if goes_on else 0
        length = had + content_length(response)
        check_space(length - had, partial, url)
        version = response.headers.get("ETag") or response.headers.get("Last-Modified") or ""
        if not version.startswith("W/") and version:
            tag.write_text(version)
        else:
            tag.unlink(missing_ok=True)  # nothing tells whether the next part would be of the same file
        with partial.open("ab" if had else "wb") as file:
            while had < length:
                data = response.read(min(CHUNK, length - had))
                if not data:
                    raise OSError(f"the connection ended after {had} of {length} bytes")
                file.write(data)
                had += len(data)
            file.flush()
            os.fsync(file.fileno())
    tag.unlink(missing_ok=True)


def content_length(response: HTTPResponse) -> int:
    stated = response.headers.get("Content-Length") or ""
    if not stated.isdigit():
        raise OSError("the server does not say how long it is")
    return int(stated)


def check_space(needed: int, partial: Path, url: str) -> None:
    free = shutil.disk_usage(partial.parent).free
    if needed > free - SPARE:
        raise UserError(
            f"{url} has {needed / 1e9:.1f} GB to fetch, and {partial.parent} has {free / 1e9:.1f} GB free; "
            f"name a larger disk by GENSTACK_DATA, or limit what shards may take by GENSTACK_DATA_GB"
        )
    print(f"fetching {url} ({needed / 1e6:.1f} MB)", file=sys.stderr)


@contextmanager
def exclusive(lock: Path) -> Iterator[None]:
    """Only one process at a time, where the system has locks; a process that dies lets go."""
    with lock.open("w") as file:
        if os.name == "posix":
            import fcntl

            fcntl.flock(file, fcntl.LOCK_EX)
        yield
    # the file stays: removing it would let two processes lock two files of the same name
