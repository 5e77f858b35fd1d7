"""Tells the launcher how far a run's processes are, by small files in the run's `work` folder."""

import contextlib
import json
import threading
import time
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from pipeline.jobs.row import STATUSES, Row
from pipeline.store import files
from pipeline.store.journal import PROCESS, RANKS, keep_rows, work_files
from pipeline.store.layout import work_folder


class Progress:
    """Reports a worker's progress to the launcher.

    No local Beam runner shows metrics while it runs, so this goes through files.
    """

    def __init__(self, folder: str, run_id: str):
        self._folder, self._run_id = folder, run_id
        base = f"{run_id}-{PROCESS}-{id(self)}"
        self._now: Path | None = work_folder(folder) / f"{base}.json"
        self._lines = work_folder(folder) / f"{base}.lines"
        self._making = work_folder(folder) / f"{base}.making"
        self._suspects: set[str] = set()
        self._written = 0.0
        self._lock = threading.Lock()

    def record(self, rows: Sequence[Row]) -> None:
        """Keeps finished rows in the journal, and counts them."""
        keep_rows(self._folder, self._run_id, rows)
        self.count(rows)
        self.show("", least=0.0)

    def count(self, rows: Iterable[Row]) -> None:
        """Counts rows that are kept elsewhere or not worth keeping."""
        text = "".join(f"{row['manifest_line']} {row['status']}\n" for row in rows)
        # Progress is a courtesy: a full disk is reported where pictures are written.
        with self._lock, contextlib.suppress(OSError):
            self._lines.parent.mkdir(parents=True, exist_ok=True)
            with self._lines.open("a") as file:
                file.write(text)

    def begin(self, outputs: Collection[str]) -> None:
        """Notes pictures about to be made, which are suspects if this process dies before `end`."""
        with self._lock:
            self._suspects |= set(outputs)
            self._write_suspects()

    def end(self, outputs: Collection[str]) -> None:
        """Clears pictures of suspicion: made or failed, this process has survived them."""
        with self._lock:
            if not self._suspects.isdisjoint(outputs):  # cached pictures never are
                self._suspects -= set(outputs)
                self._write_suspects()

    def _write_suspects(self) -> None:
        with contextlib.suppress(OSError):  # a courtesy, too
            with files.replacing(str(self._making), sync=False) as file:
                file.write(json.dumps(sorted(self._suspects)).encode())

    def show(self, text: str, pace: float = 0.0, *, least: float = 0.5) -> None:
        """Shows what this worker is doing, unless it did so less than `least` seconds ago.

        Args:
          text: what it is doing; "" if nothing.
          pace: how many seconds one step of it takes.
        """
        with self._lock:
            if self._now is None or time.monotonic() - self._written < least:
                return
            self._written = time.monotonic()
            try:
                with files.replacing(str(self._now), sync=False) as file:
                    file.write(json.dumps({"now": text, "pace": pace}).encode())
            except OSError:
                self._now = None


class Tally:
    """Adds up, for the launcher, what the workers of a run have counted and are doing.

    A line of the manifest counts once, however many workers had it: a runner gives the work of a
    worker that it lost to another one.
    """

    def __init__(self, folder: str, run_id: str):
        self._folder, self._run_id = folder, run_id
        self._read: dict[Path, int] = {}  # bytes of each file that were read
        self._ranks: dict[int, int] = {}  # of each line of the manifest
        self._counts = dict.fromkeys(RANKS, 0)

    def read(self) -> dict[str, Any]:
        """Returns the counts by status so far, and under `now` what each worker is doing."""
        for path in work_files(self._folder, f"{self._run_id}-*.lines"):
            with contextlib.suppress(OSError), path.open("rb") as file:
                file.seek(self._read.get(path, 0))
                data = file.read()
                whole = data.rpartition(b"\n")[0]  # the last line may be half written
                self._read[path] = self._read.get(path, 0) + len(whole) + bool(whole)
                for text in whole.splitlines():
                    self._add(text.decode())
        now = [each["now"] for each in _read_shown(self._folder, self._run_id) if each["now"]]
        return {status: self._counts[status] for status in STATUSES} | {"now": now}

    def _add(self, text: str) -> None:
        line, _, status = text.partition(" ")
        if not line.isdigit() or status not in RANKS:  # its writer died while it wrote
            return
        rank, before = RANKS.index(status), self._ranks.get(int(line))
        if before is None or rank > before:
            self._ranks[int(line)] = rank
            self._counts[status] += 1
            if before is not None:
                self._counts[RANKS[before]] -= 1


def longest_step(folder: str, run_id: str) -> float:
    """Returns how many seconds the slowest worker's current step takes; 0 if none shows any."""
    return max((each.get("pace", 0.0) for each in _read_shown(folder, run_id)), default=0.0)


def forget_doings(folder: str, run_id: str) -> None:
    """Removes what processes of a run that are gone were doing."""
    for path in work_files(folder, f"{run_id}-*.json"):
        path.unlink(missing_ok=True)


def _read_shown(folder: str, run_id: str) -> Iterator[Mapping[str, Any]]:
    for path in work_files(folder, f"{run_id}-*.json"):
        with contextlib.suppress(OSError, ValueError):
            yield json.loads(path.read_text())


def clear(folder: str, run_id: str) -> None:
    """Removes all files of a finished run from the `work` folder."""
    for path in work_files(folder, f"{run_id}*"):
        path.unlink(missing_ok=True)
