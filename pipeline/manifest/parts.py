"""Cuts a manifest's rows into parts: the launcher parses all rows once, workers read a part each.

The first parts are small, so that even a few rows are spread over the workers; later ones are
larger, so that a million rows make only some hundreds of parts.
"""

import contextlib
import gzip
import hashlib
import itertools
import json
import os
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path

from pipeline.jobs.job import BadRow, Job, StyleSource
from pipeline.jobs.shard import Shard
from pipeline.store import files
from pipeline.store.layout import record_folder

_SMALLEST, _LARGEST = 256, 4096  # rows in a part
_PARTS_PER_SIZE = 16  # after so many parts, the next are twice as large


class JobParts:
    """Holds the rows on their way to the workers: in a temporary folder, until `publish`.

    Args:
      rows: all rows of the manifest.
      shard: the shard whose rows are kept.

    Attributes:
      rows: how many rows the manifest has.
      unreadable: how many of these cannot be used.
      sha256: of the content of all rows, whatever the shard.
      count: how many parts there are.
    """

    def __init__(self, rows: Iterable[Job | BadRow], shard: Shard = Shard()):  # noqa: B008
        self._folder = tempfile.TemporaryDirectory(prefix="nst-jobs-")
        self.rows, self.unreadable, self.count = 0, 0, 0
        self._digest, self._shard = hashlib.sha256(), shard
        lines = self._encode(rows)
        while part := list(itertools.islice(lines, _part_size(self.count))):
            data = gzip.compress("\n".join(part).encode(), compresslevel=1)
            Path(self._folder.name, str(self.count)).write_bytes(data)
            self.count += 1
        self.sha256 = self._digest.hexdigest()

    def _encode(self, rows: Iterable[Job | BadRow]) -> Iterator[str]:
        """Yields the shard's rows as JSON; counts and hashes all rows on the way."""
        for row in rows:
            self.rows += 1
            self.unreadable += isinstance(row, BadRow)
            text = _encoded(row)
            self._digest.update(text.encode())
            if self._shard.has(row.line):
                yield text

    def publish(self, folder: str, run_id: str) -> None:
        """Writes the parts to where the workers of a run find them."""
        for number in range(self.count):
            data = Path(self._folder.name, str(number)).read_bytes()
            files.write(_path(folder, run_id, number), data)
        self._folder.cleanup()


def read_part(folder: str, run_id: str, number: int) -> list[Job | BadRow]:
    """Returns the rows of one part, in the manifest's order."""
    data = gzip.decompress(files.read(_path(folder, run_id, number)))
    return [_decode(json.loads(line)) for line in data.splitlines()]


def remove_parts(folder: str, run_id: str) -> None:
    """Removes the parts of a run that has ended."""
    for name in files.listing(record_folder(folder, run_id), "jobs/*.gz"):
        files.delete(files.join(record_folder(folder, run_id), name))
    if not files.is_url(folder):
        with contextlib.suppress(OSError):
            os.rmdir(files.join(record_folder(folder, run_id), "jobs"))


def runs_with_parts(folder: str) -> set[str]:
    """Returns the ids of runs whose parts are still there: they have not ended in order."""
    return {name.split("/")[1] for name in files.listing(folder, "runs/*/jobs/*.gz")}


def _part_size(number: int) -> int:
    return min(_LARGEST, _SMALLEST << number // _PARTS_PER_SIZE)


def _path(folder: str, run_id: str, number: int) -> str:
    return files.join(record_folder(folder, run_id), "jobs", f"{number:05}.jsonl.gz")


def _encoded(row: Job | BadRow) -> str:
    if isinstance(row, BadRow):
        return json.dumps([False, vars(row)])
    # What a row does not use is left out, as before there was that, so that old shards merge.
    styles = [style[:2] if style == StyleSource(*style[:2]) else style for style in row.styles]
    values = {name: value for name, value in vars(row).items() if name != "keep" or value}
    return json.dumps([True, {**values, "styles": styles}])


def _decode(pair: list) -> Job | BadRow:
    is_job, values = pair
    if not is_job:
        return BadRow(**values)
    styles = tuple(StyleSource(*style) for style in values.pop("styles"))
    overrides = tuple((name, value) for name, value in values.pop("overrides"))
    return Job(**values, styles=styles, overrides=overrides)
