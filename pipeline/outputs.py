"""A run's folder: where things are, and the metadata's schema and rows."""

import contextlib
import functools
import hashlib
import importlib.metadata
import itertools
import json
import os
import platform
import secrets
import tempfile
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.compute
import pyarrow.parquet

from nst_ops.errors import InputError
from nst_ops.iterates import LOSSES
from pipeline import files
from pipeline.manifest import Job

SCHEMA_VERSION = 2
STATUSES = ("ok", "cached", "failed", "deferred")

_LOSSES = [(name, pyarrow.float64()) for name in LOSSES]
SCHEMA = pyarrow.schema(
    [
        ("run_id", pyarrow.string()),
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
        ("optimizer", pyarrow.string()),  # adam, too, where L-BFGS would not have fitted
        ("history", pyarrow.int64()),  # steps that L-BFGS remembered; null for adam
        ("threads", pyarrow.int64()),  # of the process; sums in another order differ in rounding
        ("seconds_total", pyarrow.float64()),
        ("seconds_optimise", pyarrow.float64()),
        ("peak_memory_bytes", pyarrow.int64()),  # of the worker process, so far
        ("worker", pyarrow.string()),  # host:process
        ("device", pyarrow.string()),
        ("precision", pyarrow.string()),
        ("versions", pyarrow.string()),  # JSON
        ("started_at", pyarrow.timestamp("us", tz="UTC")),
        ("finished_at", pyarrow.timestamp("us", tz="UTC")),
        ("schema_version", pyarrow.int64()),
    ]
)

# In the files: readers take the run's id from the name of the folder, and refuse to merge the two.
FILE_SCHEMA = pyarrow.schema([field for field in SCHEMA if field.name != "run_id"])

Row = dict[str, Any]

_ROWS_AT_ONCE = 1000  # a row with its loss curve may take 50 KB
_RECOVERED = "part-recovered.parquet"


def row(run_id: str, job: Job, status: str, **values: Any) -> Row:
    """A metadata row with every column of the schema; what is not given is null.

    Raises:
      ValueError: a value for a column that the schema lacks, where it would be lost.
    """
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
    found = {name: known.pop(name, None) for name in SCHEMA.names}
    if known:
        raise ValueError(
            f"the metadata's schema has no column {', '.join(known)}; add it to SCHEMA"
        )
    return found


def error_columns(error: BaseException) -> Row:
    """What the row says of the error that ended its job."""
    return {
        "error_type": type(error).__name__,
        "error_message": str(error),
        "error_path": getattr(error, "path", None) or getattr(error, "filename", None),
    }


def now() -> datetime:
    """The time, in UTC."""
    return datetime.now(UTC)


@functools.cache
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


def record_folder(folder: str, run_id: str) -> str:
    """Where a run's own record is: config.yaml, summary.json, report.html."""
    return files.join(folder, "runs", run_id)


def work_folder(folder: str) -> Path:
    """What processes of a run share while it runs: small files, replaced whole or appended to.

    Of a run whose folder is a URL it is on this machine, and serves the processes that are here.
    """
    if not files.is_url(folder):
        return Path(folder, "work")
    name = hashlib.sha256(folder.encode()).hexdigest()[:16]
    return Path(tempfile.gettempdir(), f"nst-work-{name}")


def images_folder(folder: str) -> str:
    """Where a run's pictures go."""
    return files.join(folder, "images")


def metadata_folder(folder: str, run_id: str) -> str:
    """Where a run's own Parquet files are, named part-*."""
    return files.join(folder, "metadata", f"run_id={run_id}")


def new_run_id() -> str:
    """Begins with the time, down to the microsecond in hexadecimal, so that ids sort by it."""
    moment = now()
    return f"{moment:%Y%m%dT%H%M%SZ}-{moment.microsecond:05x}{secrets.token_hex(2)}"


def write_metadata(folder: str, run_id: str, name: str, tables: Iterable[pyarrow.Table]) -> None:
    """Writes rows as a run's own pipeline does, into one file of the run's metadata."""
    path = files.join(metadata_folder(folder, run_id), name)
    with files.replacing(path) as file:
        with pyarrow.parquet.ParquetWriter(file, FILE_SCHEMA, compression="zstd") as writer:
            for table in tables:
                writer.write_table(table.select(FILE_SCHEMA.names).cast(FILE_SCHEMA))


