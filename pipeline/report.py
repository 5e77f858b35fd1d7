"""The report of a run: one HTML file that needs no network, from the run's record and metadata.

Here rows become plain values; how they look is the business of `templates/`. Functions take a
`Record` or rows and give what the template or its script reads.
"""

import base64
import contextlib
import hashlib
import io
import itertools
import json
import os
import re
import statistics
import time
import urllib.parse
from collections import Counter
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, NamedTuple

import jinja2
import numpy as np
import pyarrow
import yaml
from PIL import Image, ImageOps

from nst_ops.errors import InputError
from nst_ops.images import READABLE, decode, encode
from pipeline import files
from pipeline.config import RunConfig
from pipeline.outputs import (
    SCHEMA,
    STATUSES,
    Row,
    images_folder,
    read_metadata,
    record_folder,
    run_ids,
)

# Two pictures of 4 KB a row: with 1000 rows the report still goes by mail, about 12 MB.
_ROWS_WITH_THUMBNAILS = 1000
_THUMBNAIL_SECONDS = 30.0  # for all of them: no report should hold up the end of a night
_THUMBNAIL_SIDE, _THUMBNAIL_QUALITY = 128, 70
_STYLES_SHOWN = 4  # of a blend
_MOST_PIXELS = 50_000_000  # decoded for a thumbnail; a JPEG counts after its cheap reduction
_CURVE_POINTS = 60  # of a loss curve
_LEAST_LOSS = 1e-9  # drawn as zero
_SLOWER = 1.5  # times the previous run's seconds, and a second more, is markedly slower
_LINKED = ("http", "https", "file", "s3", "gs")  # schemes that are safe to click, unlike javascript
_LOSSES = ("total", "content", "style", "tv")
_COMPARED = ("job_id", "manifest_line", "status", "seconds_total", "batch_size")
_COLUMNS = (
    *("manifest_line", "job_id", "status", "output", "height", "width", "seed", "spec_hash"),
    *("error_type", "error_message", "error_path", "batch_size", "tile", "peak_memory_bytes"),
    *("loss_first", "loss_last", "loss_content", "loss_style", "loss_tv", "device", "precision"),
    *("started_at", "finished_at"),
)

_TEMPLATES = jinja2.Environment(
    loader=jinja2.PackageLoader("pipeline"),
    autoescape=True,
    undefined=jinja2.StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)


class Record(NamedTuple):
    """What a run left behind."""

    run_id: str
    summary: dict[str, Any]
    settings: dict[str, str]  # values as JSON
    rows: list[Row]  # in the manifest's order, their curves as `loss_curves` gives them


