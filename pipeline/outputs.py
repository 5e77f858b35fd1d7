"""A run's folder: metadata rows and their schema, progress of workers, and the run's own record."""

import importlib.metadata
import json
import os
import platform
import time
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.dataset

from pipeline import files
from pipeline.manifest import Job

SCHEMA_VERSION = 1

_LOSSES = [(name, pyarrow.float64()) for name in ("total", "content", "style", "tv")]
SCHEMA = pyarrow.schema(
    [
        ("run_id", pyarrow.string()),
        ("job_id", pyarrow.string()),
        ("manifest_line", pyarrow.int64()),
        ("status", pyarrow.string()),  # ok | cached | failed
        ("error_type", pyarrow.string()),
        ("error_message", pyarrow.string()),
        ("error_path", pyarrow.string()),  # the file at fault
        ("content", pyarrow.string()),
        (
            "styles",
            pyarrow.list_(
                pyarrow.struct([("path", pyarrow.string()), ("weight", pyarrow.float64())])
            ),
        ),
        ("output", pyarrow.string()),  # relative to the images folder
        ("height", pyarrow.int64()),
        ("width", pyarrow.int64()),
        ("seed", pyarrow.int64()),
        ("spec_hash", pyarrow.string()),
        ("content_sha256", pyarrow.string()),
        ("style_sha256", pyarrow.list_(pyarrow.string())),
        ("weights_sha256", pyarrow.string()),
        (
            "scales",
            pyarrow.list_(
                pyarrow.struct(
                    [
                        ("height", pyarrow.int64()),
                        ("width", pyarrow.int64()),
                        ("steps", pyarrow.int64()),
                        ("evaluations", pyarrow.int64()),
                        ("seconds", pyarrow.float64()),
                        ("stop_reason", pyarrow.string()),
                    ]
                )
            ),
        ),
        ("loss_first", pyarrow.float64()),
        ("loss_last", pyarrow.float64()),
        ("loss_content", pyarrow.float64()),
        ("loss_style", pyarrow.float64()),
        ("loss_tv", pyarrow.float64()),
        (
            "loss_curve",
            pyarrow.list_(
                pyarrow.struct([("scale", pyarrow.int64()), ("step", pyarrow.int64()), *_LOSSES])
            ),
        ),
        ("batch_size", pyarrow.int64()),  # pictures optimised together; they share the seconds
        ("tile", pyarrow.int64()),  # side in px; null if computed whole
        ("seconds_total", pyarrow.float64()),
        ("seconds_optimise", pyarrow.float64()),
        ("peak_memory_bytes", pyarrow.int64()),  # of the worker process, so far
        ("device", pyarrow.string()),
        ("precision", pyarrow.string()),
        ("versions", pyarrow.string()),  # JSON
        ("started_at", pyarrow.timestamp("us", tz="UTC")),
        ("finished_at", pyarrow.timestamp("us", tz="UTC")),
        ("schema_version", pyarrow.int64()),
    ]
)

Row = dict[str, Any]


def row(run_id: str, job: Job, status: str, **values: Any) -> Row:
    """A metadata row with every column of the schema; what is not given is null."""
    known = {
        "run_id": run_id,
        "job_id": job.id,
        "manifest_line": job.line,
        "status": status,
        "content": job.content,
        "styles": [{"path": path, "weight": weight} for path, weight in job.styles],
        "output": job.output,
        "versions": json.dumps(versions(), sort_keys=True),
        "finished_at": now(),
        "schema_version": SCHEMA_VERSION,
        **values,
    }
    return {name: known.pop(name, None) for name in SCHEMA.names} | known


def failed_row(run_id: str, job: Job, error: BaseException, **values: Any) -> Row:
    """The row of a job that an error ended."""
    return row(
        run_id,
        job,
        "failed",
        error_type=type(error).__name__,
        error_message=str(error),
        error_path=getattr(error, "path", "") or None,
        **values,
    )


def now() -> datetime:
    """The time, in UTC."""
    return datetime.now(UTC)


def versions() -> dict[str, str]:
    """Of the software that decides how a picture looks."""
    packages = ("nst", "tensorflow", "keras", "numpy", "pillow", "apache-beam")
    found = {"python": platform.python_version()}
    for package in packages:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            found[package] = "not installed"
    return found


def images_folder(folder: str) -> str:
    """Where a run's pictures go."""
    return files.join(folder, "images")


def metadata_prefix(folder: str, run_id: str) -> str:
    """Parquet files of one run begin with this; the run id in it keeps runs from deleting each
    other's.
    """
    return files.join(folder, "metadata", f"run_id={run_id}", "part")


def read_metadata(folder: str, run_id: str, columns: Sequence[str] | None = None) -> pyarrow.Table:
    """The rows of a run."""
    path = files.parent(metadata_prefix(folder, run_id))
    filesystem, path = pyarrow.fs.FileSystem.from_uri(path) if files.is_url(path) else (None, path)
    dataset = pyarrow.dataset.dataset(path, format="parquet", schema=SCHEMA, filesystem=filesystem)
    return dataset.to_table(columns=list(columns) if columns else None)


class Progress:
    """A worker's side channel: one small file per process, replaced whole, which the launcher's
    monitor reads.

    No local Beam runner shows metrics while it runs. Where `folder` is a URL, or another machine's
    disk, there is no live progress and nothing is written.
    """

    def __init__(self, folder: str, run_id: str):
        self._path = None
        if not files.is_url(folder):
            self._path = Path(folder, "work", f"{run_id}-{os.getpid()}.json")
        self._counts: dict[str, Any] = {"ok": 0, "cached": 0, "failed": 0, "now": ""}
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
            self._path.parent.mkdir(parents=True, exist_ok=True)
            temporary = self._path.with_suffix(".tmp")
            temporary.write_text(json.dumps(self._counts))
            temporary.replace(self._path)
        except OSError:  # progress is a courtesy: a full disk shows where pictures are written
            self._path = None


def read_progress(folder: str, run_id: str) -> dict[str, Any]:
    """The sum over workers: counts by status, and what they are doing."""
    total: dict[str, Any] = {"ok": 0, "cached": 0, "failed": 0, "now": []}
    for path in sorted(Path(folder, "work").glob(f"{run_id}-*.json")):
        try:
            counts: Mapping[str, Any] = json.loads(path.read_text())
        except (OSError, ValueError):
            continue
        for status in ("ok", "cached", "failed"):
            total[status] += counts[status]
        if counts["now"]:
            total["now"].append(counts["now"])
    return total


def clear_progress(folder: str, run_id: str) -> None:
    """Removes a finished run's side channel."""
    for path in Path(folder, "work").glob(f"{run_id}-*"):
        path.unlink(missing_ok=True)
