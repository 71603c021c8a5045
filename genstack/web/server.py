"""Serve the page until a signal ends it; nothing is loaded from elsewhere, and no file stays."""

import os
import signal
import socket
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from genstack.errors import UserError, extra
from genstack.web.runs import OpenRun
from genstack.web.workspace import Workspace

PREFIX = "genstack-web-"  # of the temporary folder
SIGNALS = (signal.SIGINT, signal.SIGTERM)
FIRST_PORT = 7860
LARGEST = 2**26  # bytes of an upload
WAITING = 64  # requests in the queue
#: Environment variables that Gradio reads when it is imported.
OFFLINE = {
    "GRADIO_ANALYTICS_ENABLED": "False",
    "GRADIO_RUN_HISTORY": "False",
    "HF_HUB_OFFLINE": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
}


def check_gradio() -> None:
    """Import Gradio, without its telemetry.

    Raises:
        UserError: it is not installed.
    """
    os.environ |= OFFLINE
    with extra("web", "the page needs gradio, which is not installed"):
        import gradio  # noqa: F401


def serve(runs: Sequence[OpenRun], host: str, port: int) -> None:
    """Serve the page until SIGINT or SIGTERM, with its files in a temporary folder."""
    with signal_event() as ended, TemporaryDirectory(prefix=PREFIX, ignore_cleanup_errors=True) as name:
        space = Workspace(Path(name))
        os.environ["GRADIO_TEMP_DIR"] = str(space.folder / "cache")
        blocks, address = launch(runs, space, host, port)
        print(f"{address} shows {', '.join(run.name for run in runs)}; Ctrl-C closes it", flush=True)
        while not ended.wait(1.0):  # Windows delivers no signal to a wait without an end
            pass
        space.closing.set()
        blocks.close(verbose=False)


def check_address(host: str) -> None:
    """Raise a UserError if this machine does not have an address; the server would print a page of errors."""
    try:
        for family, kind, protocol, _, address in socket.getaddrinfo(host, 0, type=socket.SOCK_STREAM):
            with socket.socket(family, kind, protocol) as found:
                found.bind(address)
    except OSError as error:
        raise UserError(f"cannot listen on {host} ({error.strerror}); choose another --host") from error


@contextmanager
def signal_event() -> Iterator[threading.Event]:
    """Yield an event that SIGINT or SIGTERM sets, instead of ending the process."""
    ended = threading.Event()
    before = {number: signal.signal(number, lambda *_: ended.set()) for number in SIGNALS}
    try:
        yield ended
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def launch(runs: Sequence[OpenRun], space: Workspace, host: str, port: int) -> tuple[Any, str]:
    """Start the server; return the page and its address.

    Raises:
        UserError: the port or the address is not available.
    """
    import gradio as gr

    from genstack.web.page import STYLE, page

    check_address(host)
    blocks = page(runs, space).queue(max_size=WAITING)
    theme = gr.themes.Default(
        primary_hue="indigo", font=["system-ui", "sans-serif"], font_mono=["ui-monospace", "monospace"]
    )
    try:
        _, address, _ = blocks.launch(
            server_name=host,
            server_port=port or None,
            prevent_thread_lock=True,
            quiet=True,
            share=False,
            ssr_mode=False,
            mcp_server=False,
            enable_monitoring=False,
            run_history=False,
            footer_links=[],
            _frontend=False,  # else Gradio gives up if its page takes 3 seconds, as on a busy machine
            max_file_size=LARGEST,
            theme=theme,
            css=STYLE,
        )
    except OSError as error:
        raise UserError(
            f"cannot listen on {host}, port {port or FIRST_PORT}; choose another --port or --host"
        ) from error
    return blocks, address
