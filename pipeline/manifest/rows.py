"""Turns one row of a manifest into a `Job`: checks its cells, and makes its output's name safe."""

import functools
import hashlib
import json
import posixpath
import re
from collections.abc import Mapping, Sequence
from pathlib import PurePosixPath
from typing import Any

import yaml

from nst_ops.errors import InputError, short
from nst_ops.images.codec import EXTENSIONS, FORMATS
from nst_ops.settings import LEAST_SHARE, MOST_SHARE
from pipeline.config.plain_yaml import DuplicateKeyError, parse_yaml
from pipeline.config.run_config import RunConfig, row_settings
from pipeline.jobs.job import Job, StyleSource
from pipeline.manifest.formats import REQUIRED, parse_json
from pipeline.store import files

MASKS = ("masks", "keep")  # columns of the engines that take masks
LONGEST_PATH = 4096  # bytes of a path, Linux's own limit
_LONGEST_OUTPUT = 900  # bytes; S3 has 1024 for the folder and the name together
_DIGITS = 12  # hexadecimal, in names that we make up; with 6, two of 5000 `main.jpg` may clash


def columns(config: RunConfig) -> tuple[str, ...]:
    """Returns the columns that a manifest may have under these settings."""
    masks = MASKS if config.engine.takes_masks else ()
    return (*REQUIRED, "id", "output", *masks, *row_settings(config))


def parse_row(row: Mapping[str, Any], line: int, folder: str, config: RunConfig) -> Job:
    """Returns one row as a `Job`; empty cells count as absent.

    Args:
      row: {column: value}; values are text as from CSV, or JSON values.
      line: the manifest's line on which the row begins.
      folder: the folder that relative paths are relative to.
      config: the row's settings, as far as they are known: its engine says what the row may set,
        and which styles are no files; its format decides the extension of an output without one.

    Raises:
      InputError: a cell cannot be used; the message names column, value and remedy.
    """
    given = {key: value for key, value in row.items() if value not in (None, "")}
    for column in given:
        if column not in columns(config):
            names = ", ".join(columns(config))
            raise InputError(f"unknown column {short(column)}; columns are {names}")
    for column in REQUIRED:
        if column not in given:
            raise InputError(f"{column!r} is empty; every row needs a content and a style")
    try:
        plain = json.dumps(given, ensure_ascii=False)
        plain.encode()
    except UnicodeEncodeError as error:
        raise InputError(f"a cell is not valid Unicode ({error.reason})") from error
    except (TypeError, ValueError) as error:  # a Parquet file's dates, decimals and bytes
        raise InputError(
            f"a value is no text, number, list or truth value ({error}); write it as text"
        ) from error
    if not _is_path(given["content"]):
        raise InputError(f"content: {short(given['content'])} is not a path")
    content = files.resolve(given["content"], folder)
    styles = tuple(
        style_source(name, weight, folder, config) for name, weight in _styles(given["style"])
    )
    styles = with_masks(styles, _masks(given.get("masks")), folder)
    keep = given.get("keep", "")
    if keep and not _is_path(keep):
        raise InputError(f"keep: {short(keep)} is not a path")
    keep = files.resolve(keep, folder) if keep else ""
    settings = {}
    for column in filter(row_settings(config).__contains__, given):
        words = config.engine.file_settings.get(column)
        try:
            settings[column] = _setting(given[column], words, folder)
        except DuplicateKeyError as error:  # it counts lines within the cell
            raise InputError(f"{column}: {error}") from error
    overrides = tuple(sorted(settings.items()))
    # Without an id, the same pair under other settings must get another name, and the same pair
    # from a manifest in another folder the same name.
    key = json.dumps(
        [content, [style[:2] for style in styles], overrides, *_mask_key(styles, keep)]
    )
    stems = "-".join(_stem(p) for p in (content, *(style.name for style in styles)))
    stems = stems.encode()[:120].decode(errors="ignore")
    for column in ("id", "output"):
        if not isinstance(given.get(column, ""), str | int | float):
            raise InputError(f"{column}: {short(given[column])} is not a name")
    digest = hashlib.sha256(key.encode()).hexdigest()[:_DIGITS]
    identity = str(given.get("id", f"{stems}-{digest}"))
    output = _safe_output(str(given.get("output", identity)), config.format)
    return Job(line, identity, content, styles, output, overrides, keep)


def style_source(name: str, weight: float, folder: str, config: RunConfig) -> StyleSource:
    """Returns the engine's style of this name if it has one; else a file, relative to `folder`."""
    if config.engine.named_style(name) is not None:
        return StyleSource(name, weight, is_file=False)
    return StyleSource(files.resolve(name, folder), weight)


