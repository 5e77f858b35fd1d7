"""Reads and writes the metadata: Parquet with one row for every line of a manifest."""

import contextlib
import functools
import importlib.metadata
import itertools
import json
import os
import platform
import typing
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, cast

import pyarrow
import pyarrow.compute
import pyarrow.parquet

from nst_ops.engines.base import ColumnType, all_columns
from nst_ops.errors import InputError
from pipeline.jobs.job import Job
from pipeline.jobs.row import STATUSES, MaskRow, Row
from pipeline.store import files
from pipeline.store.layout import images_folder, metadata_folder, now

SCHEMA_VERSION = 4
_RENAMED = {"seconds_optimise": "seconds_optimize"}  # columns of earlier versions
_ROWS_AT_ONCE = 1000  # a row with its loss curve may take 50 KB
_RECOVERED = "part-recovered.parquet"


@functools.cache
def schema() -> pyarrow.Schema:
    """Returns the schema of all columns: those of `Row`, and those of the engines."""
    moment = pyarrow.timestamp("us", tz="UTC")
    special = {
        "styles": _arrow_type([{"path": str, "weight": float}]),
        "masks": _arrow_type([{"photo": str, "painting": str}]),
        "style_trims": _arrow_type([dict.fromkeys(("top", "bottom", "left", "right"), int)]),
        "style_sha256": pyarrow.list_(pyarrow.string()),
        "started_at": moment,
        "finished_at": moment,
    }
    own = {name: special.get(name) or _plain_type(kind) for name, kind in _ROW_TYPES.items()}
    engines = {name: _arrow_type(kind) for name, kind in all_columns().items()}
    return pyarrow.schema(own | engines)


@functools.cache
def file_schema() -> pyarrow.Schema:
    """Returns the schema of the Parquet files, which lacks `run_id`.

    Readers take that column from the folder's name, and refuse a file that has it too.
    """
    return pyarrow.schema([field for field in schema() if field.name != "run_id"])


_ROW_TYPES = typing.get_type_hints(Row)
_ARROW_TYPES = {str: pyarrow.string(), int: pyarrow.int64(), float: pyarrow.float64()}


def _plain_type(kind: Any) -> pyarrow.DataType:
    """Returns the Arrow type of a type such as `str` or `str | None`."""
    return _ARROW_TYPES[(typing.get_args(kind) or (kind,))[0]]


def _arrow_type(kind: ColumnType) -> pyarrow.DataType:
    if isinstance(kind, list):
        (columns,) = kind
        return pyarrow.list_(pyarrow.struct([(n, _arrow_type(k)) for n, k in columns.items()]))
    return _ARROW_TYPES[kind]


def row(run_id: str, job: Job, status: str, **values: Any) -> Row:
    """Returns a metadata row with every column of the schema; what is not given is null.

    Raises:
      ValueError: a value is given for a column that the schema lacks; it would be lost.
    """
    known = {
        "run_id": run_id,
        "job_id": job.id,
        "manifest_line": job.line,
        "status": status,
        "content": job.content,
        "styles": [{"path": style.name, "weight": style.weight} for style in job.styles],
        "masks": _masks(job),
        "keep": job.keep or None,
        "output": job.output,
        "versions": json.dumps(versions(), sort_keys=True),
        "finished_at": now(),
        "schema_version": SCHEMA_VERSION,
        **values,
    }
    found = {name: known.pop(name, None) for name in schema().names}
    if known:
        raise ValueError(
            f"the metadata has no column {', '.join(known)}; add it to Row, or to the columns of "
            "the engine"
        )
    return cast(Row, found)


def _masks(job: Job) -> list[MaskRow] | None:
    masks: list[MaskRow] = [
        {"photo": style.photo_mask or None, "painting": style.painting_mask or None}
        for style in job.styles
    ]
    return masks if any(any(each.values()) for each in masks) else None


