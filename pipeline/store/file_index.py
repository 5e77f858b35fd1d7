"""Remembers what files held when they were last read, so that unchanged files are not read again.

Workers look into a database that nobody writes meanwhile, and note what they read in logs of their
own. The launcher makes a new database from the old one and the logs, and renames it into place. So
the index needs no locks of a file system, and may be deleted at any time.
"""

import contextlib
import hashlib
import json
import os
import shutil
import sqlite3
import sys
import threading
import time
import urllib.parse
import zlib
from collections.abc import Callable, Collection, Iterator
from pathlib import Path
from typing import NamedTuple

from nst_ops.errors import InputError
from nst_ops.images.codec import MAX_PIXELS, Header, probe
from nst_ops.images.damage import is_whole
from nst_ops.images.size import Size
from pipeline.jobs.shard import Shard
from pipeline.store import files
from pipeline.store.journal import PROCESS
from pipeline.store.layout import work_folder

# Seconds since a file's last change before it is noted: some file systems' times are so coarse that
# a second change right after the first would not show.
_SETTLED = 2.0
# A file is read again after so many days, in case its bits have rotted on the disk. The number
# differs from file to file, so that a collection is not read all in one night.
_LEAST_DAYS, _MORE_DAYS = 30, 30
_HEADER_BYTES = 2**18
_UNWRITTEN = 100  # notes held in memory, which a process that dies loses


class Facts(NamedTuple):
    """Holds what is known of an image file."""

    sha256: str
    bytes: int
    size: Size  # in px
    format: str  # Pillow's name
    spec_hash: str | None  # of a whole picture of ours; "" if it is none; None: unknown

    @property
    def header(self) -> Header:
        """Returns the header as `probe` gives it, but without provenance."""
        return Header(self.size, self.format, None)


class FileIndex:
    """Tells what image files hold: from its database, or else by reading them.

    Args:
      folder: the run's folder; None: nothing is known, and nothing is noted.
      run_id: the id of the run, which names the log.
      shard: the shard of the run; each shard has a database of its own.
      full: whether to read every file, whatever is known of it.
      before_reading: called before a file is read; what it raises ends the call.
    """

    def __init__(
        self,
        folder: str | None = None,
        run_id: str = "",
        shard: Shard = Shard(),  # noqa: B008  # immutable
        *,
        full: bool = False,
        before_reading: Callable[[], None] = lambda: None,
    ):
        self._database, self._log = None, None
        if folder is not None:
            self._database = None if full else _open(_path(folder, shard))
            self._log = work_folder(folder) / f"{run_id}-{PROCESS}-{id(self)}.seen"
        self._before_reading = before_reading
        self._notes: list[str] = []
        self._lock = threading.Lock()

    def facts(
        self, path: str, *, max_bytes: int | None = None, max_pixels: int = MAX_PIXELS
    ) -> Facts:
        """Returns what a photo or a painting holds, reading it if that is unknown.

        Raises:
          InputError: as `read`.
        """
        limits = {"max_bytes": max_bytes, "max_pixels": max_pixels}
        return self.known_facts(path, **limits) or self.read(path, **limits)[1]

    def known_facts(
        self, path: str, *, max_bytes: int | None = None, max_pixels: int = MAX_PIXELS
    ) -> Facts | None:
        """Returns what a photo or a painting holds; None if it changed or was never read."""
        known = self._find(path, files.stamp(path))
        # A file above the limits counts as unknown: reading it gives the right error.
        if known and known.bytes <= (max_bytes or known.bytes):
            if known.size[0] * known.size[1] <= max_pixels:
                return known
        return None

    def header(
        self, path: str, *, max_bytes: int | None = None, max_pixels: int = MAX_PIXELS
    ) -> Header:
        """What a photo or a painting says of itself, of which no more is read than has to be.

        Raises:
          InputError: as `read`, as far as the header tells.
        """
        known = self.known_facts(path, max_bytes=max_bytes, max_pixels=max_pixels)
        if known:
            return known.header
        self._before_reading()
        start = files.read(path, max_bytes, first=_HEADER_BYTES)
        if len(start) < _HEADER_BYTES:
            return probe(start, path=path, max_pixels=max_pixels)
        with contextlib.suppress(InputError):  # the header is long, or lies behind the pixels
            found = probe(start, path=path, max_pixels=max_pixels)
            # Some programs put a PNG's EXIF, which may turn it, behind the pixels.
            if found.format != "PNG" or b"eXIf" in start:
                return found
        return probe(files.read(path, max_bytes), path=path, max_pixels=max_pixels)

    def read(
        self, path: str, *, max_bytes: int | None = None, max_pixels: int = MAX_PIXELS
    ) -> tuple[bytes, Facts]:
        """Reads a photo or a painting; returns its bytes and what it holds, and notes the latter.

        Raises:
          InputError: as `files.read` and `images.probe`.
        """
        stamp = files.stamp(path)
        self._before_reading()
        data = files.read(path, max_bytes)
        header = probe(data, path=path, max_pixels=max_pixels)
        facts = Facts(_sha256(data), len(data), header.size, header.format, None)
        self._note(path, stamp, facts)
        return data, facts

    def result(self, path: str) -> Facts:
        """Returns what a file among the results holds, which may be a picture of ours.

        Raises:
          InputError: it does not exist, or is no image.
        """
        stamp = files.stamp(path)
        known = self._find(path, stamp)
        if known and known.spec_hash is not None:
            return known
        self._before_reading()
        facts = _result_facts(files.read(path), path)
        self._note(path, stamp, facts)
        return facts

    def note_result(self, path: str, data: bytes) -> None:
        """Notes a picture that was just written."""
        self._note(
            path, files.stamp(path), _result_facts(data, path, known_whole=True), settled=True
        )

    def flush(self) -> None:
        """Writes the notes to the log; files whose notes cannot be written are read again later."""
        with self._lock, contextlib.suppress(OSError):
            notes, self._notes = self._notes, []
            if notes and self._log:
                self._log.parent.mkdir(parents=True, exist_ok=True)
                with self._log.open("a") as file:
                    file.write("".join(notes))

    def _find(self, path: str, stamp: str) -> Facts | None:
        if self._database is None or not stamp:
            return None
        try:
            with self._lock:
                found = self._database.execute(
                    "SELECT facts, checksum FROM files WHERE path = ? AND stamp = ? "
                    "AND expires > ?",
                    (path, stamp, time.time()),
                ).fetchone()
        except sqlite3.Error:  # damaged
            return None
        if found is None or _checksum(path, stamp, found[0]) != found[1]:
            return None
        sha256, count, size, format, spec_hash = json.loads(found[0])
        return Facts(sha256, count, (size[0], size[1]), format, spec_hash)

    def _note(self, path: str, stamp: str, facts: Facts, *, settled: bool = False) -> None:
        if self._log is None or not stamp:
            return
        if not (settled or _is_settled(path)) or files.stamp(path) != stamp:
            return
        with self._lock:
            self._notes.append(json.dumps([path, stamp, json.dumps(facts)]) + "\n")
            full = len(self._notes) >= _UNWRITTEN
        if full:
            self.flush()


