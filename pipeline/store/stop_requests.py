"""Asks a run to stop, by a small file in its `work` folder that all its processes look at."""

import json
from typing import Literal, NamedTuple

from pipeline.store import files
from pipeline.store.layout import work_folder

StopReason = Literal[
    "",  # it was not stopped
    "signal",  # by a person or a scheduler
    "deadline",
    "failures",  # more than `max_failure_ratio`
    "abandoned",  # its launcher died
    "error",  # of the pipeline itself
]


class StopRequest(NamedTuple):
    """Says why a run should stop."""

    reason: StopReason
    text: str  # for people


def request_stop(folder: str, run_id: str, reason: StopReason, text: str) -> None:
    """Asks all processes of a run to stop at their next step."""
    path = work_folder(folder) / f"{run_id}.stop"
    files.write(str(path), json.dumps([reason, text]).encode())


def stop_requested(folder: str, run_id: str) -> StopRequest | None:
    """Returns why the run should stop; None if it should not."""
    path = work_folder(folder) / f"{run_id}.stop"
    try:
        return StopRequest(*json.loads(path.read_text()))
    except (OSError, ValueError, TypeError):
        return None
