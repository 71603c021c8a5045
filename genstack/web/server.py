"""Serve the page until a signal ends it; nothing is loaded from elsewhere, and no file stays."""

import os
import signal
import tempfile
import threading
from collections.abc import Sequence
from pathlib import Path

from genstack.errors import UserError, extra
from genstack.web.runs import OpenRun
from genstack.web.workspace import Workspace

FIRST_PORT, PORTS = 7860, 100
LARGEST = 2**26  # bytes of an upload
WAITING = 64  # requests in the queue
#: What Gradio reads from the environment when it is imported.
OFFLINE = {
    "GRADIO_ANALYTICS_ENABLED": "False",
    "GRADIO_RUN_HISTORY": "False",
    "HF_HUB_OFFLINE": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
}


def check_gradio(folder: Path) -> None:
    """Import Gradio, with its files in a folder and without telemetry.

    Raises:
        UserError: it is not installed.
    """
    os.environ |= OFFLINE | {"GRADIO_TEMP_DIR": str(folder / "cache")}
    with extra("web", "the page needs gradio, which is not installed"):
        import gradio  # noqa: F401


def serve(runs: Sequence[OpenRun], space: Workspace, host: str, port: int) -> None:
    """Serve the page until SIGINT or SIGTERM."""
    import gradio as gr

    from genstack.web.page import STYLE, page

    ended = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: ended.set())
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
            max_file_size=LARGEST,
            theme=theme,
            css=STYLE,
        )
    except OSError as error:
        free = port + 1 if port else FIRST_PORT + PORTS
        raise UserError(
            f"cannot listen on {host}, port {port or FIRST_PORT}; choose another: --port {free}"
        ) from error
    print(f"{address} shows {', '.join(run.name for run in runs)}; Ctrl-C closes it", flush=True)
    ended.wait()
    space.closing.set()
    blocks.close(verbose=False)


def workspace() -> tempfile.TemporaryDirectory:
    """A folder for the pictures of one page, which is removed with it."""
    return tempfile.TemporaryDirectory(prefix="genstack-web-", ignore_cleanup_errors=True)
