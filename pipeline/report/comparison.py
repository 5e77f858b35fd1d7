"""Finds what went wrong in a run, and what differs from the run before."""

import re
import statistics
import sys
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from pipeline.jobs.row import Row
from pipeline.report.history import Record
from pipeline.store.metadata import counts

_SLOWER = 1.5  # slower: so many times the previous seconds, and at least a second more


def group_failures(rows: Iterable[Row]) -> list[dict[str, Any]]:
    """Groups failed rows by reason, the most frequent first: [{label, lines}]."""
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
    """Compares a run with the one before: settings, versions, counts, statuses and seconds.

    Rows are matched by the picture that they make, or by their line where a bad row makes none.
    From ok to cached is no change: the picture is there.
    """
    before, now = _outcomes(previous), _outcomes(record)
    changes: dict[str, list[int]] = {}
    slower = []
    for key, row in now.items():
        past = before.get(key)
        status = past.status if past else "new"
        if status != row.status and not {status, row.status} <= {"ok", "cached"}:
            changes.setdefault(f"{status} → {row.status}", []).append(row.line)
        if past and past.status == row.status == "ok" and past.seconds and row.seconds:
            if row.seconds >= max(_SLOWER * past.seconds, past.seconds + 1.0):
                slower.append((key, row.line, past.seconds, row.seconds))
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
    """Returns what became of each row, by its output, or by its line if it has none."""
    return {
        row["output"] or row["manifest_line"]: _Outcome(
            row["manifest_line"], sys.intern(row["status"]), share_seconds(row)
        )
        for row in record.each_outcome()
    }


def share_seconds(row: Mapping[str, Any], name: str = "seconds_total") -> float | None:
    """Returns a picture's own share of the seconds that its batch took together."""
    return None if row[name] is None else row[name] / (row["batch_size"] or 1)


def median_seconds(rows: Iterable[Row]) -> float | None:
    """Returns the median seconds of the pictures that were made; None if there are none."""
    found = [share_seconds(row) for row in rows if row["status"] == "ok"]
    return statistics.median(found) if found else None


def _choices(record: Record) -> dict[str, str]:
    """Returns what may explain a difference between runs: settings, manifest and versions."""
    manifest = {"manifest": record.summary["manifest"]} if record.summary["manifest"] else {}
    return record.settings | manifest | record.summary["versions"]


def _reason(row: Row) -> str:
    """Returns what failed, without paths and numbers, which differ from file to file."""
    message = row["error_message"] or ""
    if row["error_path"]:
        message = message.replace(f"{row['error_path']}: ", "").replace(row["error_path"], "…")
    message = re.sub(r"(?<!\w)(\w+:/)?/[^\s,;:'\")]+", "…", message)
    message = re.sub(r"\b\d[\d.x]*\b", "N", message)
    return f"{row['error_type']}: {message}"


def _largest_first(groups: dict[str, list[int]]) -> list[dict[str, Any]]:
    ordered = sorted(groups.items(), key=lambda each: -len(each[1]))
    return [{"label": label, "lines": lines} for label, lines in ordered]
