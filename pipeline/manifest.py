"""Manifests: CSV, JSON Lines or Parquet in, one `Job` a row out. Parsing is pure; reading
streams.
"""

import csv
import hashlib
import io
import json
import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

import pyarrow.parquet
import yaml

from nst_ops.errors import InputError
from nst_ops.images import FORMATS
from nst_ops.settings import INITS
from pipeline import files
from pipeline.config import ROW_SETTINGS, ConfigError, RunConfig, validate

COLUMNS = ("content", "style", "id", "output", *ROW_SETTINGS)
_REQUIRED = ("content", "style")


class ManifestError(ValueError):
    """A manifest that cannot be used as a whole; nothing was started."""


@dataclass(frozen=True)
class Job:
    """One row of a manifest: plain values only."""

    line: int  # in the manifest, from 1; a Parquet file's rows count from 1
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
    path: str = ""  # the file at fault, where it is one


def read_manifest(path: str, run: RunConfig) -> Iterator[Job | BadRow]:
    """Parses a manifest row by row.

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
            yield BadRow(
                line,
                str(error),
                content=str(row.get("content") or "").encode(errors="replace").decode(),
            )


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
                f"line {line}: unknown column {column!r}; columns are {', '.join(COLUMNS)}"
            )
    for column in _REQUIRED:
        if column not in given:
            raise InputError(
                f"line {line}: {column!r} is empty; every row needs a content and a style"
            )
    try:
        json.dumps(given, ensure_ascii=False, default=str).encode()
    except UnicodeEncodeError as error:
        raise InputError(f"line {line}: a cell is not valid Unicode ({error.reason})") from error
    content = files.resolve(str(given["content"]), folder)
    styles = tuple((files.resolve(p, folder), w) for p, w in _styles(given["style"], line))
    settings = {key: _value(given[key]) for key in given if key in ROW_SETTINGS}
    if settings.get("init", "content") not in INITS:
        settings["init"] = files.resolve(str(settings["init"]), folder)
    overrides = tuple(sorted((key, json.dumps(value)) for key, value in settings.items()))
    # Without an id, the same pair under other settings must get another name.
    key = json.dumps([given["content"], _plain(given["style"]), overrides], sort_keys=True)
    stems = "-".join(_stem(p) for p in (content, *(path for path, _ in styles)))
    stems = stems.encode()[:120].decode(errors="ignore")
    identity = str(given.get("id") or f"{stems}-{hashlib.sha256(key.encode()).hexdigest()[:6]}")
    output = _safe_output(str(given.get("output") or identity), line, FORMATS[format])
    return Job(line, identity, content, styles, output, overrides)


def check_manifest(path: str, run: RunConfig) -> tuple[int, list[BadRow]]:
    """Reads all rows once: the number of rows and the bad ones.

    Raises:
      ManifestError: as `read_manifest`, or two rows would write one picture, or there is no row.
    """
    outputs: dict[str, int] = {}
    bad = []
    count = 0
    for row in read_manifest(path, run):
        count += 1
        if isinstance(row, BadRow):
            bad.append(row)
            continue
        name = row.output.casefold()  # some file systems do not tell A from a
        if name in outputs:
            raise ManifestError(
                f"{path}: lines {outputs[name]} and {row.line} both write {row.output!r}; "
                "give them different `output` or `id` values"
            )
        outputs[name] = row.line
    if not count:
        raise ManifestError(f"{path}: no rows; add one with content and style")
    return count, bad


def _rows(path: str) -> Iterator[tuple[int, dict[str, Any] | str]]:
    """(line, row), or (line, message) for a row that cannot be parsed."""
    try:
        data = files.read(path)
    except InputError as error:
        raise ManifestError(str(error)) from error
    if path.endswith(".parquet"):
        yield from _parquet_rows(data, path)
        return
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ManifestError(
            f"{path}: not UTF-8 at byte {error.start}; save the manifest as UTF-8"
        ) from error
    if path.endswith((".jsonl", ".ndjson", ".json")):
        yield from _json_rows(text)
    elif path.endswith((".csv", ".tsv")):
        yield from _csv_rows(text, path, "\t" if path.endswith(".tsv") else ",")
    else:
        raise ManifestError(f"{path}: unknown kind of manifest; use .csv, .tsv, .jsonl or .parquet")


def _csv_rows(text: str, path: str, delimiter: str) -> Iterator[tuple[int, dict[str, Any] | str]]:
    reader = csv.DictReader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    try:
        header = reader.fieldnames or []
        _check_header(header, path)
        for row in reader:
            line = reader.line_num
            if None in row:
                yield (
                    line,
                    f"line {line}: more cells than the header has columns; quote cells that hold "
                    "a comma",
                )
            else:
                yield line, row
    except csv.Error as error:
        raise ManifestError(f"{path}: line {reader.line_num}: {error}; check the quotes") from error


def _json_rows(text: str) -> Iterator[tuple[int, dict[str, Any] | str]]:
    for line, content in enumerate(text.split("\n"), start=1):
        if not content.strip():
            continue
        try:
            row = json.loads(content)
        except ValueError as error:
            yield line, f"line {line}: not valid JSON ({error})"
            continue
        yield (
            line,
            row
            if isinstance(row, dict)
            else f"line {line}: expected an object, got {content[:40]!r}",
        )


def _parquet_rows(data: bytes, path: str) -> Iterator[tuple[int, dict[str, Any] | str]]:
    try:
        table = pyarrow.parquet.read_table(io.BytesIO(data))
    except (pyarrow.ArrowException, OSError) as error:
        raise ManifestError(f"{path}: not a Parquet file ({error})") from error
    _check_header(table.column_names, path)
    line = 0
    for batch in table.to_batches(max_chunksize=1024):
        for row in batch.to_pylist():
            line += 1
            yield line, row


def _check_header(header: Any, path: str) -> None:
    for column in _REQUIRED:
        if column not in header:
            raise ManifestError(
                f"{path}: no column {column!r} in the header {list(header)}; add it"
            )
    for column in header:
        if column not in COLUMNS:
            raise ManifestError(
                f"{path}: unknown column {column!r}; columns are {', '.join(COLUMNS)}"
            )
    if len(set(header)) < len(list(header)):
        raise ManifestError(f"{path}: a column stands twice in the header {list(header)}")


def _styles(value: Any, line: int) -> list[tuple[str, float]]:
    """A path, or a list (JSON text in CSV) of paths or of {path, weight}."""
    if isinstance(value, str) and re.match(r'\s*\[\s*["{]', value):
        try:
            value = json.loads(value)
        except ValueError as error:
            raise InputError(
                f"line {line}: style: {value!r} begins like a list but is no JSON ({error})"
            ) from error
    entries = value if isinstance(value, list) else [value]
    styles = []
    for entry in entries:
        entry = entry if isinstance(entry, dict) else {"path": entry}
        path, weight = entry.get("path"), entry.get("weight")
        weight = 1.0 if weight is None else weight
        if not (
            isinstance(path, str)
            and path
            and isinstance(weight, int | float)
            and 0 < weight < math.inf
        ):
            raise InputError(
                f"line {line}: style: {entry!r} is not a path or {{path, weight}} with a weight "
                "above 0"
            )
        styles.append((path, float(weight)))
    if not styles:
        raise InputError(f"line {line}: style: the list is empty")
    return styles


def _value(value: Any) -> Any:
    """A cell's text as YAML, so that 512 is a number; other values as they are."""
    if not isinstance(value, str):
        return value
    try:
        parsed = yaml.safe_load(value)
        return float(parsed) if isinstance(parsed, str) and parsed[:1].isdigit() else parsed
    except (yaml.YAMLError, ValueError):
        return value


def _plain(value: Any) -> Any:
    return value if isinstance(value, str | list) else str(value)


def _stem(path: str) -> str:
    return PurePosixPath(path.replace("\\", "/")).stem


def _safe_output(output: str, line: int, extension: str) -> str:
    """A relative path below the images folder, with an extension."""
    parts = PurePosixPath(output.replace("\\", "/")).parts
    bad = [
        p
        for p in parts
        if p == ".." or p.startswith("/") or any(ord(c) < 32 for c in p) or len(p.encode()) > 240
    ]
    if bad or not parts or files.is_url(output) or (len(output) > 1 and output[1] == ":"):
        raise InputError(
            f"line {line}: output {output!r} must be a relative path without `..` or control "
            "characters, "
            "each name at most 240 bytes"
        )
    name = "/".join(parts)
    return (
        name
        if name.lower().endswith((extension, ".jpeg" if extension == ".jpg" else extension))
        else name + extension
    )
