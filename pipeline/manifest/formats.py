"""Reads CSV, JSON Lines and Parquet as rows of `{column: value}`, each with its line."""

import csv
import io
import json
import re
from collections.abc import Iterator, Sequence
from typing import Any

import pyarrow.parquet

from nst_ops.errors import InputError, short
from pipeline.errors import ManifestError
from pipeline.store import files

REQUIRED = ("content", "style")
_DELIMITERS = {",": "comma", ";": "semicolon", "\t": "tab"}  # of CSV, as spreadsheets write it
_PANDAS_INDEX = re.compile(r"__index_level_\d+__")  # what pandas calls an index without a name
_MOST_REREADS = 10  # how often, at most, all of a CSV is read again behind wrong quotes


def read_rows(path: str, known: Sequence[str]) -> Iterator[tuple[int, dict[str, Any] | str]]:
    """Yields (line, row), or (line, message) for a row that cannot be parsed.

    Args:
      known: the columns that a manifest may have.

    Raises:
      ManifestError: the file cannot be read, or its header lacks a column or has an unknown one.
    """
    try:
        data = files.read(path)
    except InputError as error:
        raise ManifestError(str(error)) from error
    name = path.lower()
    if name.endswith(".parquet"):
        yield from _parquet_rows(data, path, known)
        return
    # Excel's "Unicode text" is UTF-16.
    encoding = "UTF-16" if data[:2] in (b"\xff\xfe", b"\xfe\xff") else "UTF-8"
    try:
        text = data.decode(encoding).removeprefix("\ufeff")
    except UnicodeDecodeError as error:
        raise ManifestError(
            f"{path}: not {encoding} at byte {error.start}; save the manifest as UTF-8"
        ) from error
    if name.endswith((".jsonl", ".ndjson", ".json")):
        yield from _json_rows(text)
    elif name.endswith((".csv", ".tsv", ".txt")):
        yield from _csv_rows(text, path, known)
    else:
        raise ManifestError(f"{path}: unknown kind of manifest; use .csv, .tsv, .jsonl or .parquet")


def _csv_rows(
    text: str, path: str, known: Sequence[str]
) -> Iterator[tuple[int, dict[str, Any] | str]]:
    """Parses CSV whose cells are separated by comma, semicolon or tab, whichever the header has."""
    stream, line = io.StringIO(text, newline=""), 1
    header_line = stream.readline()
    named = re.fullmatch(r"sep=(.)\s*", header_line)  # a first line that only Excel reads
    if named:
        line = 2
    else:
        stream.seek(0)
    delimiter = named[1] if named else max(_DELIMITERS, key=header_line.count)
    try:
        records = _csv_records(stream, line, delimiter)
        line, header = next(records, (line, []))
        if isinstance(header, str):
            raise ManifestError(f"{path}: line {line}: {header}")
        _check_header([column for column in header if column], path, known)
        for line, cells in records:
            if isinstance(cells, str):
                yield line, cells
            elif any(cells):  # spreadsheets write empty rows below a table
                yield line, _csv_row(header, cells, delimiter)
    except csv.Error as error:
        raise ManifestError(f"{path}: {error}") from error


def _csv_row(header: Sequence[str], cells: Sequence[str], delimiter: str) -> dict[str, Any] | str:
    """Returns a row, or a message if a cell has no named column.

    Spreadsheets write columns without a name; they do no harm as long as they are empty.
    """
    if any(cells[len(header) :]):
        return (
            "more cells than the header has columns; quote cells that hold a "
            f"{_DELIMITERS.get(delimiter, delimiter)}"
        )
    for column, cell in zip(header, cells, strict=False):
        if cell and not column:
            return (
                f"{short(cell)} is in a column without a name; name the column in the "
                "header, or empty the cell"
            )
    return {column: cell for column, cell in zip(header, cells, strict=False) if column}


