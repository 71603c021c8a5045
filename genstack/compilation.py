"""Choice between compiled networks and networks as they are, for work that repeats: batches or steps."""

import sys
from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass
from statistics import median
from typing import Literal

Mode = bool | Literal["auto"]


@dataclass(frozen=True)
class Work:
    """Kind of work that repeats.

    Args:
        name: its name in messages.
        plural: the same for several.
        flag: command-line option that chooses the mode.
        worthwhile: seconds of remaining work from which `auto` compiles.
        warmup: repetitions that are not timed before the networks are compiled.
        compiling: repetitions that are not timed after that, because they wait for the compiler.
        timed: repetitions whose median is compared.
    """

    name: str
    plural: str
    flag: str
    worthwhile: float
    warmup: int = 0
    compiling: int = 1
    timed: int = 1


class CompilationChoice:
    """Compile networks for work that repeats: always, never, or with `auto` once that saves time.

    `auto` times a few repetitions. It compiles if the remaining ones would take minutes, and stops if
    compiled networks are slower.

    Args:
        work: kind of work.
        mode: True, False or auto.
        left: number of repetitions.
        compiled: makes the context in which networks are compiled.
        obstacle: returns the reason why this machine cannot compile; "" if it can.
        quiet: print nothing.
    """

    def __init__(
        self,
        work: Work,
        mode: Mode,
        left: int,
        compiled: Callable[[], AbstractContextManager[None]],
        obstacle: Callable[[], str] = str,
        quiet: bool = False,
    ):
        self.work, self.mode, self.left, self.compiled, self.obstacle = work, mode, left, compiled, obstacle
        self.quiet = quiet
        self.stack = ExitStack()
        self.active = self.used = False
        self.decided = mode != "auto" or left <= work.warmup + work.timed
        self.seconds: list[float] = []  # of the repetitions since networks were last compiled or not
        self.plain = 0.0  # seconds of a repetition without compiling

    def record(self, seconds: float) -> None:
        """Count one repetition, which took so many seconds, and decide how the next ones run."""
        self.left -= 1
        self.seconds.append(seconds)
        ignored = self.work.compiling if self.active else self.work.warmup
        if self.decided or self.left <= 0 or len(self.seconds) < ignored + self.work.timed:
            return
        typical = median(self.seconds[ignored:])
        if self.active:
            self._compare(typical)
        else:
            self._consider(typical)

    def start(self) -> None:
        """Compile the networks."""
        self.stack.enter_context(self.compiled())
        self.active, self.used, self.seconds = True, True, []

    def stop(self) -> None:
        """Continue with the networks as they are."""
        self.stack.close()
        self.active, self.seconds = False, []

    def print(self, text: str) -> None:
        """Print a line to stderr."""
        if not self.quiet:
            print(text, file=sys.stderr)

    def _consider(self, typical: float) -> None:
        """Compile if the remaining work takes long, given the seconds of a repetition."""
        self.plain, remaining = typical, self.left * typical
        if remaining < self.work.worthwhile:
            self.decided = True
            return
        work = f"{self.left:,} more {self.work.plural} would take {remaining / 60:.1f} minutes"
        if reason := self.obstacle():
            self.decided = True
            self.print(f"not compiled: {work}, but {reason}")
            return
        self.print(f"compiling: {work}; {self.work.flag} false leaves it out")
        self.start()

    def _compare(self, typical: float) -> None:
        """Stop if compiled networks are slower."""
        self.decided = True
        if typical > self.plain:
            share = typical / self.plain
            self.print(f"no longer compiled: a {self.work.name} took {share:.2f} of its time before")
            self.stop()
