"""Reads and writes what a run records: run.json when it begins, summary.json when it has ended."""

import json
from collections.abc import Mapping
from typing import Any

from nst_ops.errors import InputError
from pipeline.jobs.row import STATUSES
from pipeline.store import files
from pipeline.store.layout import record_folder


def write_record(folder: str, run_id: str, name: str, values: Mapping[str, Any]) -> None:
    """Writes a file of a run's record.

    Args:
      name: `run.json` for what is known of a run when it begins; `summary.json` for the same and
        what came of it.
    """
    data = json.dumps(values, indent=2).encode()
    files.write(files.join(record_folder(folder, run_id), name), data)


def close_record(folder: str, run_id: str, summary: Mapping[str, Any]) -> None:
    """Writes the summary of a run that came to its end.

    Writes `_SUCCESS` too, if no row was deferred and there is at least one picture.
    """
    write_record(folder, run_id, "summary.json", summary)
    if not summary["deferred"] and (summary["ok"] or summary["cached"]):
        # Not empty: Beam cannot put an empty object on S3.
        files.write(files.join(record_folder(folder, run_id), "_SUCCESS"), b"\n")


def read_record(folder: str, run_id: str, name: str) -> dict[str, Any]:
    """Returns what `write_record` wrote.

    Raises:
      InputError: it cannot be read, or is damaged.
    """
    path = files.join(record_folder(folder, run_id), name)
    try:
        found = json.loads(files.read(path))
    except ValueError as error:
        raise InputError(f"is damaged ({error})", path=path) from error
    if not isinstance(found, dict) or not found:
        raise InputError("is damaged: it lacks what a run records", path=path)
    return found


def read_summary(folder: str, run_id: str) -> dict[str, Any]:
    """Returns the summary of a run that has ended; `seconds` is None if it failed or was killed."""
    # Summaries of other versions may lack some of these.
    blank = {
        "seconds": None,
        "stopped": "",
        "stop_reason": "",
        "manifest": "",
        "versions": {},
        "shard": "1/1",
    }
    return blank | dict.fromkeys(STATUSES, 0) | read_record(folder, run_id, "summary.json")


def run_ids(folder: str) -> list[str]:
    """Returns the ids of the runs that have ended, oldest first."""
    return [name.split("/")[1] for name in files.listing(folder, "runs/*/summary.json")]


def summaries(folder: str) -> list[dict[str, Any]]:
    """Returns the summaries of runs that have ended, oldest first; damaged ones are set aside."""
    found = []
    for run_id in run_ids(folder):
        try:
            found.append(read_summary(folder, run_id))
        except InputError as error:
            files.set_aside(error)
    return found
