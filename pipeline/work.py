"""A run's `work` folder: what its processes tell each other, and what outlives them if they die.

All of it is small files on a local disk, replaced whole or appended to. Where the run's folder is a
URL there is none of it: no live progress, no lock, and rows are only in the metadata at the end.
"""

import contextlib
import json
import os
import socket
import time
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet

from pipeline import files
from pipeline.outputs import SCHEMA, STATUSES, Row, metadata_prefix

_STALE = 120.0  # seconds without a heartbeat after which another machine's lock is taken over


class LockedError(ValueError):
    """Another run is at work on the same folder."""


class Progress:
    """A worker's side channel to the launcher: no local Beam runner shows metrics while it runs."""

    def __init__(self, folder: str, run_id: str):
        self._path = _path(folder, f"{run_id}-{os.getpid()}-{id(self)}.json")
        self._counts: dict[str, Any] = dict.fromkeys(STATUSES, 0) | {"now": ""}
        self._written = 0.0

    def count(self, status: str) -> None:
        """One more row of this status."""
        self._counts[status] += 1
        self._write(force=False)

    def show(self, text: str) -> None:
        """What this worker is doing."""
        self._counts["now"] = text
        self._write(force=False)

    def flush(self) -> None:
        """Writes what is still unwritten."""
        self._write(force=True)

    def _write(self, force: bool) -> None:
        if self._path is None or (not force and time.monotonic() - self._written < 0.5):
            return
        self._written = time.monotonic()
        try:
            files.write(str(self._path), json.dumps(self._counts).encode())
        except OSError:  # progress is a courtesy: a full disk shows where pictures are written
            self._path = None


def read_progress(folder: str, run_id: str) -> dict[str, Any]:
    """The sum over workers: counts by status, and what they are doing."""
    total: dict[str, Any] = dict.fromkeys(STATUSES, 0) | {"now": []}
    for path in _all(folder, f"{run_id}-*.json"):
        try:
            counts: Mapping[str, Any] = json.loads(path.read_text())
        except (OSError, ValueError):
            continue
        for status in STATUSES:
            total[status] += counts[status]
        if counts["now"]:
            total["now"].append(counts["now"])
    return total


def journal(folder: str, run_id: str, rows: Sequence[Row]) -> None:
    """Keeps rows at once, in case the run does not live to write its metadata."""
    path = _path(folder, f"{run_id}-{os.getpid()}.rows")
    if path is None or not rows:
        return
    lines = "".join(json.dumps(row, default=datetime.isoformat) + "\n" for row in rows)
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a") as file:
        file.write(lines)
        file.flush()
        os.fsync(file.fileno())


def recover(folder: str) -> list[str]:
    """Writes the metadata of runs that died, from their journals, and removes what else they left.

    For who holds the lock: then no other run is alive.

    Returns:
      Their run ids.
    """
    rows: dict[str, dict[int, Row]] = {}
    journals = _all(folder, "*.rows")
    for path in journals:
        for line in path.read_text().splitlines():
            with contextlib.suppress(ValueError):  # the line that it died in
                row = json.loads(line)
                for name in ("started_at", "finished_at"):
                    row[name] = row[name] and datetime.fromisoformat(row[name])
                rows.setdefault(row["run_id"], {})[row["manifest_line"]] = row
    for run_id, found in rows.items():
        ordered = [found[line] for line in sorted(found)]
        sink = pyarrow.BufferOutputStream()
        table = pyarrow.Table.from_pylist(ordered, schema=SCHEMA)
        pyarrow.parquet.write_table(table, sink, compression="zstd")
        path = f"{metadata_prefix(folder, run_id)}-recovered.parquet"
        files.write(path, sink.getvalue().to_pybytes())
    for pattern in ("*.rows", "*.json", "*.stop"):
        for path in _all(folder, pattern):
            path.unlink()
    return sorted(rows)


def request_stop(folder: str, run_id: str, reason: str) -> None:
    """Asks all processes of a run to stop at their next step."""
    path = _path(folder, f"{run_id}.stop")
    if path is not None:
        files.write(str(path), reason.encode())


def stop_requested(folder: str, run_id: str) -> str:
    """Why the run should stop, or "" if it should not."""
    path = _path(folder, f"{run_id}.stop")
    try:
        return path.read_text() if path is not None else ""
    except OSError:
        return ""


@contextlib.contextmanager
def lock(folder: str, run_id: str) -> Iterator[None]:
    """Holds the folder for one run; a lock whose owner is gone is taken over.

    Raises:
      LockedError: another run has it, naming its owner and time.
    """
    path = _path(folder, "lock")
    if path is None:
        yield
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    owner = {"host": socket.gethostname(), "pid": os.getpid(), "run_id": run_id}
    while True:
        try:
            with path.open("x") as file:
                json.dump(owner, file)
            break
        except FileExistsError:
            _refuse_unless_stale(path, folder)
    try:
        yield
    finally:
        path.unlink(missing_ok=True)


def heartbeat(folder: str) -> None:
    """Keeps the lock from looking abandoned to other machines."""
    path = _path(folder, "lock")
    if path is not None:
        with contextlib.suppress(OSError):
            os.utime(path)


def clear(folder: str, run_id: str) -> None:
    """Removes what a finished run left."""
    for path in _all(folder, f"{run_id}*"):
        path.unlink(missing_ok=True)


def _refuse_unless_stale(path: Path, folder: str) -> None:
    try:
        age = time.time() - path.stat().st_mtime
        text = path.read_text()
    except FileNotFoundError:
        return  # released in the meantime
    try:
        owner = json.loads(text)
    except ValueError:  # its owner died, or is about to write it
        owner = {}
    if owner.get("host") == socket.gethostname():
        gone = not Path(f"/proc/{owner['pid']}").exists() if Path("/proc/self").exists() else False
    else:
        gone = age > _STALE
    if gone:
        path.unlink(missing_ok=True)
        return
    raise LockedError(
        f"{folder}: run {owner.get('run_id')} (process {owner.get('pid')} on {owner.get('host')}, "
        f"last sign of life {age:.0f} s ago) is at work on this folder; wait for it, or remove "
        f"{path} if you are sure that it is gone"
    )


def _path(folder: str, name: str) -> Path | None:
    return None if files.is_url(folder) else Path(folder, "work", name)


def _all(folder: str, pattern: str) -> list[Path]:
    return [] if files.is_url(folder) else sorted(Path(folder, "work").glob(pattern))