def error_columns(error: BaseException) -> dict[str, str | None]:
    """Returns the columns that say which error ended a job."""
    return {
        "error_type": type(error).__name__,
        "error_code": error.code if isinstance(error, InputError) else None,
        "error_message": str(error),
        "error_path": getattr(error, "path", None) or getattr(error, "filename", None),
    }


@functools.cache
def versions() -> dict[str, str]:
    """Returns the versions of the software that decides how a picture looks."""
    packages = ("nst", "tensorflow", "keras", "numpy", "pillow", "apache-beam")
    found = {"python": platform.python_version()}
    for package in packages:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            found[package] = "not installed"
    return found


def write_metadata(folder: str, run_id: str, name: str, tables: Iterable[pyarrow.Table]) -> None:
    """Writes rows into one file of a run's metadata, in the format that the pipeline writes."""
    path = files.join(metadata_folder(folder, run_id), name)
    with files.replacing(path) as file:
        with pyarrow.parquet.ParquetWriter(file, file_schema(), compression="zstd") as writer:
            for table in tables:
                writer.write_table(table.select(file_schema().names).cast(file_schema()))


def write_recovered(folder: str, run_id: str, rows: Iterator[Row]) -> None:
    """Writes the rows that a run had kept, but not yet written as metadata, when it died."""
    written = _written_lines(folder, run_id)
    unwritten = (row for row in rows if row["manifest_line"] not in written)
    batches = iter(lambda: list(itertools.islice(unwritten, _ROWS_AT_ONCE)), [])
    tables = (pyarrow.Table.from_pylist(batch, schema=schema()) for batch in batches)
    write_metadata(folder, run_id, _RECOVERED, tables)


def _written_lines(folder: str, run_id: str) -> set[int]:
    try:
        lines = read_metadata(folder, run_id, ["manifest_line"])["manifest_line"]
    except InputError as error:
        files.set_aside(error)
        return set()
    return set(lines.to_pylist())


def forget_recovered(folder: str, run_id: str) -> None:
    """Removes the rows that were recovered for a run, as its own metadata is there after all.

    A cluster may go on without the launcher, and end after another run has taken it for dead.
    """
    files.delete(files.join(metadata_folder(folder, run_id), _RECOVERED))


def has_metadata(folder: str, run_id: str) -> bool:
    """Says whether a run has written all of its own metadata.

    The rows of jobs that needed no work do not tell: a cluster writes them long before the others.
    """
    names = [name.rpartition("/")[2] for name in _parts(folder, run_id)]
    return any(not name.startswith("part-finished") for name in names)


def remove_metadata(folder: str, run_id: str) -> None:
    """Removes a run's rows before a new attempt: Beam replaces only as many files as it writes."""
    for name in _parts(folder, run_id):
        files.delete(files.join(folder, name))


def _parts(folder: str, run_id: str) -> list[str]:
    return files.listing(folder, f"metadata/run_id={run_id}/part-*.parquet")


def remove_leftovers(folder: str, run_id: str) -> None:
    """Removes half-written Parquet of workers that died; it would break readers of the data set."""
    for name in files.listing(folder, f"metadata/run_id={run_id}/beam-temp-*/*"):
        files.delete(files.join(folder, name))
    if not files.is_url(folder):
        for path in Path(folder, "metadata", f"run_id={run_id}").glob("beam-temp-*"):
            with contextlib.suppress(OSError):
                path.rmdir()


def runs_with_leftovers(folder: str) -> set[str]:
    """Returns the ids of the runs that have half-written Parquet."""
    names = files.listing(folder, "metadata/run_id=*/beam-temp-*/*")
    return {name.split("/")[1].removeprefix("run_id=") for name in names}


