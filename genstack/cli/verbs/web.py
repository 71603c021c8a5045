"""Sample, edit, compare runs and follow a training in the browser.

genstack web runs/flowers-prior
"""

from genstack.cli.parsing.paths import Trained
from genstack.errors import UserError
from genstack.web.runs import open_runs
from genstack.web.server import check_gradio, serve


def web(runs: list[Trained], host: str = "127.0.0.1", port: int = 0, device: str = "auto") -> None:
    """Serve a page for the browser: sample and edit pictures, compare runs, follow a training.

    It needs no network. Close it with Ctrl-C.

    Args:
        runs: runs, published files, or models of `genstack config models`; several to compare them. The
            training of a run may still go on.
        host: address to listen on; 127.0.0.1 for this machine only, 0.0.0.0 for everybody who can reach it.
        port: port to listen on; 0 for the first free one from 7860 on.
        device: auto, cpu, cuda or mps.
    """
    if not runs:
        raise UserError("RUNS is missing; expected a run: genstack web runs/flowers-prior")
    if not 0 <= port < 2**16:
        raise UserError(f"port must be from 0 to {2**16 - 1}, got {port}")
    check_gradio()
    serve(open_runs(runs, device), host, port)
