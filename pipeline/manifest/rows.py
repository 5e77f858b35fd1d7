"""Manifests: CSV, JSON Lines or Parquet in, one `Job` a row out. A manifest is read whole, its rows
are parsed one by one.
"""

import csv
import functools
import hashlib
import io
import json
import posixpath
import re
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

import pyarrow.parquet
import yaml

from nst_ops.errors import InputError, short
from nst_ops.images.codec import FORMATS
from nst_ops.settings import INITS, LEAST_SHARE, MOST_SHARE
from pipeline.config.run_config import (
    ROW_SETTINGS,
    ConfigError,
    DuplicateKeyError,
    RunConfig,
    parse_yaml,
    validate,
)
from pipeline.manifest.originals import Originals
from pipeline.store import files

COLUMNS = ("content", "style", "id", "output", *ROW_SETTINGS)
_REQUIRED = ("content", "style")
_DELIMITERS = {",": "comma", ";": "semicolon", "\t": "tab"}  # of CSV, as spreadsheets write it
_LONGEST = 4096  # bytes of a path, Linux's own limit
_LONGEST_OUTPUT = 900  # bytes; S3 has 1024 for the folder and the name together
_PANDAS_INDEX = re.compile(r"__index_level_\d+__")  # what it calls an index without a name
_MOST_ANEW = 10  # times that a CSV is read again at most, behind quotes that are wrong
_DIGITS = 12  # hexadecimal, of a name of our own: with 6, two of 5000 `main.jpg` may share one


class ManifestError(ValueError):
    """A manifest that cannot be used as a whole; nothing was started."""


@dataclass(frozen=True)
class Job:
    """One row of a manifest: plain values only."""

    line: int  # in the manifest, where the row begins, from 1; a Parquet file's rows count from 1
    id: str
    content: str  # a path or URL
    styles: tuple[tuple[str, float], ...]  # (path or URL, weight)
    output: str  # relative to the run's images folder
    overrides: tuple[tuple[str, str], ...] = ()  # (setting, its value as JSON)

    def config(self, run: RunConfig) -> RunConfig:
        """The run's settings with this row's own."""
        if not self.overrides:
            return run
        own = {key: json.loads(value) for key, value in self.overrides}
        return validate({**run.model_dump(), **own}, f"line {self.line}")


@dataclass(frozen=True)
class BadRow:
    """A row that is no job, and why."""

    line: int
    message: str
    content: str = ""

    def as_job(self) -> Job:
        """For its row in the metadata."""
        return Job(self.line, "", self.content, (), "")


def read_manifest(path: str, run: RunConfig) -> Iterator[Job | BadRow]:
    """Parses a manifest row by row; `checked_rows` also compares rows.

    Raises:
      ManifestError: the file cannot be read, or its header lacks a column or has an unknown one.
    """
    folder = files.parent(path)
    cache: dict[tuple, RunConfig] = {}  # validated settings by overrides: rows share few
    for line, row in _rows(path):
        if isinstance(row, str):
            yield BadRow(line, row)
            continue
        try:
            job = parse_row(row, line, folder, run.format)
            if job.overrides not in cache:
                cache[job.overrides] = job.config(run)
            yield (
                job
                if cache[job.overrides].format == run.format
                else parse_row(row, line, folder, cache[job.overrides].format)
            )
        except (InputError, ConfigError) as error:
            content = row.get("content")
            content = content[:_LONGEST] if isinstance(content, str) else ""
            message = "; ".join(map(str, error.args))  # a row is one line of a log
            yield BadRow(line, message, content=content.encode(errors="replace").decode())
        except RecursionError:
            yield BadRow(line, f"line {line}: lists within lists, too deep to be read")


