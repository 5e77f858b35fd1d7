"""One row of a manifest as a `Job`: its cells checked, its name made safe."""

import functools
import hashlib
import json
import posixpath
import re
from collections.abc import Mapping
from pathlib import PurePosixPath
from typing import Any

import yaml

from nst_ops.errors import InputError, short
from nst_ops.images.codec import FORMATS
from nst_ops.settings import INITS, LEAST_SHARE, MOST_SHARE
from pipeline.config.plain_yaml import DuplicateKeyError, parse_yaml
from pipeline.config.run_config import ROW_SETTINGS
from pipeline.jobs.job import Job
from pipeline.manifest.formats import COLUMNS, REQUIRED, parse_json
from pipeline.store import files

LONGEST_PATH = 4096  # bytes of a path, Linux's own limit
_LONGEST_OUTPUT = 900  # bytes; S3 has 1024 for the folder and the name together
_DIGITS = 12  # hexadecimal, of a name of our own: with 6, two of 5000 `main.jpg` may share one


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
    for column in REQUIRED:
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


def _styles(value: Any, line: int) -> list[tuple[str, float]]:
    """A path, or a list (JSON text in CSV) of paths or of {path, weight}."""
    if isinstance(value, str) and re.match(r'\s*\[\s*["{]', value):
        try:
            value = parse_json(value)
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
    return isinstance(value, str) and 0 < len(value.encode(errors="replace")) <= LONGEST_PATH


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
