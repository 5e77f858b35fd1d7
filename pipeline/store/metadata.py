"""The metadata: one row for every line of a manifest, in Parquet."""

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
from pipeline.jobs.row import STATUSES, Row
from pipeline.store import files
from pipeline.store.layout import images_folder, metadata_folder, now

SCHEMA_VERSION = 3
_RENAMED = {"seconds_optimise": "seconds_optimize"}  # columns of earlier versions
_ROWS_AT_ONCE = 1000  # a row with its loss curve may take 50 KB
_RECOVERED = "part-recovered.parquet"


@functools.cache
def schema() -> pyarrow.Schema:
    """All columns: those of `Row`, and what engines have beside them."""
    moment = pyarrow.timestamp("us", tz="UTC")
    special = {
        "styles": _arrow_type([{"path": str, "weight": float}]),
        "style_sha256": pyarrow.list_(pyarrow.string()),
        "started_at": moment,
        "finished_at": moment,
    }
    own = {name: special.get(name) or _plain_type(kind) for name, kind in _ROW_TYPES.items()}
    engines = {name: _arrow_type(kind) for name, kind in all_columns().items()}
    return pyarrow.schema(own | engines)


@functools.cache
def file_schema() -> pyarrow.Schema:
    """In the files: readers take the run's id from the name of the folder, and refuse to merge the
    two.
    """
    return pyarrow.schema([field for field in schema() if field.name != "run_id"])


_ROW_TYPES = typing.get_type_hints(Row)
_ARROW_TYPES = {str: pyarrow.string(), int: pyarrow.int64(), float: pyarrow.float64()}


def _plain_type(kind: Any) -> pyarrow.DataType:
    """Of `str`, or of `str | None`."""
    return _ARROW_TYPES[(typing.get_args(kind) or (kind,))[0]]


def _arrow_type(kind: ColumnType) -> pyarrow.DataType:
    if isinstance(kind, list):
        (columns,) = kind
        return pyarrow.list_(pyarrow.struct([(n, _arrow_type(k)) for n, k in columns.items()]))
    return _ARROW_TYPES[kind]


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
        "styles": [{"path": style.name, "weight": style.weight} for style in job.styles],
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


def error_columns(error: BaseException) -> dict[str, str | None]:
    """What the row says of the error that ended its job."""
    return {
        "error_type": type(error).__name__,
        "error_code": error.code if isinstance(error, InputError) else None,
        "error_message": str(error),
        "error_path": getattr(error, "path", None) or getattr(error, "filename", None),
    }


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


def write_metadata(folder: str, run_id: str, name: str, tables: Iterable[pyarrow.Table]) -> None:
    """Writes rows as a run's own pipeline does, into one file of the run's metadata."""
    path = files.join(metadata_folder(folder, run_id), name)
    with files.replacing(path) as file:
        with pyarrow.parquet.ParquetWriter(file, file_schema(), compression="zstd") as writer:
            for table in tables:
                writer.write_table(table.select(file_schema().names).cast(file_schema()))


def write_recovered(folder: str, run_id: str, rows: Iterator[Row]) -> None:
    """Writes what a run that died had kept, and had not written."""
    written = _written_lines(folder, run_id)
    left = (row for row in rows if row["manifest_line"] not in written)
    batches = iter(lambda: list(itertools.islice(left, _ROWS_AT_ONCE)), [])
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
      columns: of `schema()`, or all.
      lines: of the manifest, or all.

    Raises:
      InputError: a file is damaged.
    """
    tables = []
    for name in _parts(folder, run_id):
        path = files.join(folder, name)
        try:
            file = pyarrow.parquet.ParquetFile(pyarrow.BufferReader(files.read(path)))
            there = {_RENAMED.get(name, name): name for name in file.schema_arrow.names}
            wanted = [name for name in columns or schema().names if name in there]
            names = [there[name] for name in wanted if name != "run_id"]
            table = file.read(names) if lines is None else _read_lines(file, names, lines)
            table = table.rename_columns([_RENAMED.get(name, name) for name in names])
        except (pyarrow.ArrowException, OSError) as error:
            raise InputError(f"is damaged ({error})", path=path) from error
        tables.append(table.append_column("run_id", pyarrow.repeat(run_id, len(table))))
    # Columns that the run's version did not have yet are null.
    table = pyarrow.concat_tables([schema().empty_table(), *tables], promote_options="default")
    return table if columns is None else table.select(list(columns))


def _read_lines(
    file: pyarrow.parquet.ParquetFile, names: Sequence[str], lines: pyarrow.Array
) -> pyarrow.Table:
    """Without more in memory than that and some thousand rows."""
    wanted = [
        batch.filter(pyarrow.compute.is_in(batch["manifest_line"], lines)).select(names)
        for batch in file.iter_batches(8192, columns={*names, "manifest_line"})
    ]
    found = pyarrow.schema([file.schema_arrow.field(name) for name in names])
    return pyarrow.Table.from_batches(wanted, found)


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


def failures(folder: str) -> dict[tuple[str, str], dict[str, Any]]:
    """What failed the last time it was tried, after its files were read.

    Returns:
      {(output, spec hash): error columns}.
    """
    errors = ["error_type", "error_code", "error_message", "error_path"]
    columns = ["status", "output", "spec_hash", *errors]
    found: dict[tuple[str, str], dict[str, Any]] = {}
    # All runs that left rows: those of a cluster's template have no summary.
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