def parse_row(row: Mapping[str, Any], line: int, folder: str, format: str) -> Job:
    """One row as a `Job`; empty cells count as absent.

    Args:
      row: column: value; text as from CSV, or JSON values.
      line: for errors and the metadata.
      folder: what relative paths are relative to.
      format: decides the extension of an output without one.

    Raises:
      InputError: naming the line, the column, the value and the remedy.
    """
    given = {key: value for key, value in row.items() if value not in (None, "")}
    for column in given:
        if column not in COLUMNS:
            raise InputError(
                f"line {line}: unknown column {short(column)}; columns are {', '.join(COLUMNS)}"
            )
    for column in _REQUIRED:
        if column not in given:
            raise InputError(
                f"line {line}: {column!r} is empty; every row needs a content and a style"
            )
    try:
        plain = json.dumps(given, ensure_ascii=False)
        plain.encode()
    except UnicodeEncodeError as error:
        raise InputError(f"line {line}: a cell is not valid Unicode ({error.reason})") from error
    except (TypeError, ValueError) as error:  # a Parquet file's dates, decimals and bytes
        raise InputError(
            f"line {line}: a value is no text, number, list or truth value ({error}); write it as "
            "text"
        ) from error
    if not _is_path(given["content"]):
        raise InputError(f"line {line}: content: {short(given['content'])} is not a path")
    content = files.resolve(given["content"], folder)
    styles = tuple((files.resolve(p, folder), w) for p, w in _styles(given["style"], line))
    settings = {}
    for column in filter(ROW_SETTINGS.__contains__, given):
        try:
            settings[column] = _setting(column, given[column], folder)
        except DuplicateKeyError as error:  # its lines are those of the cell
            raise InputError(f"line {line}: {column}: {error}") from error
    overrides = tuple(sorted(settings.items()))
    # Without an id, the same pair under other settings must get another name; and the same one
    # from a manifest in another folder, the same.
    key = json.dumps([content, styles, overrides])
    stems = "-".join(_stem(p) for p in (content, *(path for path, _ in styles)))
    stems = stems.encode()[:120].decode(errors="ignore")
    for column in ("id", "output"):
        if not isinstance(given.get(column, ""), str | int | float):
            raise InputError(f"line {line}: {column}: {short(given[column])} is not a name")
    digest = hashlib.sha256(key.encode()).hexdigest()[:_DIGITS]
    identity = str(given.get("id", f"{stems}-{digest}"))
    output = _safe_output(str(given.get("output", identity)), line, FORMATS[format])
    return Job(line, identity, content, styles, output, overrides)


def checked_rows(
    path: str, run: RunConfig, originals: Originals | None = None
) -> Iterator[Job | BadRow]:
    """The rows of `read_manifest`, each once; but a row that would write where one before it does
    is a bad one.

    Args:
      originals: is shown what the good rows read and write.

    Raises:
      ManifestError: as `read_manifest`, or there is no row.
    """
    outputs: dict[str, int] = {}  # the line that writes a file
    folders: dict[str, int] = {}  # and the first that needs a folder
    row = None
    for row in read_manifest(path, run):
        if isinstance(row, Job):
            if clash := _clash(row, outputs, folders):
                yield BadRow(row.line, f"line {row.line}: {clash}", row.content)
                continue
            if originals:
                originals.writes(row.output)
                originals.reads([row.content, *(style for style, _ in row.styles)])
        yield row
    if row is None:
        raise ManifestError(f"{path}: no rows; add one with content and style")


def _clash(job: Job, outputs: dict[str, int], folders: dict[str, int]) -> str:
    """Why a job cannot have its output; if it can, "", and its line is entered into both."""
    # Some file systems do not tell A from a, or an é of one code point from one of two.
    name = unicodedata.normalize("NFC", job.output.casefold())
    remedy = "give them different `output` or `id` values"
    if name in outputs:
        return f"{short(job.output)} is written by line {outputs[name]} already; {remedy}"
    if name in folders:
        return f"{short(job.output)} is a folder to line {folders[name]}; {remedy}"
    parents = []
    parent = name.rpartition("/")[0]
    while parent and parent not in folders:  # whose own parents are known to be folders
        if parent in outputs:
            return (
                f"{short(job.output)} needs a folder where line {outputs[parent]} writes a "
                f"picture; {remedy}"
            )
        parents.append(parent)
        parent = parent.rpartition("/")[0]
    outputs[name] = job.line
    folders.update(dict.fromkeys(parents, job.line))
    return ""


def _rows(path: str) -> Iterator[tuple[int, dict[str, Any] | str]]:
    """(line, row), or (line, message) for a row that cannot be parsed."""
    try:
        data = files.read(path)
    except InputError as error:
        raise ManifestError(str(error)) from error
    name = path.lower()
    if name.endswith(".parquet"):
        yield from _parquet_rows(data, path)
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
        yield from _csv_rows(text, path)
    else:
        raise ManifestError(f"{path}: unknown kind of manifest; use .csv, .tsv, .jsonl or .parquet")


