"""How far a run's processes are: small files in its `work` folder, read by the launcher."""

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
    """A worker's side channel to the launcher: no local Beam runner shows metrics while it runs."""

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
        """Keeps and counts finished rows."""
        keep_rows(self._folder, self._run_id, rows)
        self.count(rows)
        self.show("", least=0.0)

    def count(self, rows: Iterable[Row]) -> None:
        """Counts rows that are kept elsewhere or not worth keeping."""
        text = "".join(f"{row['manifest_line']} {row['status']}\n" for row in rows)
        # Progress is a courtesy: a full disk shows where pictures are written.
        with self._lock, contextlib.suppress(OSError):
            self._lines.parent.mkdir(parents=True, exist_ok=True)
            with self._lines.open("a") as file:
                file.write(text)

    def begin(self, outputs: Collection[str]) -> None:
        """These pictures are about to be made; until `end`, they are suspected if we die."""
        with self._lock:
            self._suspects |= set(outputs)
            self._write_suspects()

    def end(self, outputs: Collection[str]) -> None:
        """They are made, or not, but we live."""
        with self._lock:
            if not self._suspects.isdisjoint(outputs):  # of what is cached, nothing is written
                self._suspects -= set(outputs)
                self._write_suspects()

    def _write_suspects(self) -> None:
        with contextlib.suppress(OSError):  # a courtesy, too
            with files.replacing(str(self._making), sync=False) as file:
                file.write(json.dumps(sorted(self._suspects)).encode())

    def show(self, text: str, pace: float = 0.0, *, least: float = 0.5) -> None:
        """What this worker is doing, and how many seconds one step of it takes; not if the last
        time is less than `least` seconds ago.
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
    """The launcher's side: what the workers of a run have counted and are doing.

    A line of the manifest counts once, however many workers had it: an engine begins anew what it
    lost a worker of.
    """

    def __init__(self, folder: str, run_id: str):
        self._folder, self._run_id = folder, run_id
        self._read: dict[Path, int] = {}  # bytes of each file so far
        self._ranks: dict[int, int] = {}  # of each line of the manifest
        self._counts = dict.fromkeys(RANKS, 0)

    def read(self) -> dict[str, Any]:
        """Counts by status so far, and what the workers are doing: `now`."""
        for path in work_files(self._folder, f"{self._run_id}-*.lines"):
            with contextlib.suppress(OSError), path.open("rb") as file:
                file.seek(self._read.get(path, 0))
                data = file.read()
                whole = data.rpartition(b"\n")[0]  # of the rest, the end is to come
                self._read[path] = self._read.get(path, 0) + len(whole) + bool(whole)
                for text in whole.splitlines():
                    self._add(text.decode())
        now = [doing["now"] for doing in _doing(self._folder, self._run_id) if doing["now"]]
        return {status: self._counts[status] for status in STATUSES} | {"now": now}

    def _add(self, text: str) -> None:
        line, _, status = text.partition(" ")
        if not line.isdigit() or status not in RANKS:  # what its writer died in
            return
        rank, before = RANKS.index(status), self._ranks.get(int(line))
        if before is None or rank > before:
            self._ranks[int(line)] = rank
            self._counts[status] += 1
            if before is not None:
                self._counts[RANKS[before]] -= 1


def longest_step(folder: str, run_id: str) -> float:
    """Seconds that a step takes of what workers are at."""
    return max((doing.get("pace", 0.0) for doing in _doing(folder, run_id)), default=0.0)


def forget_doings(folder: str, run_id: str) -> None:
    """Of processes that are gone."""
    for path in work_files(folder, f"{run_id}-*.json"):
        path.unlink(missing_ok=True)


def _doing(folder: str, run_id: str) -> Iterator[Mapping[str, Any]]:
    for path in work_files(folder, f"{run_id}-*.json"):
        with contextlib.suppress(OSError, ValueError):
            yield json.loads(path.read_text())


def clear(folder: str, run_id: str) -> None:
    """Removes what a finished run left."""
    for path in work_files(folder, f"{run_id}*"):
        path.unlink(missing_ok=True)
