"""Writes the report of a run: one HTML file, which needs no network, from its record and metadata.

This module turns rows into plain values; `templates/` decides how they look. Its functions take a
`Record` or rows, and return what the template or its script reads.
"""

import base64
import hashlib
import json
import os
import urllib.parse
from collections import Counter
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import jinja2
import numpy as np

from nst_ops.engines.base import all_columns
from nst_ops.errors import InputError
from pipeline.config.run_config import RunConfig
from pipeline.jobs.row import STATUSES
from pipeline.report.comparison import (
    compare,
    group_failures,
    median_seconds,
    share_seconds,
)
from pipeline.report.history import Record, as_json, read_previous, read_run
from pipeline.report.thumbnails import thumbnails
from pipeline.store import files
from pipeline.store.layout import images_folder, record_folder
from pipeline.store.metadata import counts
from pipeline.store.records import run_ids

# Two pictures of 4 KB a row: with 1000 rows the report still goes by mail, about 12 MB.
_ROWS_WITH_THUMBNAILS = 1000
_STYLES_SHOWN = 4  # of a blend
_LINKED = ("http", "https", "file", "s3", "gs")  # schemes safe to click, unlike javascript
_COLUMNS = (
    *("manifest_line", "job_id", "status", "output", "height", "width", "seed", "spec_hash"),
    *("error_type", "error_message", "error_path", "error_code", "batch_size", "peak_memory_bytes"),
    *("device", "precision", "engine"),
    *("started_at", "finished_at"),
)

_TEMPLATES = jinja2.Environment(
    loader=jinja2.PackageLoader("pipeline.report"),
    autoescape=True,
    undefined=jinja2.StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)


def write_report(folder: str, run_id: str) -> str:
    """Writes the report of a run beside its summary.

    A picture that is missing or damaged only leaves a gap in it.

    Args:
      folder: the run's folder, or its URL.
      run_id: one of `records.run_ids(folder)`; the run is compared with the last run of the same
        shard before it.

    Returns:
      The report's path, `<folder>/runs/<run_id>/report.html`.

    Raises:
      InputError: there is no such run, or its record is damaged.
      OSError: the report cannot be written.
    """
    folder = files.absolute(folder)
    known = run_ids(folder)
    if run_id not in known:
        raise InputError(f"no run {run_id!r} has ended here; known: {known or 'none'}", path=folder)
    record = read_run(folder, run_id)
    previous = read_previous(folder, record, [each for each in known if each < run_id])
    path = files.join(record_folder(folder, run_id), "report.html")
    files.write(path, render(folder, record, previous).encode())
    return path


def render(folder: str, record: Record, previous: Record | None) -> str:
    """Returns the report as HTML, in which all text from users is escaped."""
    failures = group_failures(record.each_outcome())
    comparison = compare(record, previous) if previous else None
    changes = comparison["changes"] if comparison else []
    shown = {row["manifest_line"] for row in record.rows}
    groups = {
        kind: [{**group, "lines": [n for n in group["lines"] if n in shown]} for group in found]
        for kind, found in (("failures", failures), ("changes", changes))
    }
    data = table_data(folder, record) | {"groups": groups}
    script = _TEMPLATES.get_template("report.js").render()
    return _TEMPLATES.get_template("report.html").render(
        run=record,
        folder=folder,
        facts=_facts(record),
        statuses=STATUSES,
        failures=failures,
        comparison=comparison,
        defaults=as_json(RunConfig().model_dump(mode="json")),
        # An unescaped "<" could end the script element that holds the data.
        data=json.dumps(data, separators=(",", ":"), allow_nan=False).replace("<", "\\u003c"),
        script=script,
        # The page's policy lets only this script run, whatever a file's name contains.
        script_hash=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
    )