def _csv_rows(text: str, path: str) -> Iterator[tuple[int, dict[str, Any] | str]]:
    """Cells are divided by whatever divides the header: comma, semicolon or tab."""
    stream, line = io.StringIO(text, newline=""), 1
    header_line = stream.readline()
    named = re.fullmatch(r"sep=(.)\s*", header_line)  # a first line for Excel alone
    if named:
        line = 2
    else:
        stream.seek(0)
    delimiter = named[1] if named else max(_DELIMITERS, key=header_line.count)
    try:
        records = _csv_records(stream, line, delimiter)
        line, header = next(records, (line, []))
        if isinstance(header, str):
            raise ManifestError(f"{path}: {header}")
        _check_header([column for column in header if column], path)
        for line, cells in records:
            if isinstance(cells, str):
                yield line, cells
            elif any(cells):  # as they are not below a table's end
                yield line, _csv_row(header, cells, line, delimiter)
    except csv.Error as error:
        raise ManifestError(f"{path}: {error}") from error


def _csv_row(
    header: Sequence[str], cells: Sequence[str], line: int, delimiter: str
) -> dict[str, Any] | str:
    """Spreadsheets write columns that have no name, which are to be empty."""
    if any(cells[len(header) :]):
        return (
            f"line {line}: more cells than the header has columns; quote cells that hold a "
            f"{_DELIMITERS.get(delimiter, delimiter)}"
        )
    for column, cell in zip(header, cells, strict=False):
        if cell and not column:
            return (
                f"line {line}: {short(cell)} is in a column without a name; name the column in the "
                "header, or empty the cell"
            )
    return {column: cell for column, cell in zip(header, cells, strict=False) if column}


def _csv_records(
    stream: io.StringIO, line: int, delimiter: str
) -> Iterator[tuple[int, list[str] | str]]:
    """(first line, cells), or (first line, message) for a row whose quotes are wrong; what follows
    its first line is read anew, as the quotes may have swallowed other rows.

    Args:
      line: the number of the line that the stream is at.

    Raises:
      csv.Error: so many quotes are wrong that it would take for ever to look behind each.
    """
    reader = csv.reader(stream, delimiter=delimiter, strict=True)
    start, again = stream.tell(), 0  # characters that were read more than once
    most = _MOST_ANEW * stream.seek(0, io.SEEK_END)
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
            message = f"line {line}: {reason}; check the quotes"
            end = stream.tell()
            stream.seek(start)
            stream.readline()
            again += end - stream.tell()
            if again > most:
                raise csv.Error(f"{message} of this row and those behind it") from error
            yield line, message
            line += 1
            continue
        if cells:  # no empty line
            yield line, cells
        line += reader.line_num - before


def _json_rows(text: str) -> Iterator[tuple[int, dict[str, Any] | str]]:
    for line, content in enumerate(text.split("\n"), start=1):
        if not content.strip():
            continue
        try:
            row = _json(content)
        except ValueError as error:
            yield line, f"line {line}: not valid JSON ({error})"
            continue
        yield (
            line,
            row if isinstance(row, dict) else f"line {line}: expected an object, got {short(row)}",
        )


def _parquet_rows(data: bytes, path: str) -> Iterator[tuple[int, dict[str, Any] | str]]:
    try:
        file = pyarrow.parquet.ParquetFile(io.BytesIO(data))
        names = file.schema_arrow.names
        columns = [name for name in names if not _PANDAS_INDEX.fullmatch(name)]
        _check_header(columns, path)
        line = 0
        for batch in file.iter_batches(batch_size=1024):
            for row in _batch_rows(batch.select(columns)):
                line += 1
                yield line, row if isinstance(row, dict) else f"line {line}: {row}"
    except ManifestError:
        raise
    except Exception as error:  # of damaged files: OSError, ArrowInvalid, UnicodeDecodeError, ...
        raise ManifestError(f"{path}: not a Parquet file, or damaged ({error})") from error


def _batch_rows(batch: pyarrow.RecordBatch) -> Sequence[dict[str, Any] | str]:
    """Rows, or the message of one with a value that Python has not, such as bytes that are no UTF-8
    or a date after the year 9999.
    """
    try:
        return batch.to_pylist()
    except (ValueError, OverflowError) as error:
        if batch.num_rows == 1:
            return [f"a value cannot be read ({error})"]
    return [row for at in range(batch.num_rows) for row in _batch_rows(batch.slice(at, 1))]