def with_masks(
    styles: Sequence[StyleSource], masks: Sequence[tuple[str, str]], folder: str
) -> tuple[StyleSource, ...]:
    """Returns the styles with their masks.

    Args:
      masks: (where in the photo, from where in the painting) for each style, "" for none; empty:
        there are no masks.
      folder: the folder that relative paths are relative to.

    Raises:
      InputError: they are not as many as styles, or a style that is no painting has one of its own.
    """
    if not masks:
        return tuple(styles)
    if len(masks) != len(styles):
        raise InputError(
            f"masks: {len(masks)} for {len(styles)} paintings; give one for each, in their order, "
            "or null (- on the command line) for a painting without"
        )
    placed = []
    for style, pair in zip(styles, masks, strict=True):
        photo_mask, painting_mask = (path and files.resolve(path, folder) for path in pair)
        if painting_mask and not style.is_file:
            raise InputError(f"masks: {short(style.name)} is no file that a part could be taken of")
        placed.append(style._replace(photo_mask=photo_mask, painting_mask=painting_mask))
    return tuple(placed)


def _mask_key(styles: Sequence[StyleSource], keep: str) -> list[Any]:
    masks = [[style.photo_mask, style.painting_mask] for style in styles]
    return [masks, keep] if keep or any(map(any, masks)) else []


def _masks(value: Any) -> list[tuple[str, str]]:
    """Returns (where in the photo, from where in the painting) for each entry of a cell.

    Args:
      value: a path, or a list (in CSV, as JSON text) of paths, of {photo, painting} or of null.
    """
    if value is None:
        return []
    if value == "null":
        return [("", "")]
    if isinstance(value, str) and re.match(r"\s*[\[{]", value):
        value = _listed("masks", value)
    return [_mask(entry) for entry in (value if isinstance(value, list) else [value])]


def _listed(column: str, cell: str) -> Any:
    """Returns what a cell that begins like a list holds."""
    try:
        return parse_json(cell)
    except ValueError as error:
        raise InputError(
            f"{column}: {short(cell)} begins like a list but is no JSON ({error})"
        ) from error


def _mask(entry: Any) -> tuple[str, str]:
    paths = entry if isinstance(entry, dict) else {"photo": entry}
    known = paths.keys() <= {"photo", "painting"}
    if not known or not all(path in (None, "") or _is_path(path) for path in paths.values()):
        raise InputError(
            f"masks: {short(entry)} is not a path, null, or {{photo: path, painting: path}}"
        )
    return paths.get("photo") or "", paths.get("painting") or ""


def _styles(value: Any) -> list[tuple[str, float]]:
    """Returns (path or name, weight) for each style of a cell.

    Args:
      value: a path, or a list (in CSV, as JSON text) of paths or of {path, weight}.
    """
    if isinstance(value, str) and re.match(r'\s*\[\s*["{]', value):
        value = _listed("style", value)
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
                f"style: {short(entry)} is not a path or {{path, weight}} with a "
                f"weight above 0, from {LEAST_SHARE:g} to {MOST_SHARE:g}"
            )
        styles.append((path, float(weight)))
    if not styles:
        raise InputError("style: the list is empty")
    return styles


def _setting(value: Any, words: Sequence[str] | None, folder: str) -> str:
    """Returns a setting's value as JSON; a cell's text is read as YAML, so that 512 is a number.

    Args:
      words: values that are no path, of a setting that else holds one; None: it never holds a path.
    """
    if words is not None:
        is_path = isinstance(value, str) and value not in words
        return json.dumps(files.resolve(value, folder) if is_path else value)
    return _text_as_json(value) if isinstance(value, str) else json.dumps(value)


@functools.lru_cache(10_000)  # PyYAML is slow, and rows share their settings
def _text_as_json(text: str) -> str:
    try:
        return json.dumps(parse_yaml(text))
    except DuplicateKeyError:
        raise
    except (yaml.YAMLError, TypeError, ValueError):  # plain text, or a date, which JSON lacks
        return json.dumps(text)


def _is_path(value: Any) -> bool:
    return isinstance(value, str) and 0 < len(value.encode(errors="replace")) <= LONGEST_PATH


def _stem(path: str) -> str:
    """Returns a file's stem without the characters that `_safe_output` refuses."""
    name = posixpath.splitext(posixpath.basename(path.replace("\\", "/").rstrip("/")))[0]
    return "".join("_" if ord(c) < 32 or ord(c) == 127 or c == ":" else c for c in name)


def _safe_output(output: str, format: str) -> str:
    """Returns the output as a relative path below the images folder, with an extension."""
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
            f"output {short(output)} must be a relative path without `..` or control "
            f"characters, each name at most 240 bytes and all at most {_LONGEST_OUTPUT}"
        )
    known = EXTENSIONS.get(posixpath.splitext(name.lower())[1]) == format
    return name if known else name + FORMATS[format]