def table_data(folder: str, record: Record) -> dict[str, Any]:
    """Returns the rows column by column, and each file that they name once.

    Returns:
      {columns: {name: values}, figures: names of columns that engines have, files: [[path, link,
      thumbnail]]}; the columns `content`, `styles` ([[file, weight]]) and `result` hold indices
      into files. A link may be None. A thumbnail is None if none was tried, "" if none can be made.
    """
    index: dict[str, int] = {}
    wanted: dict[str, None] = {}  # paths to make thumbnails of, in order
    columns: dict[str, list[Any]] = {
        name: [_plain(row[name]) for row in record.rows] for name in _COLUMNS
    }
    columns["seconds_total"] = [_plain(share_seconds(row)) for row in record.rows]
    figures = [name for name, kind in all_columns().items() if not isinstance(kind, list)]
    columns |= {name: [_plain(row[name]) for row in record.rows] for name in figures}
    columns["seconds_optimize"] = [
        _plain(share_seconds(row, "seconds_optimize")) for row in record.rows
    ]
    columns["scales"] = [
        [[_plain(value) for value in scale.values()] for scale in row["scales"] or ()]
        for row in record.rows
    ]
    columns["curve"] = [row["curve"] for row in record.rows]
    columns |= {"content": [], "styles": [], "result": []}
    for position, row in enumerate(record.rows):
        made = row["output"] if row["status"] in ("ok", "cached") else None
        result = files.join(images_folder(folder), made) if made else None
        styles = [(each["path"], each["weight"]) for each in row["styles"] or ()]
        named = [row["content"] or None, result, *(path for path, _ in styles)]
        number = [None if path is None else index.setdefault(path, len(index)) for path in named]
        columns["content"].append(number[0])
        columns["result"].append(number[1])
        columns["styles"].append([[n, w] for n, (_, w) in zip(number[2:], styles, strict=True)])
        if position < _ROWS_WITH_THUMBNAILS:
            wanted |= dict.fromkeys(path for path in named[: 2 + _STYLES_SHOWN] if path)
    # Only rows that could not be parsed still have relative paths; these are left out.
    small = thumbnails([p for p in wanted if files.is_url(p) or os.path.isabs(p)])
    return {
        "columns": columns,
        "figures": figures,
        "files": [[path, link(path, folder), small.get(path)] for path in index],
    }


def link(path: str, folder: str) -> str | None:
    """Returns the link to a file from the report, which lies two folders below `folder`.

    It is relative if the file lies in the folder; None if a browser should not be sent there.
    """
    root = folder.rstrip("/") + "/"
    if path.startswith(root):
        return "../../" + urllib.parse.quote(path.removeprefix(root))
    if files.is_url(path):
        return path if path.partition("://")[0].lower() in _LINKED else None
    return Path(path).as_uri() if os.path.isabs(path) else None


def _facts(record: Record) -> dict[str, Any]:
    """Returns the figures at the head of the report."""
    seconds, found = record.summary["seconds"], counts(record.outcomes)
    moment = datetime.strptime(record.run_id.partition("-")[0], "%Y%m%dT%H%M%SZ")
    devices = Counter(
        (row["device"], row["precision"]) for row in record.each_outcome() if row["device"]
    )
    return {
        "counts": found,
        "started": moment.replace(tzinfo=UTC),
        "wall": str(timedelta(seconds=round(seconds))) if seconds else "unknown",
        "per_hour": f"{3600.0 * found['ok'] / seconds:,.0f}" if seconds else "unknown",
        "seconds": median_seconds(record.each_outcome()),
        "devices": [f"{device}, {precision}" for (device, precision), _ in devices.most_common()],
    }


def _plain(value: Any) -> Any:
    """Returns a value as JSON can hold it; floats keep 4 digits, NaN and infinity become None."""
    if isinstance(value, datetime):
        return f"{value:%Y-%m-%d %H:%M:%S}"
    if isinstance(value, float):
        return float(f"{value:.4g}") if np.isfinite(value) else None
    return value