def write_recovered(folder: str, run_id: str, rows: Iterator[Row]) -> None:
    """Writes what a run that died had kept, and had not written."""
    written = _written_lines(folder, run_id)
    left = (row for row in rows if row["manifest_line"] not in written)
    batches = iter(lambda: list(itertools.islice(left, _ROWS_AT_ONCE)), [])
    tables = (pyarrow.Table.from_pylist(batch, schema=SCHEMA) for batch in batches)
    write_metadata(folder, run_id, _RECOVERED, tables)


def _written_lines(folder: str, run_id: str) -> set[int]:
    try:
        lines = read_metadata(folder, run_id, ["manifest_line"])["manifest_line"]
    except InputError as error:
        set_aside(error)
        return set()
    return set(lines.to_pylist())


def forget_recovered(folder: str, run_id: str) -> None:
    """Makes way for the run's own metadata: a cluster may go on without the launcher, and end after
    another run has taken it for dead.
    """
    files.delete(files.join(metadata_folder(folder, run_id), _RECOVERED))


def has_metadata(folder: str, run_id: str) -> bool:
    """Whether a run has written all of its own metadata: a cluster writes the rows of what needed
    no picture long before the others.
    """
    names = [name.rpartition("/")[2] for name in _parts(folder, run_id)]
    return any(not name.startswith("part-finished") for name in names)


def remove_metadata(folder: str, run_id: str) -> None:
    """Makes way for the rows of a new attempt: Beam replaces only as many files as it writes."""
    for name in _parts(folder, run_id):
        files.delete(files.join(folder, name))


def _parts(folder: str, run_id: str) -> list[str]:
    return files.listing(folder, f"metadata/run_id={run_id}/part-*.parquet")


def write_record(folder: str, run_id: str, name: str, values: Mapping[str, Any]) -> None:
    """`run.json`, what is known of a run when it begins; or `summary.json`, the same and what came
    of it.
    """
    data = json.dumps(values, indent=2).encode()
    files.write(files.join(record_folder(folder, run_id), name), data)


def close_record(folder: str, run_id: str, summary: Mapping[str, Any]) -> None:
    """Writes the summary of a run that came to its end; `_SUCCESS` too, if it left no row over and
    there is a picture.
    """
    write_record(folder, run_id, "summary.json", summary)
    if not summary["deferred"] and (summary["ok"] or summary["cached"]):
        # Not empty: Beam cannot put an empty object on S3.
        files.write(files.join(record_folder(folder, run_id), "_SUCCESS"), b"\n")


def read_record(folder: str, run_id: str, name: str) -> dict[str, Any]:
    """What `write_record` wrote.

    Raises:
      InputError: it cannot be read, or is damaged.
    """
    path = files.join(record_folder(folder, run_id), name)
    try:
        found = json.loads(files.read(path))
    except ValueError as error:
        raise InputError(f"is damaged ({error})", path=path) from error
    if not isinstance(found, dict) or not found:
        raise InputError("is damaged: it lacks what a run records", path=path)
    return found


def read_summary(folder: str, run_id: str) -> dict[str, Any]:
    """Of a run that has ended; `seconds` are None if it did not by itself."""
    # Runs of other versions may not have all.
    blank = {"seconds": None, "stopped": "", "manifest": "", "versions": {}, "shard": "1/1"}
    return blank | dict.fromkeys(STATUSES, 0) | read_record(folder, run_id, "summary.json")


def remove_leftovers(folder: str, run_id: str) -> None:
    """Half-written Parquet of workers that died, which would spoil the data set for its readers."""
    for name in files.listing(folder, f"metadata/run_id={run_id}/beam-temp-*/*"):
        files.delete(files.join(folder, name))
    if not files.is_url(folder):
        for path in Path(folder, "metadata", f"run_id={run_id}").glob("beam-temp-*"):
            with contextlib.suppress(OSError):
                path.rmdir()


def runs_with_leftovers(folder: str) -> set[str]:
    """Runs with half-written Parquet."""
    names = files.listing(folder, "metadata/run_id=*/beam-temp-*/*")
    return {name.split("/")[1].removeprefix("run_id=") for name in names}