def write_report(folder: str, run_id: str) -> str:
    """Writes the report of a run beside its summary.

    Pictures that are missing or damaged leave a gap in it, no more.

    Args:
      folder: the run's folder, or its URL.
      run_id: one of `outputs.run_ids(folder)`; it is compared with the last one before it, of the
        same shard.

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
    run = _read(folder, run_id, SCHEMA.names)
    previous = _previous(folder, run, [each for each in known if each < run_id])
    path = files.join(record_folder(folder, run_id), "report.html")
    files.write(path, render(folder, run, previous).encode())
    return path


def render(folder: str, run: Record, previous: Record | None) -> str:
    """The report as HTML; everything that users named is escaped in it."""
    failures = group_failures(run.rows)
    comparison = compare(run, previous) if previous else None
    changes = comparison["changes"] if comparison else []
    data = table_data(folder, run) | {"groups": {"failures": failures, "changes": changes}}
    script = _TEMPLATES.get_template("report.js").render()
    return _TEMPLATES.get_template("report.html").render(
        run=run,
        folder=folder,
        facts=_facts(run),
        statuses=STATUSES,
        failures=failures,
        comparison=comparison,
        defaults=_as_json(RunConfig().model_dump(mode="json")),
        # "<" would end the element that holds it.
        data=json.dumps(data, separators=(",", ":"), allow_nan=False).replace("<", "\\u003c"),
        script=script,
        # Nothing but this very script may run, whatever a file is called.
        script_hash=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
    )


def group_failures(rows: Iterable[Row]) -> list[dict[str, Any]]:
    """Failed rows by reason, the most frequent first: [{label, lines}]."""
    groups: dict[str, list[int]] = {}
    for row in rows:
        if row["status"] == "failed":
            groups.setdefault(_reason(row), []).append(row["manifest_line"])
    return _largest_first(groups)


def compare(run: Record, previous: Record) -> dict[str, Any]:
    """What differs from the run before: settings, versions, counts, statuses and seconds.

    Rows are the same if they have the same job id, or without one the same line. From ok to cached
    is no change: the picture is there.
    """
    before = {_identity(row): row for row in previous.rows}
    now = {_identity(row): row for row in run.rows}
    changes: dict[str, list[int]] = {}
    for key, row in now.items():
        was = before[key]["status"] if key in before else "new"
        if was != row["status"] and not {was, row["status"]} <= {"ok", "cached"}:
            changes.setdefault(f"{was} → {row['status']}", []).append(row["manifest_line"])
    slower = [
        (row, was, took)
        for key, row in now.items()
        if key in before and (was := _seconds(before[key])) and (took := _seconds(row))
        if row["status"] == before[key]["status"] == "ok"
        if took >= max(_SLOWER * was, was + 1.0)
    ]
    old, new = _choices(previous), _choices(run)
    return {
        "run_id": previous.run_id,
        "counts": _counts(previous.rows),
        "seconds": _median_seconds(previous.rows),
        "settings": [(k, old[k], new[k]) for k in new if k in old and old[k] != new[k]],
        "changes": _largest_first(changes),
        "gone": len(before.keys() - now.keys()),
        "slower": sorted(slower, key=lambda each: each[1] / each[2]),
    }


def table_data(folder: str, run: Record) -> dict[str, Any]:
    """Rows column by column, and the files they name, each once.

    Returns:
      {columns: {name: values}, files: [[path, link, thumbnail]]}; the columns `content`, `styles`
      ([[file, weight]]) and `result` hold indices into files. A link may be None, a thumbnail too,
      if none was made; it is "" if none can be made.
    """
    index: dict[str, int] = {}
    wanted: dict[str, None] = {}  # paths to make thumbnails of, in order
    columns: dict[str, list[Any]] = {
        name: [_plain(row[name]) for row in run.rows] for name in _COLUMNS
    }
    columns["seconds_total"] = [_plain(_seconds(row)) for row in run.rows]
    columns["seconds_optimise"] = [_plain(_seconds(row, "seconds_optimise")) for row in run.rows]
    columns["scales"] = [
        [[_plain(value) for value in scale.values()] for scale in row["scales"] or ()]
        for row in run.rows
    ]
    columns["curve"] = [row["curve"] for row in run.rows]
    columns |= {"content": [], "styles": [], "result": []}
    for position, row in enumerate(run.rows):
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
    # What is left relative is a row that could not be parsed.
    thumbnails = _thumbnails([p for p in wanted if files.is_url(p) or os.path.isabs(p)])
    return {
        "columns": columns,
        "files": [[path, link(path, folder), thumbnails.get(path)] for path in index],
    }


def loss_curves(table: pyarrow.Table) -> list[dict[str, Any] | None]:
    """The rows' loss curves, thinned.

    Returns:
      Per row None, or {steps, starts, total, content, style, tv}: the number of steps, those at
      which a scale starts, and of each loss at most 60 values of round(1000 * log10(loss)), evenly
      spaced, as differences from the one before: a third of the bytes.
    """
    column = table["loss_curve"].combine_chunks()
    offsets, points = column.offsets.to_numpy(), column.values
    scales = points.field("scale").to_numpy(zero_copy_only=False)
    levels = {name: _levels(points.field(name)) for name in _LOSSES}
    curves: list[dict[str, Any] | None] = []
    for start, end in itertools.pairwise(offsets.tolist()):
        if start == end:
            curves.append(None)
            continue
        steps = end - start
        keep = np.linspace(start, end - 1, min(steps, _CURVE_POINTS)).round().astype(int)
        starts = np.flatnonzero(np.diff(scales[start:end], prepend=-1)).tolist()
        differences = {name: np.diff(levels[name][keep], prepend=0).tolist() for name in _LOSSES}
        curves.append({"steps": steps, "starts": starts, **differences})
    return curves


def link(path: str, folder: str) -> str | None:
    """What the report, two folders below `folder`, links a file by: relative if it lies in the
    folder; None if a browser should not be sent there.
    """
    root = folder.rstrip("/") + "/"
    if path.startswith(root):
        return "../../" + urllib.parse.quote(path.removeprefix(root))
    if files.is_url(path):
        return path if path.partition("://")[0].lower() in _LINKED else None
    return Path(path).as_uri() if os.path.isabs(path) else None


def thumbnail(path: str) -> str:
    """A JPEG of at most 128 px as a data URI, or "" if the file cannot be read as a picture."""
    try:
        data = files.read(path)
        with Image.open(io.BytesIO(data), formats=READABLE) as image:
            image.draft(None, (_THUMBNAIL_SIDE, _THUMBNAIL_SIDE))  # JPEG: decodes a fraction
            if image.width * image.height > _MOST_PIXELS:
                return ""
            if image.mode in ("1", "P"):  # which do not resize smoothly
                image = image.convert("RGBA" if image.has_transparency_data else "RGB")
            image.thumbnail((_THUMBNAIL_SIDE, _THUMBNAIL_SIDE))
            small, profile = io.BytesIO(), image.info.get("icc_profile")
            ImageOps.exif_transpose(image).save(small, "TIFF", icc_profile=profile)
        # Profiles, inks, depths and alpha are dealt with on few pixels, by those who know how.
        pixels = decode(small.getvalue()).pixels
        jpeg = encode(pixels, "jpeg", quality=_THUMBNAIL_QUALITY)
    except Exception:  # whatever is wrong with a file, the report goes on
        return ""
    return "data:image/jpeg;base64," + base64.b64encode(jpeg).decode()


def _thumbnails(paths: Sequence[str]) -> dict[str, str | None]:
    deadline = time.monotonic() + _THUMBNAIL_SECONDS
    with ThreadPoolExecutor(4) as pool:  # Pillow decodes, and stores are waited for, without GIL
        made = pool.map(lambda p: thumbnail(p) if time.monotonic() < deadline else None, paths)
        return dict(zip(paths, made, strict=True))


def _read(folder: str, run_id: str, columns: Sequence[str]) -> Record:
    record = record_folder(folder, run_id)
    try:
        summary = _summary(folder, run_id)
        settings = yaml.safe_load(files.read(files.join(record, "config.yaml")))
        table = read_metadata(folder, run_id, columns)
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise InputError(f"the record of run {run_id} is damaged: {error}", path=record) from error
    curves = loss_curves(table) if "loss_curve" in columns else [None] * len(table)
    rows = table.select([name for name in columns if name != "loss_curve"]).to_pylist()
    # By line: a run that died after its metadata, but before its end, has its rows twice.
    once = {r["manifest_line"]: r | {"curve": c} for r, c in zip(rows, curves, strict=True)}
    return Record(run_id, summary, _as_json(settings), [once[line] for line in sorted(once)])


def _previous(folder: str, run: Record, earlier: Sequence[str]) -> Record | None:
    for run_id in reversed(earlier):
        with contextlib.suppress(InputError, ValueError):  # damaged: nothing to compare with
            if _summary(folder, run_id)["shard"] == run.summary["shard"]:
                return _read(folder, run_id, _COMPARED)
    return None


def _summary(folder: str, run_id: str) -> dict[str, Any]:
    # A run that was killed has a short one.
    blank = {"seconds": None, "stopped": "", "manifest": "", "versions": {}, "shard": "1/1"}
    path = files.join(record_folder(folder, run_id), "summary.json")
    return blank | json.loads(files.read(path))


def _facts(run: Record) -> dict[str, Any]:
    """The figures at the head of the report."""
    seconds, counts = run.summary["seconds"], _counts(run.rows)
    started = datetime.strptime(run.run_id.partition("-")[0], "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC)
    devices = Counter((row["device"], row["precision"]) for row in run.rows if row["device"])
    return {
        "counts": counts,
        "started": started,
        "wall": str(timedelta(seconds=round(seconds))) if seconds else "unknown",
        "per_hour": f"{3600.0 * counts['ok'] / seconds:,.0f}" if seconds else "unknown",
        "seconds": _median_seconds(run.rows),
        "devices": [f"{device}, {precision}" for (device, precision), _ in devices.most_common()],
    }


def _choices(run: Record) -> dict[str, str]:
    """What may explain a difference between runs."""
    manifest = {"manifest": run.summary["manifest"]} if run.summary["manifest"] else {}
    return run.settings | manifest | run.summary["versions"]


def _reason(row: Row) -> str:
    """What failed, without what differs from file to file."""
    message = row["error_message"] or ""
    if row["error_path"]:
        message = message.replace(f"{row['error_path']}: ", "").replace(row["error_path"], "…")
    message = re.sub(r"(?<!\w)(\w+:/)?/[^\s,;:'\")]+", "…", message.removeprefix("line "))
    message = re.sub(r"\b\d[\d.x]*\b", "N", message).removeprefix("N: ")
    return f"{row['error_type']}: {message}"


def _largest_first(groups: dict[str, list[int]]) -> list[dict[str, Any]]:
    ordered = sorted(groups.items(), key=lambda each: -len(each[1]))
    return [{"label": label, "lines": lines} for label, lines in ordered]


def _identity(row: Row) -> str | int:
    return row["job_id"] or row["manifest_line"]


def _counts(rows: Iterable[Row]) -> dict[str, int]:
    found = Counter(row["status"] for row in rows)
    return {status: found[status] for status in STATUSES}


def _seconds(row: Row, name: str = "seconds_total") -> float | None:
    """A picture's own share: what was optimised together took the time together."""
    return None if row[name] is None else row[name] / (row["batch_size"] or 1)


def _median_seconds(rows: Iterable[Row]) -> float | None:
    found = [_seconds(row) for row in rows if row["status"] == "ok"]
    return statistics.median(found) if found else None


def _levels(losses: pyarrow.Array) -> np.ndarray:
    values = np.nan_to_num(losses.to_numpy(zero_copy_only=False), nan=0.0)
    return np.round(1000.0 * np.log10(np.maximum(values, _LEAST_LOSS))).astype(int)


def _plain(value: Any) -> Any:
    """As JSON holds it, without digits that nobody reads."""
    if isinstance(value, datetime):
        return f"{value:%Y-%m-%d %H:%M:%S}"
    if isinstance(value, float):
        return float(f"{value:.4g}") if np.isfinite(value) else None
    return value


def _as_json(settings: dict[str, Any]) -> dict[str, str]:
    return {name: json.dumps(value) for name, value in settings.items()}