def read_metadata(
    folder: str,
    run_id: str,
    columns: Sequence[str] | None = None,
    *,
    lines: pyarrow.Array | None = None,
) -> pyarrow.Table:
    """Returns the rows of a run; none, if it has not written any yet.

    Args:
      columns: names in `schema()`; None: all.
      lines: lines of the manifest; None: all.

    Raises:
      InputError: a file is damaged.
    """
    tables = []
    for name in _parts(folder, run_id):
        path = files.join(folder, name)
        try:
            file = pyarrow.parquet.ParquetFile(pyarrow.BufferReader(files.read(path)))
            stored_names = {_RENAMED.get(name, name): name for name in file.schema_arrow.names}
            wanted = [name for name in columns or schema().names if name in stored_names]
            names = [stored_names[name] for name in wanted if name != "run_id"]
            table = file.read(names) if lines is None else _read_lines(file, names, lines)
            table = table.rename_columns([_RENAMED.get(name, name) for name in names])
        except (pyarrow.ArrowException, OSError) as error:
            raise InputError(f"is damaged ({error})", path=path) from error
        tables.append(table.append_column("run_id", pyarrow.repeat(run_id, len(table))))
    # Columns that the run's version of nst did not have yet become null.
    table = pyarrow.concat_tables([schema().empty_table(), *tables], promote_options="default")
    return table if columns is None else table.select(list(columns))


def _read_lines(
    file: pyarrow.parquet.ParquetFile, names: Sequence[str], lines: pyarrow.Array
) -> pyarrow.Table:
    """Returns the rows of some lines, holding only these and some thousand others in memory."""
    wanted = [
        batch.filter(pyarrow.compute.is_in(batch["manifest_line"], lines)).select(names)
        for batch in file.iter_batches(8192, columns={*names, "manifest_line"})
    ]
    found = pyarrow.schema([file.schema_arrow.field(name) for name in names])
    return pyarrow.Table.from_batches(wanted, found)


def counts(table: pyarrow.Table) -> dict[str, Any]:
    """Counts the rows of each status, and under `errors` those of each type of error."""
    statuses, errors = _value_counts(table["status"]), _value_counts(table["error_type"])
    errors.pop(None, None)
    of_status = {status: statuses.get(status, 0) for status in STATUSES}
    return of_status | {"errors": dict(sorted(errors.items()))}


def _value_counts(column: pyarrow.ChunkedArray) -> dict[Any, int]:
    return {found["values"]: found["counts"] for found in column.value_counts().to_pylist()}


def count_missing(folder: str, table: pyarrow.Table) -> int:
    """Returns how many pictures of ok and cached rows do not exist."""
    made = pyarrow.compute.is_in(table["status"], pyarrow.array(["ok", "cached"]))
    images, names = images_folder(folder), table.filter(made)["output"]
    if not files.is_url(folder):
        return sum(not os.path.exists(files.join(images, str(name))) for name in names)
    there = pyarrow.array(files.listing(images, "**"), pyarrow.string())
    return sum(not found for found in pyarrow.compute.is_in(names, there).to_pylist())


def failures(folder: str) -> dict[tuple[str, str], dict[str, Any]]:
    """Finds the pictures that failed when they were last tried, after their files were read.

    Returns:
      {(output, spec hash): error columns}.
    """
    errors = ["error_type", "error_code", "error_message", "error_path"]
    columns = ["status", "output", "spec_hash", *errors]
    found: dict[tuple[str, str], dict[str, Any]] = {}
    # All runs with rows, not only those with a summary: runs of a cluster's template have none.
    parts = files.listing(folder, "metadata/run_id=*/part*.parquet")
    for run_id in sorted({name.split("/")[1].removeprefix("run_id=") for name in parts}):
        try:
            rows = read_metadata(folder, run_id, columns).to_pylist()
        except InputError as error:
            files.set_aside(error)
            continue
        for done in rows:
            status, key = done.pop("status"), (done.pop("output"), done.pop("spec_hash"))
            if status == "failed" and key[1]:
                found[key] = done
            elif status in ("ok", "cached"):
                found.pop(key, None)
    return found