def _result_facts(data: bytes, path: str, *, known_whole: bool = False) -> Facts:
    header = probe(data, path=path, max_pixels=sys.maxsize)
    ours = str((header.provenance or {}).get("spec_hash", ""))
    spec_hash = ours if ours and (known_whole or is_whole(data)) else ""
    return Facts(_sha256(data), len(data), header.size, header.format, spec_hash)


def gather(folder: str, shard: Shard, run_id: str) -> None:
    """Puts what a run's processes noted into the database; only the launcher calls this."""
    _gather(folder, shard, _logs(folder, f"{run_id}-*"))


def gather_dead(folder: str, shard: Shard, running: Callable[[], Collection[str]]) -> None:
    """Puts what runs that died had noted into the database.

    Args:
      running: returns the ids of the runs that are alive; called after the logs were listed, since
        a run takes its lock before it writes any.
    """
    logs = _logs(folder, "*")
    alive = tuple(running())
    _gather(folder, shard, [log for log in logs if not log.name.startswith(alive)])


def _gather(folder: str, shard: Shard, logs: list[Path]) -> None:
    """Makes a new database from the old one and the logs, and removes the logs."""
    if not logs:
        return
    path = _path(folder, shard)
    fresh = path.with_suffix(".new")
    fresh.unlink(missing_ok=True)
    try:
        with contextlib.suppress(FileNotFoundError):
            shutil.copyfile(path, fresh)
        _fill(fresh, logs)
    except sqlite3.Error:  # the old one is damaged
        fresh.unlink(missing_ok=True)
        _fill(fresh, logs)
    os.replace(fresh, path)
    for log in logs:
        log.unlink(missing_ok=True)


def _logs(folder: str, names: str) -> list[Path]:
    return sorted(work_folder(folder).glob(f"{names}.seen"))


def _fill(path: Path, logs: list[Path]) -> None:
    with contextlib.closing(sqlite3.connect(path)) as database:
        database.execute("PRAGMA synchronous = OFF")  # after a power cut, files are read again
        database.execute(
            "CREATE TABLE IF NOT EXISTS files (path TEXT PRIMARY KEY, stamp TEXT, facts TEXT, "
            "expires REAL, checksum INTEGER) WITHOUT ROWID"
        )
        database.execute("DELETE FROM files WHERE expires < ?", (time.time(),))
        for log in logs:
            database.executemany("REPLACE INTO files VALUES (?, ?, ?, ?, ?)", _entries(log))
        database.commit()


def _entries(log: Path) -> Iterator[tuple[str, str, str, float, int]]:
    with contextlib.suppress(OSError), log.open() as lines:
        for line in lines:
            try:
                path, stamp, facts = json.loads(line)
            except ValueError:  # its writer died while it wrote
                continue
            days = _LEAST_DAYS + zlib.crc32(path.encode()) % _MORE_DAYS
            yield path, stamp, facts, time.time() + 86400.0 * days, _checksum(path, stamp, facts)


def _open(path: Path) -> sqlite3.Connection | None:
    address = f"file:{urllib.parse.quote(str(path.absolute()))}?immutable=1"
    try:
        return (
            sqlite3.connect(address, uri=True, check_same_thread=False) if path.exists() else None
        )
    except sqlite3.Error:
        return None


def _path(folder: str, shard: Shard) -> Path:
    name = "files" if shard.count == 1 else f"files-{shard.number}-of-{shard.count}"
    return work_folder(folder) / f"{name}.sqlite"


def _is_settled(path: str) -> bool:
    if files.is_url(path):
        return True  # a new object has a new tag
    try:
        found = os.stat(path)
    except OSError:
        return False
    return time.time() - max(found.st_mtime, found.st_ctime) > _SETTLED


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _checksum(path: str, stamp: str, facts: str) -> int:
    return zlib.crc32("\n".join((path, stamp, facts)).encode(errors="surrogateescape"))
