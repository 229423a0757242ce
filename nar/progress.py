"""How far long work is: bars on a terminal, elsewhere a line now and then."""

import dataclasses
import sys
import time
from typing import Any, Self


class Progress:
    """Shows the stages of some work on standard error.

    Args:
        every: seconds between two lines, where there is no terminal; short work says nothing.
        hidden: show nothing but what is said.
    """

    def __init__(self, *, every: float = 30.0, hidden: bool = False):
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
        from rich.progress import Progress as Bars

        console = Console(stderr=True)
        self._every, self._lines = every, not (console.is_terminal or hidden)
        self._bars = Bars(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[text]}"),
            TimeRemainingColumn(),
            TextColumn("left"),
            console=console,
            disable=hidden or not console.is_terminal,
            refresh_per_second=2,
            speed_estimate_period=300,
        )
        self._stages: dict[str, _Stage] = {}

    def __enter__(self) -> Self:
        self._bars.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bars.stop()

    def __call__(self, stage: str, done: int, total: int, text: str = "") -> None:
        """Says how far a stage is.

        Args:
            stage: its name; a new one is a new bar.
            done: so much of it is done, now or since an earlier run.
            total: so much there is.
            text: what else there is to say.
        """
        now = time.monotonic()
        if stage not in self._stages:
            task = self._bars.add_task(stage, total=total, completed=done, text=text)
            self._stages[stage] = _Stage(task, now, done, now + self._every)
        found = self._stages[stage]
        self._bars.update(found.task, completed=done, text=text)
        finished = done == total and found.said
        if self._lines and (finished or now >= found.due):
            found.due, found.said = now + self._every, True
            parts = [f"{stage} {done}/{total}", text, found.left(now, done, total)]
            self.say(", ".join(filter(None, parts)))

    def say(self, text: str) -> None:
        """Prints a line, above the bars."""
        if self._bars.disable:
            print(text, file=sys.stderr, flush=True)
        else:
            self._bars.console.print(text)


@dataclasses.dataclass
class _Stage:
    task: Any
    start: float
    first: int
    due: float
    said: bool = False

    def left(self, now: float, done: int, total: int) -> str:
        """How long it will take, by what it took so far."""
        if done in (self.first, total):
            return ""
        seconds = (now - self.start) / (done - self.first) * (total - done)
        return f"{seconds / 60:.1f} minutes left"
