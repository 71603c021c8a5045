"""Folder of a page's pictures, and the requests that are under way."""

import hashlib
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import wraps
from pathlib import Path
from typing import Any

from genstack.errors import UserError
from genstack.model import Model
from genstack.report.page import sentence as as_sentence
from genstack.web.job import Report
from genstack.web.samples import prepare

KEPT = 24 * 3600  # seconds that pictures are kept


class Stopped(Exception):
    """The user, or the end of the server, stopped a request."""


@dataclass
class Workspace:
    """Folder of a page's pictures, and the requests that are under way.

    Args:
        folder: folder of all files; removed with the server.
    """

    folder: Path
    closing: threading.Event = field(default_factory=threading.Event)
    _stopped: set[str] = field(default_factory=set)

    def stop(self, user: str) -> None:
        """Stop the request of a user."""
        self._stopped.add(user)

    @contextmanager
    def request(self, user: str, show: Callable[[float], Any]) -> Iterator[Report]:
        """Yield a function that shows the progress of a request, and raises `Stopped` once it is stopped."""
        self._stopped.discard(user)
        self._remove_old()

        def report(progress: float) -> None:
            if self.closing.is_set() or user in self._stopped:
                raise Stopped
            show(progress)

        with suppress(Stopped):
            yield report

    def _remove_old(self) -> None:
        """Remove pictures of other days."""
        for path in self.folder.glob("*-*"):
            if path.stat().st_mtime < time.time() - KEPT:
                shutil.rmtree(path) if path.is_dir() else path.unlink()

    def picture(self, model: Model, upload: str) -> Path:
        """Write an uploaded picture as the model sees it, and return the file."""
        content = Path(upload).read_bytes()
        sizes = model.preprocessing
        digest = hashlib.sha256(content + repr(sizes).encode()).hexdigest()[:16]
        target = self.folder / "pictures" / digest / "picture.png"
        if not target.exists():
            prepare(model, Path(upload), target)
        return target


def sentence(error: Exception) -> str:
    """An error as one sentence, without the command that the page runs."""
    words = " ".join(str(error).split())
    if words.startswith("genstack "):
        words = words.partition(": ")[2] or words
    return as_sentence(words)


def errors_as_messages(function: Callable) -> Callable:
    """Show errors of a generator that a user can correct as one sentence on the page."""
    import gradio

    @wraps(function)
    def run(*values: Any) -> Iterator[Any]:
        try:
            yield from function(*values)
        except (UserError, OSError) as error:
            raise gradio.Error(sentence(error), print_exception=False, duration=None, title="") from None

    return run
