"""Progress bar of sampling and encoding."""

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TextColumn,
    TimeRemainingColumn,
)
from rich.text import Text


class Speed(ProgressColumn):
    """Images per second."""

    def render(self, task: Task) -> Text:
        speed = task.finished_speed or task.speed
        return Text(f"{speed:.3g} images/s" if speed else "")


def bar() -> Progress:
    """Return a progress bar for a terminal; it stays hidden elsewhere."""
    console = Console(stderr=True)
    console.quiet = not console.is_terminal  # rich below 14.3 ends a hidden bar with an empty line
    columns = (
        TextColumn("{task.description}"),
        BarColumn(20),
        MofNCompleteColumn(),
        Speed(),
        TimeRemainingColumn(),
    )
    return Progress(*columns, console=console, disable=console.quiet)
