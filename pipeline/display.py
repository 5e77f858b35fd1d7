"""Progress for people: live bars on a terminal, else plain lines now and then."""

import time
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from pipeline.outputs import STATUSES

if TYPE_CHECKING:
    from nst_ops.iterates import Iterate


class RunDisplay:
    """Progress of a run: a live bar on a terminal, else a line every ten seconds at most."""

    def __init__(self, console: Console, rows: int):
        self.console, self.rows = console, rows
        self.bar = _bar(console) if console.is_terminal else None
        self.task = self.bar.add_task("planning", total=rows) if self.bar else None
        self.printed = time.monotonic()

    def __enter__(self) -> "RunDisplay":
        if self.bar:
            self.bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self.bar:
            self.bar.stop()

    def show(self, progress: dict[str, Any]) -> None:
        done = sum(progress[status] for status in STATUSES)
        now = "; ".join(progress["now"])
        if self.bar and self.task is not None:
            self.bar.update(self.task, completed=done, description=now or "working")
        elif time.monotonic() - self.printed >= 10.0:
            self.printed = time.monotonic()
            counts = ", ".join(f"{progress[status]} {status}" for status in STATUSES)
            self.console.print(f"{done}/{self.rows}: {counts}{'; ' + now if now else ''}")


class PairDisplay:
    """Progress of one pair: a bar on a terminal, else a line per scale."""

    def __init__(self, console: Console):
        self.console = console
        self.bar = _bar(console) if console.is_terminal else None
        self.tasks: dict[int, Any] = {}

    def __enter__(self) -> "PairDisplay":
        if self.bar:
            self.bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self.bar:
            self.bar.stop()

    def show(self, iterate: "Iterate") -> None:
        height, width = iterate.size
        loss = iterate.best["total"][0]
        text = f"scale {iterate.scale + 1}/{iterate.scales} ({width}x{height}): loss {loss:.4g}"
        if self.bar:
            if iterate.scale not in self.tasks:
                self.tasks[iterate.scale] = self.bar.add_task(text, total=iterate.steps)
            self.bar.update(self.tasks[iterate.scale], completed=iterate.step, description=text)
        elif iterate.finished:
            self.console.print(
                f"{text}, {iterate.step} steps ({iterate.stopped[0]}), {iterate.seconds:.1f} s"
            )


def _bar(console: Console) -> Progress:
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        console=console,
    )