def read_metadata(
    folder: str,
    run_id: str,
    columns: Sequence[str] | None = None,
    *,
    lines: pyarrow.Array | None = None,
) -> pyarrow.Table:
    """The rows of a run; none, if it has not ended.

    Args:
      columns: of SCHEMA, or all.
      lines: of the manifest, or all.

    Raises:
      InputError: a file is damaged.
    """
    tables = []
    for name in _parts(folder, run_id):
        path = files.join(folder, name)
        try:
            file = pyarrow.parquet.ParquetFile(pyarrow.BufferReader(files.read(path)))
            names = [name for name in columns or SCHEMA.names if name in file.schema_arrow.names]
            names = [name for name in names if name != "run_id"]
            table = file.read(names) if lines is None else _read_lines(file, names, lines)
        except (pyarrow.ArrowException, OSError) as error:
            raise InputError(f"is damaged ({error})", path=path) from error
        tables.append(table.append_column("run_id", pyarrow.repeat(run_id, len(table))))
    # Columns that the run's version did not have yet are null.
    table = pyarrow.concat_tables([SCHEMA.empty_table(), *tables], promote_options="default")
    return table if columns is None else table.select(list(columns))


def _read_lines(
    file: pyarrow.parquet.ParquetFile, names: Sequence[str], lines: pyarrow.Array
) -> pyarrow.Table:
    """Without more in memory than that and some thousand rows."""
    wanted = [
        batch.filter(pyarrow.compute.is_in(batch["manifest_line"], lines)).select(names)
        for batch in file.iter_batches(8192, columns={*names, "manifest_line"})
    ]
    schema = pyarrow.schema([file.schema_arrow.field(name) for name in names])
    return pyarrow.Table.from_batches(wanted, schema)


def counts(table: pyarrow.Table) -> dict[str, Any]:
    """How many rows have each status, and how many each kind of error."""
    statuses, errors = _value_counts(table["status"]), _value_counts(table["error_type"])
    errors.pop(None, None)
    of_status = {status: statuses.get(status, 0) for status in STATUSES}
    return of_status | {"errors": dict(sorted(errors.items()))}


def _value_counts(column: pyarrow.ChunkedArray) -> dict[Any, int]:
    return {found["values"]: found["counts"] for found in column.value_counts().to_pylist()}


def count_missing(folder: str, table: pyarrow.Table) -> int:
    """How many pictures that rows tell of are not there."""
    made = pyarrow.compute.is_in(table["status"], pyarrow.array(["ok", "cached"]))
    images, names = images_folder(folder), table.filter(made)["output"]
    if not files.is_url(folder):
        return sum(not os.path.exists(files.join(images, str(name))) for name in names)
    there = pyarrow.array(files.listing(images, "**"), pyarrow.string())
    return sum(not found for found in pyarrow.compute.is_in(names, there).to_pylist())


def run_ids(folder: str) -> list[str]:
    """Of the runs that have ended, oldest first."""
    return [name.split("/")[1] for name in files.listing(folder, "runs/*/summary.json")]


def summaries(folder: str) -> list[dict[str, Any]]:
    """Of the runs that have ended, oldest first; damaged ones are set aside."""
    found = []
    for run_id in run_ids(folder):
        try:
            found.append(read_summary(folder, run_id))
        except InputError as error:
            set_aside(error)
    return found


def set_aside(error: InputError) -> None:
    """Moves a damaged record out of the way, to be looked at, and says so: what went wrong one
    night must not stop the next.
    """
    warnings.warn(f"{error}; it is kept as {error.path}.damaged", stacklevel=2)
    with contextlib.suppress(OSError, InputError):
        files.write(f"{error.path}.damaged", files.read(error.path))
        files.delete(error.path)


def failures(folder: str) -> dict[tuple[str, str], Row]:
    """What failed the last time it was tried, after its files were read.

    Returns:
      {(output, spec hash): error columns}.
    """
    columns = ["status", "output", "spec_hash", "error_type", "error_message", "error_path"]
    found: dict[tuple[str, str], Row] = {}
    # All runs that left rows: those of a cluster's template have no summary.
    parts = files.listing(folder, "metadata/run_id=*/part*.parquet")
    for run_id in sorted({name.split("/")[1].removeprefix("run_id=") for name in parts}):
        try:
            rows = read_metadata(folder, run_id, columns).to_pylist()
        except InputError as error:
            set_aside(error)
            continue
        for done in rows:
            status, key = done.pop("status"), (done.pop("output"), done.pop("spec_hash"))
            if status == "failed" and key[1]:
                found[key] = done
            elif status in ("ok", "cached"):
                found.pop(key, None)
    return found
