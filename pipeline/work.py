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
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import pyarrow

from pipeline import files
from pipeline.locking import born
from pipeline.outputs import SCHEMA, STATUSES, Row, work_folder, write_metadata

# Of this process, among all machines that share the folder.
_PROCESS = f"{os.getpid()}-{secrets.token_hex(4)}"


class Progress:
    """A worker's side channel to the launcher: no local Beam runner shows metrics while it runs."""

    def __init__(self, folder: str, run_id: str):
        self._folder, self._run_id = folder, run_id
        self._path: Path | None = work_folder(folder) / f"{run_id}-{_PROCESS}-{id(self)}.json"
        self._counts: dict[str, Any] = dict.fromkeys(STATUSES, 0) | {"now": "", "pace": 0.0}
        self._suspects: set[str] = set()
        self._making = work_folder(folder) / f"{run_id}-{_PROCESS}-{id(self)}.making"
        self._written = 0.0
        self._lock = threading.Lock()

    def record(self, rows: Sequence[Row]) -> None:
        """Keeps and counts finished rows."""
        with self._lock:
            journal(self._folder, self._run_id, rows)
            for row in rows:
                self._counts[row["status"]] += 1
            self._counts["now"] = ""
            self._write()

    def count(self, status: str) -> None:
        """One more row of this status, which is kept elsewhere or not worth keeping."""
        with self._lock:
            self._counts[status] += 1
            self._write(least=0.5)

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

    def show(self, text: str, pace: float = 0.0) -> None:
        """What this worker is doing, and how many seconds one step of it takes."""
        with self._lock:
            self._counts["now"], self._counts["pace"] = text, pace
            self._write(least=0.5)

    def flush(self) -> None:
        """Writes what is still unwritten."""
        with self._lock:
            self._write()

    def _write(self, least: float = 0.0) -> None:
        """Unless the last time is less than `least` seconds ago."""
        if self._path is None or time.monotonic() - self._written < least:
            return
        self._written = time.monotonic()
        try:
            with files.replacing(str(self._path), sync=False) as file:
                file.write(json.dumps(self._counts).encode())
        except OSError:  # progress is a courtesy: a full disk shows where pictures are written
            self._path = None


def read_progress(folder: str, run_id: str) -> dict[str, Any]:
    """The sum over workers: counts by status, and what they are doing."""
    total: dict[str, Any] = dict.fromkeys(STATUSES, 0) | {"now": []}
    for counts in _progress(folder, run_id):
        for status in STATUSES:
            total[status] += counts[status]
        if counts["now"]:
            total["now"].append(counts["now"])
    return total


def longest_step(folder: str, run_id: str) -> float:
    """Seconds that a step takes of what workers are at."""
    found = [counts.get("pace", 0.0) for counts in _progress(folder, run_id)]
    return max(found, default=0.0)


def forget_progress(folder: str, run_id: str) -> None:
    """Of processes that are gone, whose rows others will count again."""
    for path in _all(folder, f"{run_id}-*.json"):
        path.unlink(missing_ok=True)


def _progress(folder: str, run_id: str) -> Iterator[Mapping[str, Any]]:
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


def finished_rows(folder: str, run_id: str) -> dict[str, Row]:
    """What earlier processes of this run made or failed at, from their journals: {output: row}."""
    rows = [row for path in _all(folder, f"{run_id}-*.rows") for row in _journaled(path)]
    return {row["output"]: row for row in rows if row["status"] in ("ok", "failed")}


def _journaled(path: Path) -> Iterator[Row]:
    for line in _lines(path):
        with contextlib.suppress(ValueError, KeyError, TypeError):  # what its writer died in
            row = json.loads(line)
            for name in ("started_at", "finished_at"):
                row[name] = row[name] and datetime.fromisoformat(row[name])
            yield row


def journal(folder: str, run_id: str, rows: Sequence[Row]) -> None:
    """Keeps rows at once, in case the run does not live to write its metadata."""
    path = work_folder(folder) / f"{run_id}-{_PROCESS}.rows"
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
    kinds = ("rows", "json", "stop", "making", "deaths")
    found = [path for kind in kinds for path in _all(folder, f"*.{kind}")]
    alive = tuple(running())
    dead = [path for path in found if not path.name.startswith(alive)]
    rows: dict[str, dict[int, Row]] = {}
    for path in dead:
        for row in _journaled(path) if path.suffix == ".rows" else ():
            rows.setdefault(row["run_id"], {})[row["manifest_line"]] = row
    for run_id, by_line in rows.items():
        if files.listing(folder, f"metadata/run_id={run_id}/part-0*"):
            continue  # it died after its metadata was written
        ordered = [by_line[line] for line in sorted(by_line)]
        # Under Beam's own name for it: a cluster may go on without the launcher, and end later.
        write_metadata(folder, run_id, pyarrow.Table.from_pylist(ordered, schema=SCHEMA))
    for path in dead:
        path.unlink(missing_ok=True)


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text().splitlines()
    except FileNotFoundError:  # another run that begins has seen to it
        return []


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