def _csv_records(
    stream: io.StringIO, line: int, delimiter: str
) -> Iterator[tuple[int, list[str] | str]]:
    """Yields (first line, cells), or (first line, message) for a row whose quotes are wrong.

    What follows the first line of such a row is read again, as its quotes may have swallowed other
    rows.

    Args:
      line: the number of the line that the stream is at.

    Raises:
      csv.Error: so many quotes are wrong that reading again behind each would take for ever.
    """
    reader = csv.reader(stream, delimiter=delimiter, strict=True)
    start, reread = stream.tell(), 0  # characters that were read more than once
    most = _MOST_REREADS * stream.seek(0, io.SEEK_END)
    stream.seek(start)
    while True:
        start, before = stream.tell(), reader.line_num
        try:
            cells = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            last = line + reader.line_num - before - 1
            if "field limit" in str(error):
                reason = f"a cell of more than {csv.field_size_limit():,} characters"
            else:
                reason = str(error) if last == line else f"{error} on line {last}"
            message = f"{reason}; check the quotes"
            end = stream.tell()
            stream.seek(start)
            stream.readline()
            reread += end - stream.tell()
            if reread > most:
                raise csv.Error(
                    f"line {line}: {message} of this row and those behind it"
                ) from error
            yield line, message
            line += 1
            continue
        if cells:  # an empty line has none
            yield line, cells
        line += reader.line_num - before


def _json_rows(text: str) -> Iterator[tuple[int, dict[str, Any] | str]]:
    for line, content in enumerate(text.split("\n"), start=1):
        if not content.strip():
            continue
        try:
            row = parse_json(content)
        except ValueError as error:
            yield line, f"not valid JSON ({error})"
            continue
        yield (
            line,
            row if isinstance(row, dict) else f"expected an object, got {short(row)}",
        )


def _parquet_rows(
    data: bytes, path: str, known: Sequence[str]
) -> Iterator[tuple[int, dict[str, Any] | str]]:
    try:
        file = pyarrow.parquet.ParquetFile(io.BytesIO(data))
        names = file.schema_arrow.names
        columns = [name for name in names if not _PANDAS_INDEX.fullmatch(name)]
        _check_header(columns, path, known)
        line = 0
        for batch in file.iter_batches(batch_size=1024):
            for row in _batch_rows(batch.select(columns)):
                line += 1
                yield line, row
    except ManifestError:
        raise
    except Exception as error:  # of damaged files: OSError, ArrowInvalid, UnicodeDecodeError, ...
        raise ManifestError(f"{path}: not a Parquet file, or damaged ({error})") from error


def _batch_rows(batch: pyarrow.RecordBatch) -> Sequence[dict[str, Any] | str]:
    """Returns the rows of a batch, with a message in place of each row that Python cannot hold.

    Such a row has bytes that are no UTF-8, or a date after the year 9999.
    """
    try:
        return batch.to_pylist()
    except (ValueError, OverflowError) as error:
        if batch.num_rows == 1:
            return [f"a value cannot be read ({error})"]
    return [row for at in range(batch.num_rows) for row in _batch_rows(batch.slice(at, 1))]


def parse_json(text: str) -> Any:
    """Parses JSON; a key that stands twice, NaN and nesting too deep are ValueErrors."""
    try:
        return _DECODER.decode(text)
    except RecursionError as error:
        raise ValueError("nested too deep") from error


def _object_from_pairs(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError(f"a key stands twice in {short([key for key, _ in pairs])}")
    return found


def _refuse_constant(constant: str) -> float:
    raise ValueError(f"{constant} is no number of JSON")


_DECODER = json.JSONDecoder(object_pairs_hook=_object_from_pairs, parse_constant=_refuse_constant)


def _check_header(header: Any, path: str, known: Sequence[str]) -> None:
    for column in REQUIRED:
        if column not in header:
            raise ManifestError(
                f"{path}: no column {column!r} in the header {short(list(header))}; add it"
            )
    for column in header:
        if column not in known:
            raise ManifestError(
                f"{path}: unknown column {short(column)}; columns are {', '.join(known)}"
            )
    if len(set(header)) < len(list(header)):
        raise ManifestError(f"{path}: a column stands twice in the header {short(list(header))}")
