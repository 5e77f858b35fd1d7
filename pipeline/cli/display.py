"""Shows progress to people and to log collectors.

A terminal gets live bars, anything else plain lines now and then, or JSON.
"""

import datetime
import sys
import time
from collections.abc import Mapping
from typing import Any, Self

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    TaskProgressColumn,
    TextColumn,
    TimeElapsedColumn,
)

from nst_ops.engines.base import Step
from pipeline.jobs.row import STATUSES
from pipeline.machine.messages import json_line, printable

_LINE_SECONDS = 10.0  # between two lines of a log
_PAIR_LINE_SECONDS = 60.0  # the same for one picture, which may take hours


class _Display:
    """Shows progress on a console while it is open; `bar` and `task` are None without a bar."""

    def __init__(self, console: Console, bar: Progress | None, doing: str, total: float):
        self.console, self.bar = console, bar
        self.task = bar.add_task(doing, total=total) if bar else None
        self.started = self.printed = time.monotonic()

    def __enter__(self) -> Self:
        if self.bar:
            self.bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self.bar:
            self.bar.stop()


class RunDisplay(_Display):
    """Shows the progress of a run.

    Args:
      console: a terminal gets a live bar, anything else a line every ten seconds at most.
      rows: how many rows the manifest has.
      as_json: whether to print one JSON object per line instead, each with `time` and `event`.
    """

    def __init__(self, console: Console, rows: int, *, as_json: bool = False):
        self.rows, self.as_json = rows, as_json
        bar = None if as_json else _bar(console, MofNCompleteColumn())
        super().__init__(console, bar, "planning", rows)

    def note(self, text: str, event: str = "note", **values: Any) -> None:
        """Prints something that happened once.

        Args:
          text: what is printed for people.
          event, values: what is printed as JSON; without values, the text is.
        """
        if self.as_json:
            self.console.print(json_line(event, values or {"text": text}))
        else:
            self.console.print(printable(text))

    def complain(self, text: str, event: str = "problem", **values: Any) -> None:
        """Prints something that went wrong, to standard error, even if output is to be quiet."""
        line = json_line(event, values or {"text": text}) if self.as_json else printable(text)
        print(line, file=sys.stderr)

    def show(self, progress: dict[str, Any]) -> None:
        """Shows how far the run is.

        Args:
          progress: what `Tally.read` returns.
        """
        # Clusters may repeat a part, whose rows are then counted again.
        done = min(self.rows, sum(progress[status] for status in STATUSES))
        now = printable("; ".join(progress["now"]))
        speed = self._speed(progress["ok"], self.rows - done)
        if self.bar and self.task is not None:
            failed = f", {progress['failed']} failed" if progress["failed"] else ""
            text = f"{now or 'working'}{failed}{_speed_words(speed)}"
            self.bar.update(self.task, completed=done, description=text)
        elif time.monotonic() - self.printed >= _LINE_SECONDS:
            self.printed = time.monotonic()
            if self.as_json:
                counts = {status: progress[status] for status in STATUSES}
                values = {"rows": self.rows, **counts, **speed, "now": progress["now"]}
                self.console.print(json_line("progress", values))
                return
            counts = count_words(progress)
            tail = f"; {now}" if now else ""
            self.console.print(f"{done}/{self.rows}: {counts}{_speed_words(speed)}{tail}")

    def _speed(self, made: int, to_do: int) -> dict[str, float]:
        """Returns the run's speed and the seconds left; nothing until a picture is made."""
        if not made:
            return {}
        seconds = (time.monotonic() - self.started) / made
        return {
            "pictures_per_hour": round(3600.0 / seconds, 1),
            "seconds_left": round(to_do * seconds),
        }


def count_words(counts: Mapping[str, Any]) -> str:
    """Returns how many rows have each status, in words."""
    return ", ".join(f"{counts[status]} {status}" for status in STATUSES)


def _speed_words(speed: dict[str, float]) -> str:
    if not speed:
        return ""
    left = datetime.timedelta(seconds=speed["seconds_left"])
    return f"; {speed['pictures_per_hour']:.0f} an hour, {left} left"


class PairDisplay(_Display):
    """Shows the progress of one pair: a bar on a terminal, else a line per stage and per minute."""

    def __init__(self, console: Console):
        super().__init__(console, _bar(console, TaskProgressColumn()), "reading", 1.0)
        self._begun = 0.0

    def begin(self, share: float) -> None:
        """Notes how much was done before."""
        self._begun = share

    def show(self, step: Step) -> None:
        """Shows one step."""
        now = time.monotonic()
        to_do = (1.0 - step.share) / max(step.share - self._begun, 1e-6)
        left = datetime.timedelta(seconds=round((now - self.started) * to_do))
        text = f"{step.text}, about {left} left"
        if self.bar and self.task is not None:
            self.bar.update(self.task, completed=step.share, description=printable(text))
            if step.stage:
                self.bar.console.print(printable(step.stage))
        elif step.stage:
            self.console.print(printable(step.stage))
        elif now - self.printed >= _PAIR_LINE_SECONDS:
            self.printed = now
            self.console.print(printable(text))


def _bar(console: Console, count: ProgressColumn) -> Progress | None:
    """Returns a bar that counts in this way; None where no terminal could show it."""
    if not console.is_terminal:
        return None
    return Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        count,
        TimeElapsedColumn(),
        console=console,
    )
