"""What was wrong in a run, and what differs from the run before."""

import re
import statistics
import sys
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from pipeline.jobs.row import Row
from pipeline.report.history import Record
from pipeline.store.metadata import counts

_SLOWER = 1.5  # times the previous run's seconds, and a second more, is markedly slower


def group_failures(rows: Iterable[Row]) -> list[dict[str, Any]]:
    """Failed rows by reason, the most frequent first: [{label, lines}]."""
    groups: dict[str, list[int]] = {}
    for row in rows:
        if row["status"] == "failed":
            groups.setdefault(_reason(row), []).append(row["manifest_line"])
    return _largest_first(groups)


class _Outcome(NamedTuple):
    line: int
    status: str
    seconds: float | None  # the picture's own share


def compare(record: Record, previous: Record) -> dict[str, Any]:
    """What differs from the run before: settings, versions, counts, statuses and seconds.

    Rows are the same if they make the same picture, or, where a bad row makes none, if they have
    the same line. From ok to cached is no change: the picture is there.
    """
    before, now = _outcomes(previous), _outcomes(record)
    changes: dict[str, list[int]] = {}
    slower = []
    for key, is_now in now.items():
        was = before.get(key)
        status = was.status if was else "new"
        if status != is_now.status and not {status, is_now.status} <= {"ok", "cached"}:
            changes.setdefault(f"{status} → {is_now.status}", []).append(is_now.line)
        if was and was.status == is_now.status == "ok" and was.seconds and is_now.seconds:
            if is_now.seconds >= max(_SLOWER * was.seconds, was.seconds + 1.0):
                slower.append((key, is_now.line, was.seconds, is_now.seconds))
    old, new = _choices(previous), _choices(record)
    return {
        "run_id": previous.run_id,
        "counts": counts(previous.outcomes),
        "seconds": median_seconds(previous.each_outcome()),
        "settings": [(k, old[k], new[k]) for k in new if k in old and old[k] != new[k]],
        "changes": _largest_first(changes),
        "gone": len(before.keys() - now.keys()),
        "slower": sorted(slower, key=lambda each: each[2] / each[3]),
    }


def _outcomes(record: Record) -> dict[str | int, _Outcome]:
    """By picture, or by line where there is none."""
    return {
        row["output"] or row["manifest_line"]: _Outcome(
            row["manifest_line"], sys.intern(row["status"]), share_seconds(row)
        )
        for row in record.each_outcome()
    }


def share_seconds(row: Mapping[str, Any], name: str = "seconds_total") -> float | None:
    """A picture's own share: what was optimized together took the time together."""
    return None if row[name] is None else row[name] / (row["batch_size"] or 1)


def median_seconds(rows: Iterable[Row]) -> float | None:
    """Of the pictures that were made."""
    found = [share_seconds(row) for row in rows if row["status"] == "ok"]
    return statistics.median(found) if found else None


def _choices(record: Record) -> dict[str, str]:
    """What may explain a difference between runs."""
    manifest = {"manifest": record.summary["manifest"]} if record.summary["manifest"] else {}
    return record.settings | manifest | record.summary["versions"]


def _reason(row: Row) -> str:
    """What failed, without what differs from file to file."""
    message = row["error_message"] or ""
    if row["error_path"]:
        message = message.replace(f"{row['error_path']}: ", "").replace(row["error_path"], "…")
    message = re.sub(r"(?<!\w)(\w+:/)?/[^\s,;:'\")]+", "…", message)
    message = re.sub(r"\b\d[\d.x]*\b", "N", message)
    return f"{row['error_type']}: {message}"


def _largest_first(groups: dict[str, list[int]]) -> list[dict[str, Any]]:
    ordered = sorted(groups.items(), key=lambda each: -len(each[1]))
    return [{"label": label, "lines": lines} for label, lines in ordered]
