"""A run's `work` folder: what its processes tell each other, and what outlives them if they die.

Progress, stop requests, and a journal of rows.
"""

import contextlib
import json
import os
import secrets
import threading
import time
import warnings
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from pipeline import files
from pipeline.locking import born
from pipeline.outputs import STATUSES, Row, has_metadata, work_folder, write_recovered

# This process, among all machines that share the folder.
PROCESS = f"{os.getpid()}-{secrets.token_hex(4)}"

# Of two rows of one line of the manifest, the later here stands: what an attempt found made was
# made by the one before.
_RANKS = ("deferred", "cached", "failed", "ok")


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
        journal(self._folder, self._run_id, rows)
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
        self._counts = dict.fromkeys(_RANKS, 0)

    def read(self) -> dict[str, Any]:
        """Counts by status so far, and what the workers are doing: `now`."""
        for path in _all(self._folder, f"{self._run_id}-*.lines"):
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
        if not line.isdigit() or status not in _RANKS:  # what its writer died in
            return
        rank, before = _RANKS.index(status), self._ranks.get(int(line))
        if before is None or rank > before:
            self._ranks[int(line)] = rank
            self._counts[status] += 1
            if before is not None:
                self._counts[_RANKS[before]] -= 1


def longest_step(folder: str, run_id: str) -> float:
    """Seconds that a step takes of what workers are at."""
    return max((doing.get("pace", 0.0) for doing in _doing(folder, run_id)), default=0.0)


def forget_doings(folder: str, run_id: str) -> None:
    """Of processes that are gone."""
    for path in _all(folder, f"{run_id}-*.json"):
        path.unlink(missing_ok=True)


def _doing(folder: str, run_id: str) -> Iterator[Mapping[str, Any]]:
    for path in _all(folder, f"{run_id}-*.json"):
        with contextlib.suppress(OSError, ValueError):
            yield json.loads(path.read_text())


def count_deaths(folder: str, run_id: str) -> None:
    """Notes which pictures were being made by processes of this machine that are gone."""
    found = deaths(folder, run_id)
    for path in _all(folder, f"{run_id}-*.making"):
        pid = path.name.removeprefix(f"{run_id}-").partition("-")[0]
        if not born(int(pid)):
            with contextlib.suppress(OSError, ValueError):
                for output in json.loads(path.read_text()):
                    found[output] = found.get(output, 0) + 1
        path.unlink(missing_ok=True)
    files.write(str(_deaths_path(folder, run_id)), json.dumps(found).encode())


def deaths(folder: str, run_id: str) -> dict[str, int]:
    """How many processes died while they made a picture: {output: count}."""
    try:
        return json.loads(_deaths_path(folder, run_id).read_text())
    except (OSError, ValueError):
        return {}


def _deaths_path(folder: str, run_id: str) -> Path:
    return work_folder(folder) / f"{run_id}.deaths"


class Journal:
    """Rows that processes of a run kept, read one by one: a row may hold a long loss curve."""

    def __init__(self, paths: Iterable[Path]):
        # By line of the manifest: the rank of its row, and where it is.
        self._places: dict[int, tuple[int, Path, int]] = {}
        self._lines: dict[str, int] = {}  # by output
        for path in paths:
            for row, place in _journaled(path):
                line, rank = row["manifest_line"], _RANKS.index(row["status"])
                if line not in self._places or rank >= self._places[line][0]:
                    self._places[line] = rank, path, place
                    self._lines[row["output"]] = line

    @classmethod
    def of_run(cls, folder: str, run_id: str) -> "Journal":
        """What earlier processes of the run kept."""
        return cls(_all(folder, f"{run_id}-*.rows"))

    def find(self, output: str) -> Row | None:
        """The row of a picture that was made, or failed."""
        place = self._places.get(self._lines.get(output, -1))
        if place is None or place[0] < _RANKS.index("failed"):
            return None
        return _row_at(*place[1:])

    def rows(self) -> Iterator[Row]:
        """In the manifest's order, one for every line."""
        for line in sorted(self._places):
            _, path, place = self._places[line]
            if row := _row_at(path, place):
                yield row

    @property
    def finished(self) -> int:
        """How many pictures were made or failed."""
        least = _RANKS.index("failed")
        return sum(rank >= least for rank, _, _ in self._places.values())


def _journaled(path: Path) -> Iterator[tuple[Row, int]]:
    """Rows, and where they begin."""
    with contextlib.suppress(FileNotFoundError), path.open("rb") as file:
        place = 0
        for text in file:
            with contextlib.suppress(ValueError, KeyError, TypeError):  # what its writer died in
                row = json.loads(text)
                _RANKS.index(row["status"])
                yield {name: row[name] for name in ("manifest_line", "status", "output")}, place
            place += len(text)


def _row_at(path: Path, place: int) -> Row | None:
    try:
        with path.open("rb") as file:
            file.seek(place)
            row = json.loads(file.readline())
        for name in ("started_at", "finished_at"):
            row[name] = row[name] and datetime.fromisoformat(row[name])
        return row
    except (OSError, ValueError, KeyError, TypeError):  # another run that begins has seen to it
        return None


def journal(folder: str, run_id: str, rows: Sequence[Row]) -> None:
    """Keeps rows at once, in case the run does not live to write its metadata."""
    path = work_folder(folder) / f"{run_id}-{PROCESS}.rows"
    if not rows:
        return
    lines = "".join(json.dumps(row, default=datetime.isoformat) + "\n" for row in rows)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("a") as file:
            file.write(lines)
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        warnings.warn(f"{path}: rows are kept in memory only: {error}", stacklevel=2)


def recover(folder: str, running: Callable[[], Collection[str]]) -> None:
    """Writes the metadata of runs that died, from their journals, and removes what else they left.

    Args:
      running: tells the ids of the runs that live; asked after the files were listed, since a run
        takes its lock before it writes any.
    """
    kinds = ("rows", "json", "lines", "stop", "making", "deaths", "seen")
    found = [path for kind in kinds for path in _all(folder, f"*.{kind}")]
    alive = tuple(running())
    dead = [path for path in found if not path.name.startswith(alive)]
    journals: dict[str, list[Path]] = {}
    for path in dead:
        if path.suffix == ".rows":
            run_id = path.stem.rsplit("-", 2)[0]  # without its process
            journals.setdefault(run_id, []).append(path)
    for run_id, paths in journals.items():
        if not has_metadata(folder, run_id):  # else it died after it was written
            write_recovered(folder, run_id, Journal(paths).rows())
    for path in dead:
        path.unlink(missing_ok=True)


def request_stop(folder: str, run_id: str, reason: str) -> None:
    """Asks all processes of a run to stop at their next step."""
    path = work_folder(folder) / f"{run_id}.stop"
    files.write(str(path), reason.encode())


def stop_requested(folder: str, run_id: str) -> str:
    """Why the run should stop, or "" if it should not."""
    path = work_folder(folder) / f"{run_id}.stop"
    try:
        return path.read_text()
    except OSError:
        return ""


def clear(folder: str, run_id: str) -> None:
    """Removes what a finished run left."""
    for path in _all(folder, f"{run_id}*"):
        path.unlink(missing_ok=True)


def _all(folder: str, pattern: str) -> list[Path]:
    return sorted(work_folder(folder).glob(pattern))