def _json(text: str) -> Any:
    """As `json.loads`, but no key twice and no NaN; nesting too deep is a ValueError too."""
    try:
        return _DECODER.decode(text)
    except RecursionError as error:
        raise ValueError("nested too deep") from error


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError(f"a key stands twice in {short([key for key, _ in pairs])}")
    return found


def _refuse(constant: str) -> float:
    raise ValueError(f"{constant} is no number of JSON")


_DECODER = json.JSONDecoder(object_pairs_hook=_object, parse_constant=_refuse)


def _check_header(header: Any, path: str) -> None:
    for column in _REQUIRED:
        if column not in header:
            raise ManifestError(
                f"{path}: no column {column!r} in the header {short(list(header))}; add it"
            )
    for column in header:
        if column not in COLUMNS:
            raise ManifestError(
                f"{path}: unknown column {short(column)}; columns are {', '.join(COLUMNS)}"
            )
    if len(set(header)) < len(list(header)):
        raise ManifestError(f"{path}: a column stands twice in the header {short(list(header))}")


def _styles(value: Any, line: int) -> list[tuple[str, float]]:
    """A path, or a list (JSON text in CSV) of paths or of {path, weight}."""
    if isinstance(value, str) and re.match(r'\s*\[\s*["{]', value):
        try:
            value = _json(value)
        except ValueError as error:
            raise InputError(
                f"line {line}: style: {short(value)} begins like a list but is no JSON ({error})"
            ) from error
    entries = value if isinstance(value, list) else [value]
    styles = []
    for entry in entries:
        entry = entry if isinstance(entry, dict) else {"path": entry}
        path, weight = entry.get("path"), entry.get("weight")
        weight = 1.0 if weight is None else weight
        if not (
            _is_path(path)
            and isinstance(weight, int | float)
            and LEAST_SHARE <= weight <= MOST_SHARE
        ):
            raise InputError(
                f"line {line}: style: {short(entry)} is not a path or {{path, weight}} with a "
                f"weight above 0, from {LEAST_SHARE:g} to {MOST_SHARE:g}"
            )
        styles.append((path, float(weight)))
    if not styles:
        raise InputError(f"line {line}: style: the list is empty")
    return styles


def _setting(key: str, value: Any, folder: str) -> str:
    """A setting's value as JSON; a cell's text is read as YAML, so that 512 is a number."""
    if key == "init":
        named = isinstance(value, str) and value not in INITS
        return json.dumps(files.resolve(value, folder) if named else value)
    return _text_as_json(value) if isinstance(value, str) else json.dumps(value)


@functools.lru_cache(10_000)  # PyYAML is slow, and rows share their settings
def _text_as_json(text: str) -> str:
    try:
        return json.dumps(parse_yaml(text))
    except DuplicateKeyError:
        raise
    except (yaml.YAMLError, TypeError, ValueError):  # text after all; or a date: no JSON either
        return json.dumps(text)


def _is_path(value: Any) -> bool:
    return isinstance(value, str) and 0 < len(value.encode(errors="replace")) <= _LONGEST


def _stem(path: str) -> str:
    """For a name of our own, which may hold nothing that `_safe_output` refuses."""
    name = posixpath.splitext(posixpath.basename(path.replace("\\", "/").rstrip("/")))[0]
    return "".join("_" if ord(c) < 32 or ord(c) == 127 or c == ":" else c for c in name)


def _safe_output(output: str, line: int, extension: str) -> str:
    """A relative path below the images folder, with an extension."""
    parts = PurePosixPath(output.replace("\\", "/")).parts
    bad = [
        p
        for p in parts
        if p == ".." or p.startswith("/") or any(ord(c) < 32 for c in p) or len(p.encode()) > 240
    ]
    name = "/".join(parts)
    long = len(name.encode()) > _LONGEST_OUTPUT
    if bad or long or not parts or files.is_url(output) or output[1:2] == ":":
        raise InputError(
            f"line {line}: output {short(output)} must be a relative path without `..` or control "
            f"characters, each name at most 240 bytes and all at most {_LONGEST_OUTPUT}"
        )
    longer = {".jpg": ".jpeg", ".tif": ".tiff"}.get(extension, extension)
    return name if name.lower().endswith((extension, longer)) else name + extension
