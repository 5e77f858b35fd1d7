"""Progress for people and for log collectors: live bars on a terminal, plain lines now and then, or
JSON.
"""

import datetime
import json
import os
import re
import sys
import time
import warnings
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
)

from pipeline.store.layout import STATUSES

if TYPE_CHECKING:
    from nst_ops.coarse_to_fine.iterates import Iterate

_LINE_SECONDS = 10.0  # between two lines of a log
_PAIR_LINE_SECONDS = 60.0  # the same for one picture, which may take hours
_LOG_FORMAT = "NST_LOG_FORMAT"  # the environment's word to other processes of a run

# Control characters, line ends, those that turn the direction of writing, and bytes that are no
# text: a file's name may hold them, and what is printed may not begin a line with them, colour it
# or hide it.
_UNPRINTABLE = re.compile(
    "[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ufeff\ud800-\udfff]"
)


def printable(text: object) -> str:
    """A text as one line of a terminal or log, with `\\n` or `\\x1b` for what would be none."""
    return _UNPRINTABLE.sub(lambda found: found[0].encode("unicode_escape").decode(), str(text))


def indented(text: object) -> str:
    """The same of an error of many lines, such as a trace: none but the first begins a line."""
    return "\n  ".join(printable(line.rstrip("\r")) for line in str(text).split("\n"))


class RunDisplay:
    """Progress of a run.

    Args:
      console: a terminal gets a live bar, anything else a line every ten seconds at most.
      rows: of the manifest.
      as_json: one JSON object a line instead, each with `time` and `event`.
    """

    def __init__(self, console: Console, rows: int, *, as_json: bool = False):
        self.console, self.rows, self.as_json = console, rows, as_json
        self.bar = _bar(console) if console.is_terminal and not as_json else None
        self.task = self.bar.add_task("planning", total=rows) if self.bar else None
        self.started = self.printed = time.monotonic()

    def __enter__(self) -> "RunDisplay":
        if self.bar:
            self.bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self.bar:
            self.bar.stop()

    def note(self, text: str, event: str = "note", **values: Any) -> None:
        """Something that happened once.

        Args:
          text: for people.
          event, values: for machines.
        """
        if self.as_json:
            self.console.print(json_line(event, values or {"text": text}))
        else:
            self.console.print(printable(text))

    def complain(self, text: str, event: str = "problem", **values: Any) -> None:
        """Something that went wrong, which is said even to who wants quiet."""
        line = json_line(event, values or {"text": text}) if self.as_json else printable(text)
        print(line, file=sys.stderr)

    def show(self, progress: dict[str, Any]) -> None:
        """How far it is, from `work.read_progress`."""
        # A part that is begun again, as clusters do, is counted again.
        done = min(self.rows, sum(progress[status] for status in STATUSES))
        now = printable("; ".join(progress["now"]))
        speed = self._speed(progress["ok"], self.rows - done)
        if self.bar and self.task is not None:
            failed = f", {progress['failed']} failed" if progress["failed"] else ""
            text = f"{now or 'working'}{failed}{_words(speed)}"
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
            self.console.print(f"{done}/{self.rows}: {counts}{_words(speed)}{tail}")

    def _speed(self, made: int, left: int) -> dict[str, float]:
        """Of this run so far; nothing while no picture is made."""
        if not made:
            return {}
        seconds = (time.monotonic() - self.started) / made
        return {
            "pictures_per_hour": round(3600.0 / seconds, 1),
            "seconds_left": round(left * seconds),
        }


def json_line(event: str, values: dict[str, Any]) -> str:
    """An event as an object on one line; JSON escapes all that is not ASCII."""
    moment = datetime.datetime.now(datetime.UTC).isoformat(timespec="milliseconds")
    line = json.dumps({"time": moment, "event": event, **values})
    return line.replace("\x7f", "\\u007f")  # which is ASCII, and deletes all the same


def log_as_json() -> None:
    """From now on, in this process and those that it starts."""
    os.environ[_LOG_FORMAT] = "json"


def tell_warnings() -> None:
    """Prints Python's own warnings as all else that is printed, rather than with a line of code."""

    def show(message, category, filename, lineno, file=None, line=None):
        text = str(message) if category is UserWarning else f"{category.__name__}: {message}"
        if os.environ.get(_LOG_FORMAT) == "json":
            print(json_line("warning", {"text": text}), file=sys.stderr)
        else:
            print(f"warning: {printable(text)}", file=sys.stderr)

    warnings.showwarning = show


def count_words(counts: Mapping[str, Any]) -> str:
    """How many rows have each status, for people."""
    return ", ".join(f"{counts[status]} {status}" for status in STATUSES)


def _words(speed: dict[str, float]) -> str:
    if not speed:
        return ""
    left = datetime.timedelta(seconds=speed["seconds_left"])
    return f"; {speed['pictures_per_hour']:.0f} an hour, {left} left"


class PairDisplay:
    """Progress of one pair: a bar on a terminal, else a line per scale, and a line a minute.

    Args:
      work: of the whole picture, in pixels x steps.
    """

    def __init__(self, console: Console, work: int):
        self.console, self.work = console, work
        self.bar = _bar(console) if console.is_terminal else None
        self.tasks: dict[int, Any] = {}
        self.done = 0  # of the work
        self.started = self.printed = time.monotonic()

    def __enter__(self) -> "PairDisplay":
        if self.bar:
            self.bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self.bar:
            self.bar.stop()

    def show(self, iterate: "Iterate") -> None:
        """One step."""
        height, width = iterate.size
        self.done += height * width
        loss = iterate.best["total"][0]
        text = f"scale {iterate.scale + 1}/{iterate.scales} ({width}x{height}): loss {loss:.4g}"
        now = time.monotonic()
        left = datetime.timedelta(
            seconds=round((now - self.started) * max(0, self.work - self.done) / self.done)
        )
        if self.bar:
            if iterate.scale not in self.tasks:
                self.tasks[iterate.scale] = self.bar.add_task(text, total=iterate.steps)
            task = self.tasks[iterate.scale]
            self.bar.update(task, completed=iterate.step, description=f"{text}, {left} left")
        elif iterate.finished:
            self.console.print(
                f"{text}, {iterate.step} steps ({iterate.stopped[0]}), {iterate.seconds:.1f} s"
            )
        elif now - self.printed >= _PAIR_LINE_SECONDS:
            self.printed = now
            self.console.print(f"{text}, step {iterate.step}/{iterate.steps}, about {left} left")


def _bar(console: Console) -> Progress:
    return Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        console=console,
    )
