"""A run's folder: where things are, and the metadata's schema and rows."""

import importlib.metadata
import json
import platform
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import pyarrow
import pyarrow.dataset

from pipeline import files
from pipeline.manifest import Job

SCHEMA_VERSION = 1
STATUSES = ("ok", "cached", "failed", "deferred")

_LOSSES = [(name, pyarrow.float64()) for name in ("total", "content", "style", "tv")]
SCHEMA = pyarrow.schema(
    [
        # As a reader infers it from the folder's name: else pandas refuses to merge the two.
        ("run_id", pyarrow.dictionary(pyarrow.int32(), pyarrow.string())),
        ("job_id", pyarrow.string()),
        ("manifest_line", pyarrow.int64()),
        ("status", pyarrow.string()),  # one of STATUSES
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


def error_columns(error: BaseException) -> Row:
    """What the row says of the error that ended its job."""
    return {
        "error_type": type(error).__name__,
        "error_message": str(error),
        "error_path": getattr(error, "path", "") or None,
    }


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
