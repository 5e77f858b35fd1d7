"""Keeps rows that outlive the process that made them, and counts the processes that died.

Both are small files in a run's `work` folder.
"""

import contextlib
import json
import os
import secrets
import warnings
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from datetime import datetime
from pathlib import Path

from pipeline.jobs.row import Row
from pipeline.store import files
from pipeline.store.layout import work_folder
from pipeline.store.locks import born
from pipeline.store.metadata import has_metadata, write_recovered

# Names this process uniquely among all machines that share the folder.
PROCESS = f"{os.getpid()}-{secrets.token_hex(4)}"

# Of two rows of one line of the manifest, the one later in this list counts: a picture that an
# attempt found "cached" is one that an earlier attempt of the same run made.
RANKS = ("deferred", "cached", "failed", "ok")


class Journal:
    """Finds the rows that processes of a run kept.

    Rows stay on disk and are read one by one, as each may hold a long loss curve.
    """

    def __init__(self, paths: Iterable[Path]):
        # {line of the manifest: (rank of its row, file, where in the file it begins)}
        self._places: dict[int, tuple[int, Path, int]] = {}
        self._lines: dict[str, int] = {}  # by output
        for path in paths:
            for row, place in _journaled(path):
                line, rank = row["manifest_line"], RANKS.index(row["status"])
                if line not in self._places or rank >= self._places[line][0]:
                    self._places[line] = rank, path, place
                    self._lines[row["output"]] = line

    @classmethod
    def of_run(cls, folder: str, run_id: str) -> "Journal":
        """Opens what processes of the run have kept until now."""
        return cls(work_files(folder, f"{run_id}-*.rows"))

    def find(self, output: str) -> Row | None:
        """Returns the row of an output whose picture was made or failed; None if there is none."""
        place = self._places.get(self._lines.get(output, -1))
        if place is None or place[0] < RANKS.index("failed"):
            return None
        return _row_at(*place[1:])

    def rows(self) -> Iterator[Row]:
        """Yields the rows in the manifest's order, one per line."""
        for line in sorted(self._places):
            _, path, place = self._places[line]
            if row := _row_at(path, place):
                yield row

    @property
    def finished(self) -> int:
        """Returns how many pictures were made or failed."""
        least = RANKS.index("failed")
        return sum(rank >= least for rank, _, _ in self._places.values())


def _journaled(path: Path) -> Iterator[tuple[Row, int]]:
    """Yields the columns of each row that decide which one counts, and where the row begins."""
    with contextlib.suppress(FileNotFoundError), path.open("rb") as file:
        place = 0
        for text in file:
            with contextlib.suppress(ValueError, KeyError, TypeError):  # its writer died in it
                row = json.loads(text)
                RANKS.index(row["status"])
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
    except (OSError, ValueError, KeyError, TypeError):  # another run has recovered and removed it
        return None


def keep_rows(folder: str, run_id: str, rows: Sequence[Row]) -> None:
    """Writes rows to the journal at once, in case the run dies before it writes its metadata."""
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


def recover_dead_runs(folder: str, running: Callable[[], Collection[str]]) -> None:
    """Writes the metadata of runs that died, from their journals, and removes what else they left.

    Args:
      running: returns the ids of the runs that are alive; called after the files were listed,
        since a run takes its lock before it writes any.
    """
    kinds = ("rows", "json", "lines", "stop", "making", "deaths", "seen")
    found = [path for kind in kinds for path in work_files(folder, f"*.{kind}")]
    alive = tuple(running())
    dead = [path for path in found if not path.name.startswith(alive)]
    journals: dict[str, list[Path]] = {}
    for path in dead:
        if path.suffix == ".rows":
            run_id = path.stem.rsplit("-", 2)[0]  # the name of a file ends in its process
            journals.setdefault(run_id, []).append(path)
    for run_id, paths in journals.items():
        if not has_metadata(folder, run_id):  # else it died after writing it
            write_recovered(folder, run_id, Journal(paths).rows())
    for path in dead:
        path.unlink(missing_ok=True)


def count_deaths(folder: str, run_id: str) -> None:
    """Counts a death for each picture that a process of this machine was making when it died."""
    found = deaths(folder, run_id)
    for path in work_files(folder, f"{run_id}-*.making"):
        pid = path.name.removeprefix(f"{run_id}-").partition("-")[0]
        if not born(int(pid)):
            with contextlib.suppress(OSError, ValueError):
                for output in json.loads(path.read_text()):
                    found[output] = found.get(output, 0) + 1
        path.unlink(missing_ok=True)
    files.write(str(_deaths_path(folder, run_id)), json.dumps(found).encode())


def deaths(folder: str, run_id: str) -> dict[str, int]:
    """Returns how many processes died while they made each picture: {output: count}."""
    try:
        return json.loads(_deaths_path(folder, run_id).read_text())
    except (OSError, ValueError):
        return {}


def _deaths_path(folder: str, run_id: str) -> Path:
    return work_folder(folder) / f"{run_id}.deaths"


def work_files(folder: str, pattern: str) -> list[Path]:
    return sorted(work_folder(folder).glob(pattern))
